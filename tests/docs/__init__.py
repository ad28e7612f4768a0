"""The documentation, followed: its site is built, what it says to type is typed, what it shows is compared."""

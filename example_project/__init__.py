"""A small shop that uses django_walsignals: what a reader copies from, and what `make demo` runs."""

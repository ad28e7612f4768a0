"""Read by mypy, never run."""

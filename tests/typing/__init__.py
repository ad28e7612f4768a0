"""What a type checker makes of the public API: the ``cases`` are read by mypy and never run."""

"""Sizes and durations as people read them."""

from __future__ import annotations


def show_bytes(size: float | None) -> str:
    """Write a number of bytes with a unit; ``?`` for None."""
    if size is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if round(size, 1) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def show_seconds(seconds: float | None) -> str:
    """Write a duration in its largest unit that fits, and the next; ``?`` for None."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s".replace("0.0 s", "0 s")
    whole = round(seconds)
    for large, small, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"

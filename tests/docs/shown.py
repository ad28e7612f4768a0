"""Whether output is what a page shows, but for positions, process ids, times and amounts, which no two runs share.

In a page ``…`` stands for anything on a line, and alone on a line for any lines.
"""

from __future__ import annotations

import re
from typing import Final

#: What no two runs have in common: what it looks like, and the word that takes its place.
_VARIES: Final = (
    (re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{3,8}\b"), "LSN"),
    (re.compile(r"\b\d+(\.\d+)? ([kMGT]?B|ms|s|min)\b"), "AMOUNT"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"\bxid \d+"), "xid N"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?(\+00:00|Z)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "TIME"),
    (re.compile(r"(?<=\S) {2,}"), "  "),  # columns are as wide as what is in them
)


def pattern(text: str) -> re.Pattern[str]:
    """Compile what a page shows to what it must match."""
    lines = [_line(line) for line in steady(text).splitlines()]
    return re.compile("".join(lines))


def steady(text: str) -> str:
    """Replace what no two runs have in common, and the spaces at the ends of lines."""
    for varying, word in _VARIES:
        text = varying.sub(word, text)
    return "".join(line.rstrip() + "\n" for line in text.strip("\n").splitlines())


def _line(line: str) -> str:
    if line == "…":
        return r"(?:.*\n)*?"
    return re.escape(line).replace("…", ".*") + r"\n"

"""The pages of the documentation and their fenced blocks, in reading order, with what a page's comments say of them.

A comment right above a block, which readers do not see, is one of

    <!-- not run: reason -->   it can't run on this machine: listed and bounded by a test
    <!-- exit 1 -->            the last command's exit code, where it is not 0
    <!-- since PostgreSQL 17 -->  run where the server is that or later, as it is by default
    <!-- background -->        the command goes on running; a ``text`` block further down is what it says next
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.processes import ROOT

DOCS: Final = ROOT / "docs"

_BLOCK: Final = re.compile(
    r"^(?: *<!-- (?P<comment>[^\n]*?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: +title=\"(?P<title>[^\"]+)\")?[^\n]*\n"
    r"(?P<text>.*?)"
    r"^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``line`` is where it opens."""

    page: str
    line: int
    language: str
    title: str
    comment: str
    text: str

    @property
    def not_run(self) -> str:
        """Why it is not run; empty where it is."""
        return self.comment.removeprefix("not run: ") if self.comment.startswith("not run:") else ""

    @property
    def exit_code(self) -> int:
        """What its last command exits with."""
        return int(self.comment.removeprefix("exit ")) if self.comment.startswith("exit ") else 0

    @property
    def since(self) -> int:
        """The first version of PostgreSQL that knows it."""
        return int(self.comment.removeprefix("since PostgreSQL ")) if self.comment.startswith("since ") else 0

    @property
    def is_background(self) -> bool:
        """Whether its command goes on running while the page goes on."""
        return self.comment == "background"

    def __str__(self) -> str:
        return f"docs/{self.page}:{self.line} ({self.language} {self.title})"


def pages() -> list[Path]:
    """List the pages."""
    return sorted(DOCS.glob("*.md"))


def blocks(page: Path) -> Iterator[Block]:
    """Walk a page's blocks."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(
            page.name,
            line,
            match["language"],
            match["title"] or "",
            match["comment"] or "",
            dedent(match["text"]),
        )

"""What a statement does, as far as its first words tell: write to tables, roll back, begin or end a savepoint.

It is asked before each statement of a block with a context, so it reads no further than it must. A statement that only
may write (``WITH`` with a ``DELETE FROM`` in a string) counts as one that does.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Kind(enum.Enum):
    """What matters of a statement to whoever emits messages; ``WRITE`` is of rows, or of a transactional message."""

    WRITE = enum.auto()
    ROLLBACK = enum.auto()
    SAVEPOINT = enum.auto()
    OTHER = enum.auto()


#: White space, comments and opening parentheses. Possessive: there is no way back into it.
_LEADING: Final = r"(?:\s|\(|--[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+"

_FIRST: Final = re.compile(
    rf"{_LEADING}(?:(?P<write>INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\b|(?P<maybe>WITH|EXPLAIN|COPY)\b"
    r"|(?P<message>SELECT\s+(?:pg_catalog\s*\.\s*)?pg_logical_emit_message\s*\(\s*true\b)"
    r"|(?P<rollback>ROLLBACK)\b|(?P<savepoint>SAVEPOINT|RELEASE)\b)",
    re.IGNORECASE,
)
_KINDS: Final = {
    "write": Kind.WRITE,
    "message": Kind.WRITE,
    "rollback": Kind.ROLLBACK,
    "savepoint": Kind.SAVEPOINT,
}
_INSIDE: Final = re.compile(
    r"\b(?:INSERT\s+INTO|(?<!FOR\s)(?<!KEY\s)UPDATE|DELETE\s+FROM|MERGE\s+INTO)\b", re.IGNORECASE
)
_COPY_FROM: Final = re.compile(r"\s+[^\s(][^;]*?\sFROM\b", re.IGNORECASE)


def kind(statement: str) -> Kind:
    """Judge a statement by its first words; by what is in it where those are ``WITH``, ``EXPLAIN`` or ``COPY``."""
    first = _FIRST.match(statement)
    if first is None:
        return Kind.OTHER
    known = _KINDS.get(first.lastgroup or "")
    if known is not None:
        return known
    inside = _COPY_FROM.match if first["maybe"].upper() == "COPY" else _INSIDE.search
    return Kind.OTHER if inside(statement, first.end()) is None else Kind.WRITE

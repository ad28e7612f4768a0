"""The log sequence number: a byte position in the write-ahead log.

https://www.postgresql.org/docs/current/datatype-pg-lsn.html
"""

from __future__ import annotations

import re
from operator import index
from typing import Final, Self

#: An LSN is an unsigned 64 bit number.
MAX_LSN: Final = 2**64 - 1

_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class LSN(int):
    """A position in the WAL in bytes, which prints and parses as the server writes it (``16/B374D848``).

    It is an ``int``, so positions compare and subtract as bytes; a difference is a plain ``int``.
    """

    __slots__ = ()

    def __new__(cls, value: int = 0) -> Self:
        """Make an LSN of a whole number; raise ``ValueError`` where it is not an unsigned 64 bit number."""
        number = index(value)
        if not 0 <= number <= MAX_LSN:
            raise ValueError(f"{int(number)} is not an LSN: it must lie between 0 and 2**64 - 1")
        return super().__new__(cls, number)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the server's notation, two hexadecimal numbers with a slash; raise ``ValueError`` for any other text."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not an LSN: it looks like 16/B374D848")
        high, low = match.groups()
        return cls((int(high, 16) << 32) | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN({str(self)!r})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

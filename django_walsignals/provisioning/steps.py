"""What a plan is made of: steps to take, and findings to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composed


@dataclass(frozen=True, slots=True)
class Step:
    """Statements of one transaction, what they are for, and the line that says it was done."""

    statements: Sequence[Composed]
    done: str
    reason: str

    @property
    def statement(self) -> Composed:
        """All in one, for a server that takes several at a time as one transaction."""
        return SQL("; ").join(self.statements)

    def script(self) -> Composed:
        """All in one, for a person to run."""
        if len(self.statements) == 1:
            return self.statements[0]
        return SQL("BEGIN; {}; COMMIT").format(self.statement)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something on the server: what it should be, and what it is."""

    item: str
    wanted: str
    found: str

    @property
    def is_good(self) -> bool:
        """Say whether it is as it should be."""
        return self.wanted == self.found

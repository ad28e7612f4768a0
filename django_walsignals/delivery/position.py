"""How far a stream has come: a position, and the two of them that a consumer has, received and done."""

from __future__ import annotations

from typing import NamedTuple

from django_walsignals.protocol.lsn import LSN


class Position(NamedTuple):
    """Everything committed before ``lsn``, and the first ``ordinal`` changes of what is committed at ``commit_lsn``.

    ``lsn`` is the end of a whole transaction, never a commit plus something: the next commit may start right there.
    Positions of one stream order as tuples do. A message that is not transactional counts as a transaction of one
    change with its commit at the message.
    """

    lsn: LSN
    commit_lsn: LSN = LSN(0)
    ordinal: int = 0

    def covers(self, commit_lsn: LSN, ordinal: int) -> bool:
        """Say whether this change has been done already."""
        return commit_lsn < self.lsn or (commit_lsn, ordinal) <= (self.commit_lsn, self.ordinal)

    def __str__(self) -> str:
        return f"{self.lsn} + {self.ordinal} of {self.commit_lsn}" if self.ordinal else str(self.lsn)


class Progress:
    """What has been received and what has been done, kept apart. Nothing else writes them, and neither goes back."""

    __slots__ = ("_done", "_received")

    def __init__(self, position: Position) -> None:
        self._received = position
        self._done = position

    @property
    def received(self) -> Position:
        """Up to here the changes have come in."""
        return self._received

    @property
    def done(self) -> Position:
        """Up to here the changes have taken effect, and the checkpoint says so."""
        return self._done

    def receive(self, position: Position) -> None:
        """Take note that changes up to here are in hand; raise ``ValueError`` for a step back."""
        if position < self._received:
            raise ValueError(f"received {position} after {self._received}")
        self._received = position

    def finish(self, position: Position) -> None:
        """Take note that changes up to here are committed; raise ``ValueError`` for one not between the two."""
        if not self._done <= position <= self._received:
            raise ValueError(f"done {position} must lie between {self._done} and {self._received}")
        self._done = position

"""The checkpoint row: read, made, and moved by compare-and-swap in the same transaction as the effects.

https://www.postgresql.org/docs/current/wal-async-commit.html for why ``synchronous_commit`` is set: a commit that a
crash can undo, after the server was told to forget the WAL, would lose the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from django.db import connections, transaction
from django.utils import timezone

from django_walsignals.delivery.dispatch import refuse_broken_transaction
from django_walsignals.delivery.position import Position
from django_walsignals.exceptions import CheckpointMoved
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.signals import wal_gap

#: SET LOCAL, since a pooler may hand the session to somebody else afterwards.
_DURABLE: Final = "SET LOCAL synchronous_commit = on"


class CheckpointKeeper(Protocol):
    """Where a stream's position is kept; the consumer asks for nothing more."""

    def move(self, old: Position, new: Position) -> None:
        """Move the position, within the caller's transaction and as its last act."""
        ...

    def save(self, old: Position, new: Position) -> None:
        """Move the position in a transaction of its own, where there was nothing to deliver."""
        ...


class CheckpointStore:
    """One stream's row of `Checkpoint`."""

    def __init__(self, stream: str, using: str) -> None:
        self.stream = stream
        self.using = using

    def load(self) -> Checkpoint | None:
        """Read the row; None before the stream's first start."""
        return Checkpoint.objects.using(self.using).filter(stream=self.stream).first()

    def create(self, position: Position, **facts: Any) -> Checkpoint:
        """Make the row, at the stream's first start."""
        with transaction.atomic(using=self.using, durable=True):
            self._set_durable()
            return Checkpoint.objects.using(self.using).create(stream=self.stream, **position._asdict(), **facts)

    def rebase(self, old: Position, new: Position, reason: str, *, to_lsn: LSN, **facts: Any) -> Position:
        """Go on over a gap that somebody accepted, and let the receivers of `wal_gap` know that it ends at ``to_lsn``."""
        with transaction.atomic(using=self.using, durable=True):
            wal_gap.send(sender=None, stream=self.stream, from_lsn=old.lsn, to_lsn=to_lsn, reason=reason)
            self.move(old, new)
            self._rows().update(**facts)
        return new

    def update_facts(self, **facts: Any) -> None:
        """Write what the position belongs to, and leave the position alone."""
        with transaction.atomic(using=self.using, durable=True):
            self._set_durable()
            self._rows().update(**facts)

    def move(self, old: Position, new: Position) -> None:
        """Move the position, within the caller's transaction and as its last act.

        Raises `CheckpointMoved` where the row is no longer at ``old``, and `DeliveryError` where the transaction can't
        commit any more because a receiver swallowed a database error or closed the connection.
        """
        refuse_broken_transaction(self.using)
        self._set_durable()
        moved = self._rows().filter(**old._asdict()).update(**new._asdict(), updated_at=timezone.now())
        if moved != 1:
            raise CheckpointMoved(
                f"The checkpoint of stream {self.stream!r} is no longer at {old}: another consumer has moved it. "
                "This one rolled back what it had in hand."
            )

    def save(self, old: Position, new: Position) -> None:
        """Move the position in a transaction of its own, where there was nothing to deliver."""
        with transaction.atomic(using=self.using, durable=True):
            self.move(old, new)

    def _rows(self) -> Any:
        return Checkpoint.objects.using(self.using).filter(stream=self.stream)

    def _set_durable(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_DURABLE)


class NoCheckpoint:
    """The keeper of a temporary slot's position, which ends with its connection."""

    def move(self, old: Position, new: Position) -> None:
        """Keep nothing."""

    def save(self, old: Position, new: Position) -> None:
        """Keep nothing."""


def position_of(checkpoint: Checkpoint) -> Position:
    """Take the position out of a row."""
    return Position(checkpoint.lsn, checkpoint.commit_lsn, checkpoint.ordinal)


def facts_of(system_identifier: str, timeline: int, slot: str, publication: Mapping[str, Any]) -> dict[str, Any]:
    """Name the columns that say what a position belongs to."""
    return {
        "system_identifier": system_identifier,
        "timeline": timeline,
        "slot": slot,
        "publication": dict(publication),
    }

"""The checkpoint row: read, made, and moved by compare-and-swap in the same transaction as the effects.

https://www.postgresql.org/docs/current/wal-async-commit.html for why ``synchronous_commit`` is set: a commit that a
crash can undo, after the server was told to forget the WAL, would lose the change.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from django.db import Error, connections, transaction
from django.db.models.functions import Now

from django_walsignals.delivery.dispatch import refuse_broken_transaction
from django_walsignals.delivery.position import Position
from django_walsignals.exceptions import CheckpointMoved
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.signals import wal_gap

logger = logging.getLogger(__name__)

_COLUMNS: Final = (
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
)

#: SET LOCAL, since a pooler may hand the session to somebody else afterwards.
_DURABLE: Final = "SET LOCAL synchronous_commit = on"


class CheckpointKeeper(Protocol):
    """Where a stream's position is kept; the consumer asks for nothing more."""

    def move(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
        """Move the position, within the caller's transaction and as its last act."""
        ...

    def save(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
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
        """Write what the position belongs to, and leave the position alone; in the caller's transaction, if there is one."""
        with transaction.atomic(using=self.using):
            self._set_durable()
            self._rows().update(**facts)

    def note_consumer(self) -> None:
        """Write who consumes; that it can't be written now is no reason not to."""
        try:
            self._rows().update(**consumer_of(self.using))
        except Error as exc:
            logger.warning("The consumer can't be named beside its checkpoint: %s", " ".join(str(exc).split()))

    def move(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
        """Move the position, within the caller's transaction and as its last act.

        ``committed_at`` is when the last of what is done was committed, where that is known. Raises `CheckpointMoved`
        where the row is no longer at ``old``, and `DeliveryError` where the transaction can't commit any more because
        a receiver swallowed a database error or closed the connection.
        """
        refuse_broken_transaction(self.using)
        self._set_durable()
        known = {} if committed_at is None else {"committed_at": committed_at}
        moved = self._rows().filter(**old._asdict()).update(**new._asdict(), **known, updated_at=Now())
        if moved != 1:
            raise CheckpointMoved(
                f"The checkpoint of stream {self.stream!r} is no longer at {old}: another consumer has moved it. "
                "This one rolled back what it had in hand."
            )

    def save(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
        """Move the position in a transaction of its own, where there was nothing to deliver."""
        with transaction.atomic(using=self.using, durable=True):
            self.move(old, new, committed_at)

    def _rows(self) -> Any:
        return Checkpoint.objects.using(self.using).filter(stream=self.stream)

    def _set_durable(self) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_DURABLE)


class NoCheckpoint:
    """The keeper of a temporary slot's position, which ends with its connection."""

    def move(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
        """Keep nothing."""

    def save(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
        """Keep nothing."""


def missing_migration(using: str) -> str:
    """Say what this version's migrations have not made yet, and what to run; empty where nothing is missing."""
    connection, table = connections[using], Checkpoint._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, [connection.ops.quote_name(table)])
        there = {column for (column,) in cursor.fetchall()}
    missing = [field.column for field in Checkpoint._meta.local_concrete_fields if field.column not in there]
    if not missing:
        return ""
    lack = f"Table {table} has no column {missing[0]} yet" if there else f"There is no table {table} yet"
    return f"{lack}. Run: manage.py migrate"


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


def consumer_of(using: str) -> dict[str, Any]:
    """Name the columns that say who consumes: this process, and its session on the checkpoint's database.

    Times are the database's, so that they compare with what its views say.
    """
    return {
        "consumer_pid": os.getpid(),
        "consumer_host": socket.gethostname()[:255],
        "backend_pid": connections[using].connection.info.backend_pid,
        "started_at": Now(),
    }

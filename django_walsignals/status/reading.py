"""Read a stream's status: a query on its database, and two or three on its checkpoint's.

The slot is read first and the checkpoint after it: the other way round a consumer at work would look like a gap.
Ages are taken by the server's clock, which also made the times they are taken from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import Error, connections, transaction

from django_walsignals.conf import DEFAULT_STREAM, StreamConfig, get_stream, stream_aliases
from django_walsignals.delivery.consumer import IDLE_SAVE_BYTES
from django_walsignals.models import Checkpoint, DeadLetter
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.activity import ServerActivity, SlotActivity, read_activity, read_batch
from django_walsignals.status.stream import State, StreamStatus

#: A consumer is called behind from so many seconds on: longer than a batch of quick receivers, and than a restart.
BEHIND_AFTER: Final = 10.0

#: A batch that was begun so many seconds after the last one ended found a consumer that had been waiting.
WAITED: Final = 5.0

#: A missing table or column.
_NOT_MIGRATED: Final = ("42P01", "42703")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the checkpoint's database knows: its row, the batch in hand (for how long, since when), and dead letters."""

    checkpoint: Checkpoint | None
    batch: tuple[float, datetime] | None
    dead_letters: int


def read_statuses() -> list[StreamStatus]:
    """Read the status of every configured stream."""
    return [read_status(alias) for alias in stream_aliases()]


def read_status(alias: str = DEFAULT_STREAM) -> StreamStatus:
    """Read a stream's status; what can't be reached or is not set up is a state.

    Raises `ConfigurationError` for a stream that is not configured, or wrongly.
    """
    config = get_stream(alias)
    if problem := _other_engine(config):
        return _without_answer(config, State.UNREACHABLE, problem)
    try:
        with _asking(config.database) as cursor:
            server = read_activity(cursor, config.slot)
        with _asking(config.checkpoint_database) as cursor:
            kept = _read_kept(cursor, config, is_active=server.slot is not None and server.slot.active_pid is not None)
    except Error as exc:
        return _failed(config, exc)
    return _status(config, server, kept)


def _other_engine(config: StreamConfig) -> str:
    for alias in (config.database, config.checkpoint_database):
        vendor = connections[alias].vendor
        if vendor != "postgresql":
            return f"Database {alias!r} is {vendor}: only PostgreSQL has a WAL to read."
    return ""


@contextmanager
def _asking(alias: str) -> Iterator[Any]:
    """Ask a database, without harm to a transaction that somebody has open; a dead connection is let go of."""
    connection = connections[alias]
    try:
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            yield cursor
    except Error:
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        raise


def _read_kept(cursor: Any, config: StreamConfig, *, is_active: bool) -> _Kept:
    using = config.checkpoint_database
    checkpoint = Checkpoint.objects.using(using).filter(stream=config.alias).first()
    letters = DeadLetter.objects.using(using).filter(stream=config.alias).count()
    batch = None
    if is_active and checkpoint and checkpoint.backend_pid and checkpoint.started_at:
        batch = read_batch(cursor, checkpoint.backend_pid, checkpoint.started_at)
    return _Kept(checkpoint, batch, letters)


def _failed(config: StreamConfig, exc: Error) -> StreamStatus:
    text = " ".join(str(exc).partition("\n")[0].split())
    state = State.UNREACHABLE
    if getattr(exc.__cause__, "sqlstate", None) in _NOT_MIGRATED:
        state, text = State.NOT_SET_UP, f"{text.capitalize()}. Run: manage.py migrate"
    return _without_answer(config, state, text)


def _without_answer(config: StreamConfig, state: State, problem: str) -> StreamStatus:
    return StreamStatus(stream=config.alias, state=state, problem=problem, database=config.database, slot=config.slot)


def _status(config: StreamConfig, server: ServerActivity, kept: _Kept) -> StreamStatus:
    slot, checkpoint = server.slot, kept.checkpoint
    lag_bytes = _lag_bytes(server, checkpoint)
    lag_seconds = _lag_seconds(server, kept, lag_bytes)
    state = _state(server, checkpoint, lag_seconds)
    return StreamStatus(
        stream=config.alias,
        state=state,
        problem=_problem(config, state, slot, checkpoint),
        database=config.database,
        slot=config.slot,
        active=_is_active(slot),
        batch_seconds=kept.batch[0] if kept.batch else None,
        flushed=server.flushed,
        lag_bytes=lag_bytes,
        lag_seconds=lag_seconds,
        dead_letters=kept.dead_letters,
        read_at=server.now,
        **_of_slot(server),
        **_of_checkpoint(checkpoint),
    )


def _of_slot(server: ServerActivity) -> dict[str, Any]:
    slot = server.slot
    if slot is None:
        return {}
    return {
        "heartbeat_at": slot.heartbeat_at,
        "retained_bytes": None if slot.restart is None else max(0, server.flushed - slot.restart),
        "safe_wal_bytes": slot.safe_wal_size,
        "wal_status": slot.wal_status,
        "inactive_since": slot.inactive_since,
    }


def _of_checkpoint(checkpoint: Checkpoint | None) -> dict[str, Any]:
    if checkpoint is None:
        return {}
    names = ("consumer_pid", "consumer_host", "started_at", "committed_at", "last_error", "last_error_at")
    return {"checkpoint": checkpoint.lsn, **{name: getattr(checkpoint, name) for name in names}}


def _is_active(slot: SlotActivity | None) -> bool:
    return slot is not None and slot.active_pid is not None


def _lag_bytes(server: ServerActivity, checkpoint: Checkpoint | None) -> int | None:
    """Say how much log there is behind what is done; before the first start that is where the slot stands."""
    done: LSN | None = checkpoint.lsn if checkpoint else server.slot.confirmed_flush if server.slot else None
    return None if done is None else max(0, server.flushed - done)


def _lag_seconds(server: ServerActivity, kept: _Kept, lag_bytes: int | None) -> float | None:
    """Say how old the oldest change that is not done can be.

    A consumer at work that has next to nothing before it keeps up: an idle position is written in steps only. It does
    not where it holds a batch, which shows as a transaction, or, before a receiver's first query, after a heartbeat.
    """
    if not lag_bytes:
        return None if lag_bytes is None else 0.0
    slot, oldest = server.slot, _oldest(server, kept.checkpoint)
    if slot is None or slot.active_pid is None or kept.checkpoint is None:
        return oldest
    is_close = lag_bytes < IDLE_SAVE_BYTES
    if kept.batch is None:
        return 0.0 if is_close and not slot.has_batch else oldest
    seconds, since = kept.batch
    had_waited = (since - kept.checkpoint.updated_at).total_seconds() >= WAITED
    return seconds if is_close or had_waited or oldest is None else max(seconds, oldest)


def _oldest(server: ServerActivity, checkpoint: Checkpoint | None) -> float | None:
    """Say how long ago the last of what is done was committed: what is not done came later."""
    since = server.slot.inactive_since if server.slot else None
    if checkpoint is not None:
        since = checkpoint.committed_at or checkpoint.updated_at
    return None if since is None else max(0.0, (server.now - since).total_seconds())


def _state(server: ServerActivity, checkpoint: Checkpoint | None, lag_seconds: float | None) -> State:
    slot = server.slot
    if slot is None:
        return State.NOT_SET_UP if checkpoint is None else State.SLOT_MISSING
    if slot.lost:
        return State.SLOT_LOST
    if slot.active_pid is not None:
        return State.BEHIND if (lag_seconds or 0) >= BEHIND_AFTER else State.STREAMING
    if checkpoint is None:
        return State.STOPPED
    if checkpoint.lsn > server.flushed or (slot.confirmed_flush or 0) > checkpoint.lsn:
        return State.GAP
    return State.FAILING if _ended_with_error(checkpoint) else State.STOPPED


def _ended_with_error(checkpoint: Checkpoint) -> bool:
    failed, started = checkpoint.last_error_at, checkpoint.started_at
    return failed is not None and (started is None or failed >= started)


def _problem(config: StreamConfig, state: State, slot: SlotActivity | None, checkpoint: Checkpoint | None) -> str:
    """Say what is wrong, and what to run."""
    start, accept = f"manage.py walconsume {config.alias}", f"manage.py walconsume {config.alias} --accept-gap"
    match state:
        case State.STOPPED | State.FAILING:
            return f"Nobody consumes it, and its slot keeps all log. Run: {start}"
        case State.SLOT_MISSING:
            return f"Its replication slot {config.slot!r} is gone. To go on without what is missing: {accept}"
        case State.SLOT_LOST:
            return f"The server invalidated its slot ({slot and slot.lost}). To go on without what is missing: {accept}"
        case State.GAP:
            return f"Its slot and its checkpoint don't go together any more. What is missing, a start says: {start}"
        case State.NOT_SET_UP:
            return f"It has not been started yet. Run: {start}"
    if checkpoint is not None and slot is not None and slot.wal_status == "unreserved":
        return "Its slot is about to be lost: more log is kept for it than max_slot_wal_keep_size allows."
    return ""

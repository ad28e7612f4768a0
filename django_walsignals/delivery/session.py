"""Open a session: check that the position is good, start to stream from it, and check that nobody moved it meanwhile.

The order matters: the slot is read first and the checkpoint after it (the other way round a rival at work looks like
a gap), and the checkpoint once more when the server has given us the slot, since whoever had it before may have
committed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.checkpoint import (
    CheckpointKeeper,
    CheckpointStore,
    NoCheckpoint,
    facts_of,
    position_of,
)
from django_walsignals.delivery.gaps import Gap, GapKind
from django_walsignals.delivery.position import Position
from django_walsignals.delivery.preparing import SetUp, connect, prepare, read_server_side, refuse_unusable
from django_walsignals.exceptions import CheckpointMoved, ConfigurationError, ConnectionLost
from django_walsignals.models import Checkpoint
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Slot, read_slot
from django_walsignals.replication.connection import ReplicationConnection

logger = logging.getLogger(__name__)

#: How often a start may find that a rival has moved the checkpoint since; whoever lost the slot moves it once more at
#: most.
_STARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Session:
    """A stream that has started at ``position``; ``server_timeout`` is the server's patience in seconds."""

    connection: ReplicationConnection
    keeper: CheckpointKeeper
    position: Position
    server_timeout: float | None


@contextmanager
def durable_session(
    config: StreamConfig, set_up: SetUp, *, is_first: bool = True, accept_gap: bool = False
) -> Iterator[Session]:
    """Stream from the checkpoint, or from the slot's own position at the first start.

    What is missing is set up on a process's first session only, by whoever holds the stream. Raises `SlotInUse` where
    that is another consumer, and `GapError` for a gap, unless it is accepted: the receivers of `wal_gap` then hear of
    it.
    """
    connection, store, position, timeout = _start(config, set_up, is_first=is_first, accept_gap=accept_gap)
    with _ending(connection):
        yield Session(connection, store, position, timeout)


#: Keeps a publication while its block runs.
Publisher = Callable[[], AbstractContextManager[object]]


@contextmanager
def temporary_session(config: StreamConfig, publisher: Publisher | None = None) -> Iterator[Session]:
    """Stream what is committed from now on, on a slot that ends with the session.

    The publication goes after it, and is locked before it is made: one whose lock can be had has lost its owner.
    """
    connection = connect(config)
    with closing(connection), _published(config, connection, publisher), _ending(connection):
        timeout = connection.wal_sender_timeout()
        slot = f"{config.slot[:40]}_tmp_{secrets.token_hex(6)}"
        position = Position(connection.create_temporary_slot(slot))
        connection.start(commands.start_replication(slot, position.lsn, [config.publication]), slot)
        yield Session(connection, NoCheckpoint(), position, timeout)


@contextmanager
def _published(config: StreamConfig, connection: ReplicationConnection, publisher: Publisher | None) -> Iterator[None]:
    if publisher is None:
        yield
        return
    connection.take(config.publication)
    with publisher():
        yield


def slot_is_free(config: StreamConfig) -> bool:
    """Say whether nobody has the slot; a slot that is gone is free too, for a start to find out."""
    with connections[config.database].cursor() as cursor:
        slot = read_slot(cursor, config.slot)
    return slot is None or slot.active_pid is None


def _start(
    config: StreamConfig, set_up: SetUp, *, is_first: bool, accept_gap: bool
) -> tuple[ReplicationConnection, CheckpointStore, Position, float | None]:
    store = CheckpointStore(config.alias, config.checkpoint_database)
    for _ in range(_STARTS):
        connection = connect(config)
        try:
            checkpoint, gap = prepare(config, store, connection, set_up, is_first=is_first, accept_gap=accept_gap)
            position, facts = _position(config, store, connection, checkpoint, gap)
            timeout = connection.wal_sender_timeout()
            connection.start(commands.start_replication(config.slot, position.lsn, [config.publication]), config.slot)
            checkpoint = store.load()
            if checkpoint is not None and position_of(checkpoint) == position:
                if any(getattr(checkpoint, name) != value for name, value in facts.items()):
                    store.update_facts(**facts)
                store.note_consumer()
                return connection, store, position, timeout
        except BaseException:
            connection.close()
            raise
        connection.close()
        logger.info("Another consumer moved the checkpoint during our start: starting again")
    raise CheckpointMoved(f"The checkpoint of stream {config.alias!r} keeps moving: does another consumer write it?")


def _position(
    config: StreamConfig,
    store: CheckpointStore,
    connection: ReplicationConnection,
    checkpoint: Checkpoint | None,
    gap: Gap | None,
) -> tuple[Position, dict[str, Any]]:
    """Say where to start, and what that position belongs to."""
    system = connection.identify_system()
    slot, publication = read_server_side(config)
    slot = refuse_unusable(config, slot, system.database)
    if publication is None:
        raise ConfigurationError(f"There is no publication {config.publication!r}. Run walconsume without --no-setup.")
    facts = facts_of(system.system_identifier, system.timeline, config.slot, publication.fingerprint())
    if checkpoint is None:
        return _first_position(store, slot, facts), facts
    position = position_of(checkpoint)
    if gap is None:
        return position, facts
    logger.warning("Going on over a gap: %s", gap.reason)
    # What of the log can still be read, is: only where the slot does not reach back to the position is it given up.
    moved = position if gap.kind is GapKind.TABLE else _position_of_slot(slot)
    return store.rebase(position, moved, gap.reason, to_lsn=system.flushed, **facts), facts


def _first_position(store: CheckpointStore, slot: Slot, facts: dict[str, object]) -> Position:
    checkpoint = store.create(_position_of_slot(slot), **facts)
    logger.info("Stream %s starts at %s, where its slot stands", store.stream, checkpoint.lsn)
    return position_of(checkpoint)


def _position_of_slot(slot: Slot) -> Position:
    if slot.confirmed_flush is None:
        raise ConnectionLost(f"Replication slot {slot.name!r} is still being made: try again in a moment.")
    return Position(slot.confirmed_flush)


@contextmanager
def _ending(connection: ReplicationConnection) -> Iterator[None]:
    """End the stream with the last status sent when all went well, and at once otherwise."""
    try:
        yield
    except BaseException:
        connection.close()
        raise
    connection.finish()

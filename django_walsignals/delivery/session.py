"""Open a session: check that the position is good, start to stream from it, and check that nobody moved it meanwhile.

The order matters: the slot is read first and the checkpoint after it (the other way round a rival at work looks like
a gap), and the checkpoint once more when the server has given us the slot, since whoever had it before may have
committed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from django.db import connections

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.checkpoint import CheckpointKeeper, CheckpointStore, NoCheckpoint, facts_of, position_of
from django_walsignals.delivery.gaps import Gap, GapKind, Situation, find_gap, published_tables
from django_walsignals.delivery.position import Position
from django_walsignals.exceptions import CheckpointMoved, ConfigurationError, ConnectionLost, GapError, SlotInUse
from django_walsignals.models import Checkpoint
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import (
    Publication,
    Slot,
    read_publication,
    read_slot,
)
from django_walsignals.replication.connection import ReplicationConnection
from django_walsignals.replication.parameters import replication_parameters

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


class SetUp(Protocol):
    """What a stream needs on the server, and may have created there; ``provisioning`` implements it."""

    def tables(self) -> Collection[str]:
        """Name the tables that the stream is to bring, as ``schema.name``."""
        ...

    def apply(self, known_tables: Collection[str]) -> None:
        """Create or change what is missing, slot aside; of the tables in the publication only those known may go."""
        ...

    def ensure_slot(self, connection: ReplicationConnection) -> None:
        """Create the slot where there is none that can be read."""
        ...

    def move_slot(self) -> None:
        """Move the slot to the end of the log, past what its publication can't bring."""
        ...


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


@contextmanager
def temporary_session(config: StreamConfig) -> Iterator[Session]:
    """Stream what is committed from now on, on a slot that ends with the session."""
    connection = _connect(config)
    with _ending(connection):
        timeout = connection.wal_sender_timeout()
        slot = f"{config.slot[:40]}_tmp_{secrets.token_hex(6)}"
        position = Position(connection.create_temporary_slot(slot))
        connection.start(commands.start_replication(slot, position.lsn, [config.publication]), slot)
        yield Session(connection, NoCheckpoint(), position, timeout)


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
        connection = _connect(config)
        try:
            position, facts = _prepare(config, store, connection, set_up, is_first=is_first, accept_gap=accept_gap)
            timeout = connection.wal_sender_timeout()
            connection.start(commands.start_replication(config.slot, position.lsn, [config.publication]), config.slot)
            checkpoint = store.load()
            if checkpoint is not None and position_of(checkpoint) == position:
                if any(getattr(checkpoint, name) != value for name, value in facts.items()):
                    store.update_facts(**facts)
                return connection, store, position, timeout
        except BaseException:
            connection.close()
            raise
        connection.close()
        logger.info("Another consumer moved the checkpoint during our start: starting again")
    raise CheckpointMoved(f"The checkpoint of stream {config.alias!r} keeps moving: does another consumer write it?")


def _prepare(
    config: StreamConfig,
    store: CheckpointStore,
    connection: ReplicationConnection,
    set_up: SetUp,
    *,
    is_first: bool,
    accept_gap: bool,
) -> tuple[Position, dict[str, Any]]:
    """Take the stream, look for a gap before anything is changed, set up what is missing, and say where to start."""
    is_ours = connection.take(config.slot)
    slot, publication = _read(config)
    holder = None if slot is None else slot.active_pid
    if holder is not None or not is_ours:
        who = "that is starting" if holder is None else f"(pid {holder})"
        raise SlotInUse(f"Replication slot {config.slot!r} is in use by another consumer {who}.")
    checkpoint = store.load()
    gap = None if checkpoint is None else _find_gap(connection, checkpoint, slot, publication, set_up.tables())
    if gap is not None and not accept_gap:
        raise gap.error()
    if is_first:
        set_up.apply(() if checkpoint is None else published_tables(checkpoint))
        if checkpoint is None or gap is not None:
            set_up.ensure_slot(connection)
        if slot is not None and (publication is None or (gap is not None and gap.kind is GapKind.PUBLICATION)):
            set_up.move_slot()
    return _position(config, store, connection, checkpoint, gap)


def _position(
    config: StreamConfig,
    store: CheckpointStore,
    connection: ReplicationConnection,
    checkpoint: Checkpoint | None,
    gap: Gap | None,
) -> tuple[Position, dict[str, Any]]:
    """Say where to start, and what that position belongs to."""
    system = connection.identify_system()
    slot, publication = _read(config)
    slot = _refuse_unusable(config, slot, system.database)
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


def _find_gap(
    connection: ReplicationConnection,
    checkpoint: Checkpoint,
    slot: Slot | None,
    publication: Publication | None,
    wanted_tables: Collection[str],
) -> Gap | None:
    system = connection.identify_system()
    history = connection.timeline_history(system.timeline) if system.timeline > 1 else {}
    return find_gap(checkpoint, Situation(system, slot, publication, wanted_tables, history))


def _refuse_unusable(config: StreamConfig, slot: Slot | None, database: str) -> Slot:
    if slot is None:
        raise ConfigurationError(
            f"There is no replication slot {config.slot!r}. Run walconsume without --no-setup, or have it created: "
            f"SELECT pg_create_logical_replication_slot('{config.slot}', 'pgoutput');"
        )
    if slot.lost:
        raise GapError(
            f"Replication slot {slot.name!r} can't be read any more: the server invalidated it ({slot.lost})."
        )
    if slot.plugin != "pgoutput":
        raise ConfigurationError(
            f"Replication slot {slot.name!r} belongs to the plugin {slot.plugin or 'of physical replication'}, "
            "not to pgoutput: set SLOT to another name."
        )
    if slot.database != database:
        raise ConfigurationError(
            f"Replication slot {slot.name!r} belongs to database {slot.database!r}, not to {database!r} (slots are "
            "shared by all databases of a server): set SLOT to another name."
        )
    return slot


def _read(config: StreamConfig) -> tuple[Slot | None, Publication | None]:
    with connections[config.database].cursor() as cursor:
        return read_slot(cursor, config.slot), read_publication(cursor, config.publication)


def _connect(config: StreamConfig) -> ReplicationConnection:
    """Connect, unless the server would make every COMMIT wait for us, the checkpoint's own among them."""
    database = connections[config.database]
    parameters = replication_parameters(database.get_connection_params(), config.replication_options)
    connection = ReplicationConnection.open(parameters, timezone=database.timezone_name)
    if connection.is_synchronous_standby():
        connection.close()
        raise ConfigurationError(
            "synchronous_standby_names names this consumer, so that every COMMIT would wait for it, and its own for "
            "ever. Name the standbys there one by one, or name this consumer otherwise: "
            "REPLICATION_OPTIONS = {'application_name': …}."
        )
    return connection


@contextmanager
def _ending(connection: ReplicationConnection) -> Iterator[None]:
    """End the stream with the last status sent when all went well, and at once otherwise."""
    try:
        yield
    except BaseException:
        connection.close()
        raise
    connection.finish()

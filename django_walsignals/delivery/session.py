"""Open a session: check that the position is good, start to stream from it, and check that nobody moved it meanwhile.

The order matters: the slot is read first and the checkpoint after it (the other way round a rival at work looks like
a gap), and the checkpoint once more when the server has given us the slot, since whoever had it before may have
committed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from django.db import connections

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.checkpoint import CheckpointKeeper, CheckpointStore, NoCheckpoint, facts_of, position_of
from django_walsignals.delivery.gaps import Situation, refuse_gap
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


@contextmanager
def durable_session(
    config: StreamConfig, wanted_tables: Collection[str], *, accept_gap: bool = False
) -> Iterator[Session]:
    """Stream from the checkpoint, or from the slot's own position at the first start.

    Raises `SlotInUse` where another consumer has the slot, and `GapError` for a gap, unless it is accepted: then from
    where the slot stands, and the receivers of `wal_gap` hear of it.
    """
    store = CheckpointStore(config.alias, config.checkpoint_database)
    connection, position, timeout = _start(config, store, wanted_tables, accept_gap=accept_gap)
    with _ending(connection):
        yield Session(connection, store, position, timeout)


@contextmanager
def temporary_session(config: StreamConfig) -> Iterator[Session]:
    """Stream what is committed from now on, on a slot that ends with the session."""
    connection = _connect(config)
    with _ending(connection):
        timeout = connection.wal_sender_timeout()
        slot = f"{config.slot[:40]}_tmp_{os.getpid()}"
        position = Position(connection.create_temporary_slot(slot))
        connection.start(commands.start_replication(slot, position.lsn, [config.publication]), slot)
        yield Session(connection, NoCheckpoint(), position, timeout)


def examine(config: StreamConfig, wanted_tables: Collection[str]) -> None:
    """Raise `GapError` where the stream's checkpoint does not fit what is there, before anything is set up."""
    connection = _connect(config)
    try:
        slot, publication = _read(config)
        checkpoint = CheckpointStore(config.alias, config.checkpoint_database).load()
        if checkpoint is None:
            return
        if gap := _find_gap(connection, checkpoint, slot, publication, wanted_tables):
            raise gap
    finally:
        connection.close()


def slot_is_free(config: StreamConfig) -> bool:
    """Say whether nobody has the slot; a slot that is gone is free too, for a start to find out."""
    with connections[config.database].cursor() as cursor:
        slot = read_slot(cursor, config.slot)
    return slot is None or slot.active_pid is None


def _start(
    config: StreamConfig, store: CheckpointStore, wanted_tables: Collection[str], *, accept_gap: bool
) -> tuple[ReplicationConnection, Position, float | None]:
    for _ in range(_STARTS):
        connection = _connect(config)
        try:
            position = _checked_position(config, store, connection, wanted_tables, accept_gap=accept_gap)
            timeout = connection.wal_sender_timeout()
            connection.start(commands.start_replication(config.slot, position.lsn, [config.publication]), config.slot)
            checkpoint = store.load()
            if checkpoint is not None and position_of(checkpoint) == position:
                return connection, position, timeout
        except BaseException:
            connection.close()
            raise
        connection.close()
        logger.info("Another consumer moved the checkpoint during our start: starting again")
    raise CheckpointMoved(f"The checkpoint of stream {config.alias!r} keeps moving: does another consumer write it?")


def _checked_position(
    config: StreamConfig,
    store: CheckpointStore,
    connection: ReplicationConnection,
    wanted_tables: Collection[str],
    *,
    accept_gap: bool,
) -> Position:
    system = connection.identify_system()
    slot, publication = _read(config)
    checkpoint = store.load()
    gap = None if checkpoint is None else _find_gap(connection, checkpoint, slot, publication, wanted_tables)
    if gap is not None and not accept_gap:
        raise gap
    slot = _refuse_unusable(config, slot)
    fingerprint = {} if publication is None else publication.fingerprint()
    facts = facts_of(system.system_identifier, system.timeline, config.slot, fingerprint)
    if checkpoint is None:
        return _first_position(store, slot, facts)
    if gap is not None:
        return store.rebase(position_of(checkpoint), _position_of_slot(slot), str(gap), **facts)
    if any(getattr(checkpoint, name) != value for name, value in facts.items()):
        store.update_facts(**facts)
    return position_of(checkpoint)


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
) -> GapError | None:
    system = connection.identify_system()
    history = connection.timeline_history(system.timeline) if system.timeline > 1 else {}
    try:
        refuse_gap(checkpoint, Situation(system, slot, publication, wanted_tables, history))
    except GapError as gap:
        return gap
    return None


def _refuse_unusable(config: StreamConfig, slot: Slot | None) -> Slot:
    if slot is None:
        raise ConfigurationError(
            f"There is no replication slot {config.slot!r}. Run walconsume without --no-setup, or have it created: "
            f"SELECT pg_create_logical_replication_slot('{config.slot}', 'pgoutput');"
        )
    database = connections[config.database].settings_dict["NAME"]
    if slot.lost:
        raise GapError(
            f"Replication slot {slot.name!r} can't be read any more: the server invalidated it ({slot.lost})."
        )
    if slot.active_pid is not None:
        raise SlotInUse(f"Replication slot {slot.name!r} is in use by another consumer (pid {slot.active_pid}).")
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
    ordinary = connections[config.database].get_connection_params()
    connection = ReplicationConnection.open(replication_parameters(ordinary, config.replication_options))
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

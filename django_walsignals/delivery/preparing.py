"""Take a stream, look for a gap before anything is changed, and set up what is missing: before a session, or instead.

What we change of a published table looks afterwards like a table that somebody took out and put back; so the
checkpoint's note of the publication follows, in the same transaction where both are in one database, and only where it
was true before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing
from typing import Final, Protocol

from django.db import connections

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.checkpoint import CheckpointStore
from django_walsignals.delivery.gaps import Gap, GapKind, Situation, find_gap, published_tables
from django_walsignals.exceptions import ConfigurationError, GapError, SlotInUse
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.catalogue import Publication, Slot, read_publication, read_slot
from django_walsignals.replication.connection import ReplicationConnection, SystemIdentity
from django_walsignals.replication.parameters import replication_parameters

#: What IDENTIFY_SYSTEM says, timeline aside, for a role that may not speak to a walsender.
_SYSTEM: Final = """
    SELECT (pg_control_system()).system_identifier::text, pg_current_wal_flush_lsn()::text, current_database()
"""


class SetUp(Protocol):
    """What a stream needs on the server, and may have created there; ``provisioning`` implements it."""

    def tables(self) -> Collection[str]:
        """Name the tables that the stream is to bring, as ``schema.name``."""
        ...

    def apply(self, known_tables: Collection[str], follow: Callable[[], None] = ...) -> None:
        """Create or change what is missing, slot aside; of the tables in the publication only those known may go.

        ``follow`` is called in each transaction that changes something.
        """
        ...

    def ensure_slot(self, connection: ReplicationConnection) -> None:
        """Create the slot where there is none that can be read."""
        ...

    def move_slot(self) -> None:
        """Move the slot to the end of the log, past what its publication can't bring."""
        ...


def set_up_stream(config: StreamConfig, set_up: SetUp) -> None:
    """Create or change what a stream needs, slot included, and consume nothing.

    Raises `SlotInUse` while a consumer has the stream, and `GapError` where what is missing was there before.
    """
    connection = connect(config)
    with closing(connection):
        slot, _ = read_server_side(config)
        if slot is not None and not slot.lost:
            refuse_unusable(config, slot, connection.identify_system().database)
        store = CheckpointStore(config.alias, config.checkpoint_database)
        prepare(config, store, connection, set_up, is_first=True, accept_gap=False)


def look_for_gap(
    config: StreamConfig,
    checkpoint: Checkpoint,
    slot: Slot | None,
    publication: Publication | None,
    wanted_tables: Collection[str],
) -> Gap | None:
    """Look for a gap over an ordinary connection, and so without the server's timelines.

    Slot and publication must have been read before the checkpoint, which may move at any time.
    """
    with connections[config.database].cursor() as cursor:
        cursor.execute(_SYSTEM)
        identifier, flushed, database = cursor.fetchone()
    system = SystemIdentity(identifier, checkpoint.timeline, LSN.parse(flushed), database)
    return find_gap(checkpoint, Situation(system, slot, publication, wanted_tables))


def prepare(
    config: StreamConfig,
    store: CheckpointStore,
    connection: ReplicationConnection,
    set_up: SetUp,
    *,
    is_first: bool,
    accept_gap: bool,
) -> tuple[Checkpoint | None, Gap | None]:
    """Take the stream, look for a gap before anything is changed, and set up what is missing.

    Returns the checkpoint and the gap that was accepted. Raises `SlotInUse` and `GapError`.
    """
    is_ours = connection.take(config.slot)
    slot, publication = read_server_side(config)
    holder = None if slot is None else slot.active_pid
    if holder is not None or not is_ours:
        who = "that is starting" if holder is None else f"(pid {holder})"
        raise SlotInUse(f"Replication slot {config.slot!r} is in use by another consumer {who}.")
    checkpoint = store.load()
    gap = None if checkpoint is None else _find_gap(connection, checkpoint, slot, publication, set_up.tables())
    if gap is not None and not accept_gap:
        raise gap.error()
    if is_first:
        known = () if checkpoint is None else published_tables(checkpoint)
        if checkpoint is None or gap is not None:
            set_up.apply(known)
        else:
            _apply_and_follow(config, store, checkpoint, set_up, known)
        if checkpoint is None or gap is not None:
            set_up.ensure_slot(connection)
        if slot is not None and (publication is None or (gap is not None and gap.kind is GapKind.PUBLICATION)):
            set_up.move_slot()
    return checkpoint, gap


def _apply_and_follow(
    config: StreamConfig, store: CheckpointStore, checkpoint: Checkpoint, set_up: SetUp, known_tables: Collection[str]
) -> None:
    """Change what is to be changed, and note what the publication holds then: it was we who changed it."""

    def follow() -> None:
        _, publication = read_server_side(config)
        if publication is not None and publication.fingerprint() != checkpoint.publication:
            store.update_facts(publication=publication.fingerprint())

    if config.checkpoint_database == config.database:
        set_up.apply(known_tables, follow)
    else:  # whoever is killed in between finds a gap where there is none
        set_up.apply(known_tables)
    follow()


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


def refuse_unusable(config: StreamConfig, slot: Slot | None, database: str) -> Slot:
    """Return the slot, if it is there and it can be read."""
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


def read_server_side(config: StreamConfig) -> tuple[Slot | None, Publication | None]:
    """Read the stream's slot and publication, as far as there are any."""
    with connections[config.database].cursor() as cursor:
        return read_slot(cursor, config.slot), read_publication(cursor, config.publication)


def connect(config: StreamConfig) -> ReplicationConnection:
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

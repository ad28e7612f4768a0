"""Take away what a stream has on the server: its slot first, which refuses while somebody streams, then its publication.

Replica identities stay, since others may rely on them by now; how to undo them is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.db import connections

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError, SlotInUse
from django_walsignals.provisioning.ddl import Report, named_privileges, run_ddl
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Publication, Slot, read_publication, read_slot
from django_walsignals.replication.commands import TableRef

_FULL: Final = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relreplident = 'f' AND (
        c.oid = ANY (%(tables)s::oid[])
        OR c.oid IN (SELECT tree.relid FROM unnest(%(tables)s::oid[]) AS t(oid), pg_partition_tree(t.oid) tree))
    ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Removal:
    """What there is to take away, and the tables that keep REPLICA IDENTITY FULL."""

    slot: Slot | None
    publication: Publication | None
    full: Sequence[TableRef]

    def __bool__(self) -> bool:
        return self.slot is not None or self.publication is not None


def read_removal(config: StreamConfig) -> Removal:
    """Read what there is; raise `SlotInUse` where the slot is, and `ConfigurationError` where it is somebody else's."""
    with connections[config.database].cursor() as cursor:
        slot = read_slot(cursor, config.slot)
        publication = read_publication(cursor, config.publication)
        cursor.execute(_FULL, {"tables": [] if publication is None else list(publication.tables)})
        full = [TableRef(*row) for row in cursor.fetchall()]
        cursor.execute("SELECT current_database()")
        (database,) = cursor.fetchone()
    if slot is not None:
        _refuse_slot(slot, database)
    return Removal(slot, publication, full)


def remove(config: StreamConfig, removal: Removal, report: Report) -> None:
    """Drop the slot, then the publication; raise `SlotInUse` where somebody has the slot meanwhile."""
    connection = connections[config.database]
    if removal.slot is not None:
        statement = commands.drop_slot(config.slot)
        with named_privileges(statement, connection), connection.cursor() as cursor:
            cursor.execute(statement)
        report(f"dropped replication slot {config.slot}")
    if removal.publication is not None:
        run_ddl(config.database, commands.drop_publication(config.publication), report)
        report(f"dropped publication {config.publication}")


def _refuse_slot(slot: Slot, database: str) -> None:
    if slot.plugin != "pgoutput" or slot.database != database:
        owner = f"plugin {slot.plugin}, database {slot.database}" if slot.plugin else "physical replication"
        raise ConfigurationError(f"Replication slot {slot.name!r} is none of ours ({owner}): it stays. Set SLOT.")
    if slot.active_pid is not None:
        raise SlotInUse(
            f"Replication slot {slot.name!r} is in use by a consumer (pid {slot.active_pid}): stop it first. Nothing "
            "was dropped."
        )

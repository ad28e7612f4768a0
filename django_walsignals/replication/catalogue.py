"""What the server has: its version and settings, slots and publications, as typed facts.

Each reader takes a cursor of an ordinary connection; the queries are fixed text with parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.commands import TableRef


class Cursor(Protocol):
    """As much of a DB-API cursor as is needed here."""

    def execute(self, sql: Any, params: Any = None) -> Any:
        """Run a statement."""
        ...

    def fetchone(self) -> Any:
        """Take a row."""
        ...

    def fetchall(self) -> Any:
        """Take all rows."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """What matters here of a server; ``version`` is as 180004."""

    version: int
    wal_level: str
    in_recovery: bool


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of ``pg_replication_slots``; ``lost`` says why its WAL is gone, and is empty where it is not."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed_flush: LSN | None
    lost: str


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of a publication: its columns there (None: all of them) and the condition on its rows (empty: none).

    ``membership`` is the OID of its entry there, and is another one when the table was taken out and put back, as it
    must be to change its columns or its condition.
    """

    oid: int
    table: TableRef
    membership: int
    columns: tuple[str, ...] | None = None
    row_filter: str = ""

    def fingerprint(self) -> list[Any]:
        """Say in JSON what the publication holds of it."""
        return [str(self.table), self.membership, self.columns and list(self.columns), self.row_filter]


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication and its tables by OID."""

    oid: int
    all_tables: bool
    has_every_operation: bool
    via_root: bool
    generated_columns: bool
    has_schemas: bool
    tables: Mapping[int, PublishedTable]

    def fingerprint(self) -> dict[str, Any]:
        """Say in JSON which tables it holds, so that a later start can tell one that went and came back."""
        return {"oid": self.oid, "tables": {str(oid): table.fingerprint() for oid, table in self.tables.items()}}


_SERVER: Final = "SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery()"

_SLOT: Final = """
    SELECT slot_name, coalesce(plugin, ''), coalesce(database, ''), active_pid, confirmed_flush_lsn::text,
           CASE WHEN wal_status = 'lost' THEN coalesce(to_jsonb(slot) ->> 'invalidation_reason', 'wal_removed') ELSE
           '' END
    FROM pg_replication_slots AS slot WHERE slot_name = %s
"""

_PUBLICATION: Final = """
    SELECT oid::bigint, puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot,
    coalesce(to_jsonb(p) ->> 'pubgencols', 'n') <> 'n',
    EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid) FROM pg_publication p WHERE pubname = %s
"""

_PUBLISHED: Final = """
    SELECT c.oid::bigint, n.nspname, c.relname, r.oid::bigint,
           CASE WHEN r.prattrs IS NOT NULL THEN ARRAY(
               SELECT a.attname::text FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs) ORDER BY a.attnum) END,
           coalesce(pg_get_expr(r.prqual, r.prrelid), '')
    FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.prpubid = %s ORDER BY 1
"""


def read_server(cursor: Cursor) -> Server:
    """Read what the server is."""
    cursor.execute(_SERVER)
    return Server(*cursor.fetchone())


def read_slot(cursor: Cursor, name: str) -> Slot | None:
    """Read a replication slot; None if there is none of that name."""
    cursor.execute(_SLOT, [name])
    row = cursor.fetchone()
    if row is None:
        return None
    found, plugin, database, active_pid, flushed, lost = row
    return Slot(found, plugin, database, active_pid, LSN.parse(flushed) if flushed else None, lost)


def read_publication(cursor: Cursor, name: str) -> Publication | None:
    """Read a publication; None if there is none of that name."""
    cursor.execute(_PUBLICATION, [name])
    row = cursor.fetchone()
    if row is None:
        return None
    cursor.execute(_PUBLISHED, [row[0]])
    tables = {found[0]: _published_table(*found) for found in cursor.fetchall()}
    oid, all_tables, has_every_operation, via_root, generated_columns, has_schemas = row
    return Publication(oid, all_tables, has_every_operation, via_root, generated_columns, has_schemas, tables)


def _published_table(
    oid: int, schema: str, table: str, membership: int, columns: list[str] | None, row_filter: str
) -> PublishedTable:
    chosen = None if columns is None else tuple(columns)
    return PublishedTable(oid, TableRef(schema, table), membership, chosen, row_filter)


def read_flushed_lsn(cursor: Cursor) -> LSN:
    """Read up to where the server's WAL is on disk."""
    cursor.execute("SELECT pg_current_wal_flush_lsn()::text")
    return LSN.parse(cursor.fetchone()[0])

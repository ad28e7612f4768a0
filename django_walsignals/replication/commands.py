"""The replication commands and the statements about slots and publications, quoted, as psycopg composes them.

https://www.postgresql.org/docs/current/protocol-replication.html

A replication connection speaks the simple protocol only, so values are literals in the text: `psycopg.sql` quotes them.
Publication names sit inside a string literal as a list of identifiers, and so are quoted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from django_walsignals.protocol.lsn import LSN

IDENTIFY_SYSTEM: Final = SQL("IDENTIFY_SYSTEM")

#: In milliseconds.
WAL_SENDER_TIMEOUT: Final = SQL("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'")

#: Whose acknowledgement commits wait for, and what we are called.
SYNCHRONOUS_STANDBYS: Final = SQL(
    "SELECT current_setting('synchronous_standby_names') AS standbys, current_setting('application_name') AS own"
)


class TableRef(NamedTuple):
    """A table's schema and name, not quoted."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> Identifier:
        """The name, to be quoted in a statement."""
        return Identifier(self.schema, self.name)


class Member(NamedTuple):
    """A table as a publication holds it: all its columns or only these, all its rows or those that meet a condition.

    ``where`` is SQL, and nobody's input: Django's compiler wrote it, or the server.
    """

    table: TableRef
    columns: tuple[str, ...] | None = None
    where: str = ""

    @property
    def definition(self) -> Composed:
        """What stands for it in a publication's list of tables."""
        # ONLY: a table that inherits from another is somebody else's model, or nobody's. A partitioned table brings its
        # partitions all the same.
        parts: list[Composable] = [SQL("ONLY {}").format(self.table.identifier)]
        if self.columns is not None:
            parts.append(SQL("({})").format(SQL(", ").join(map(Identifier, self.columns))))
        if self.where:
            parts.append(SQL("WHERE ({})").format(SQL(self.where)))
        return SQL(" ").join(parts)


def pin_session(timezone: str) -> Composed:
    """Set what the text of values depends on, and time-outs.

    A role's settings, the connection's options and libpq's environment (PGDATESTYLE, PGTZ, PGCLIENTENCODING) say it
    differently, and each beats another; SET beats them all. ``timezone`` is the ORM's: a moment that is the year 10000 in
    UTC may be of 9999 there.
    """
    return SQL(
        "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; "
        "SET timezone = {timezone}; SET client_encoding = 'UTF8'; "
        # Making a slot waits for other transactions, however long they take; an idle stream is no idle session.
        "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0"
    ).format(timezone=Literal(timezone))


def start_replication(slot: str, position: LSN, publications: Sequence[str]) -> Composed:
    """Start to stream from ``position``: whole transactions whose commit is there or later."""
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in publications)
    # Not a Literal, which writes a backslash as E'\\\\': this grammar has no E, and takes a backslash as it is.
    literal = "'" + names.replace("'", "''") + "'"
    options = "proto_version '1', publication_names {names}, messages 'true'"
    return SQL(f"START_REPLICATION SLOT {{slot}} LOGICAL {{position}} ({options})").format(
        slot=Identifier(slot), position=SQL(str(position)), names=SQL(literal)
    )


def timeline_history(timeline: int) -> Composed:
    """Ask for a timeline's history file."""
    return SQL("TIMELINE_HISTORY {}").format(Literal(timeline))


def create_temporary_slot(slot: str) -> Composed:
    """Create a slot that goes when the connection does, and exports no snapshot."""
    return SQL("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')").format(
        slot=Identifier(slot)
    )


def create_publication(publication: str, members: Iterable[Member | TableRef], *, generated_columns: bool) -> Composed:
    """Create a publication of these tables, partitions through their root; generated columns from PostgreSQL 18 on."""
    return SQL("CREATE PUBLICATION {publication} FOR TABLE {members} WITH ({options})").format(
        publication=Identifier(publication), members=_list(members), options=publication_options(generated_columns)
    )


def publication_options(generated_columns: bool) -> SQL:
    """List the options that a publication of ours has."""
    options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    return SQL(f"{options}, publish_generated_columns = stored") if generated_columns else SQL(options)


def set_publication_options(publication: str, *, generated_columns: bool) -> Composed:
    """Give a publication the options of `publication_options`."""
    return SQL("ALTER PUBLICATION {publication} SET ({options})").format(
        publication=Identifier(publication), options=publication_options(generated_columns)
    )


def add_tables(publication: str, members: Iterable[Member | TableRef]) -> Composed:
    """Add tables to a publication."""
    return SQL("ALTER PUBLICATION {publication} ADD TABLE {members}").format(
        publication=Identifier(publication), members=_list(members)
    )


def drop_tables(publication: str, tables: Iterable[TableRef]) -> Composed:
    """Take tables out of a publication."""
    return SQL("ALTER PUBLICATION {publication} DROP TABLE {tables}").format(
        publication=Identifier(publication), tables=_list(tables)
    )


def drop_publication(publication: str) -> Composed:
    """Drop a publication, if it is there."""
    return SQL("DROP PUBLICATION IF EXISTS {publication}").format(publication=Identifier(publication))


def set_replica_identity_full(table: TableRef) -> Composed:
    """Make the WAL hold whole old rows of a table."""
    return SQL("ALTER TABLE {table} REPLICA IDENTITY FULL").format(table=table.identifier)


def create_slot(slot: str, *, failover: bool) -> Composed:
    """Create a permanent slot that exports no snapshot; waits until all transactions open now have ended.

    With ``failover``, which PostgreSQL 17 and later know, standbys that synchronise slots keep a copy of it.
    """
    options = "SNAPSHOT 'nothing', FAILOVER" if failover else "SNAPSHOT 'nothing'"
    return SQL(f"CREATE_REPLICATION_SLOT {{slot}} LOGICAL pgoutput ({options})").format(slot=Identifier(slot))


def take(slot: str) -> Composed:
    """Try to take the advisory lock of a stream, which is named after its slot."""
    return SQL("SELECT pg_try_advisory_lock(hashtext('django_walsignals'), hashtext({slot})) AS taken").format(
        slot=Literal(slot)
    )


def move_slot(slot: str) -> Composed:
    """Move a slot to the end of the log."""
    return SQL("SELECT pg_replication_slot_advance({slot}, pg_current_wal_flush_lsn())").format(slot=Literal(slot))


def create_slot_by_function(slot: str, *, failover: bool) -> Composed:
    """Create a permanent slot over an ordinary connection, unless there is one; only outside of a transaction."""
    return SQL(
        "SELECT pg_create_logical_replication_slot({slot}, 'pgoutput'{option}) "
        "WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot})"
    ).format(slot=Literal(slot), option=SQL(", failover => true" if failover else ""))


def drop_slot(slot: str) -> Composed:
    """Drop a slot that nobody uses."""
    return SQL("SELECT pg_drop_replication_slot({slot})").format(slot=Literal(slot))


def _list(members: Iterable[Member | TableRef]) -> Composed:
    every = (member if isinstance(member, Member) else Member(member) for member in members)
    return SQL(", ").join(member.definition for member in every)

"""Set up what is missing for a stream, in the order that PostgreSQL needs, and say what was done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.sql import Composed

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.ddl import Follow, Report, announce_wait, named_privileges, run_ddl
from django_walsignals.provisioning.filters import RowFilter, compile_filter, is_as_published, judge
from django_walsignals.provisioning.members import Choice
from django_walsignals.provisioning.plan import Plan, make_plan
from django_walsignals.provisioning.steps import Finding
from django_walsignals.provisioning.tables import TableFacts, read_tables
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Publication, Server, Slot, read_publication, read_server, read_slot
from django_walsignals.selection import excluded_columns, is_explicit, published_models, row_conditions

logger = logging.getLogger(__name__)


def _ignore(statement: str, reason: str) -> None:
    """Announce nothing."""


def _follow_nothing() -> None:
    """Do nothing beside a step."""


def require_server(connection: BaseDatabaseWrapper) -> Server:
    """Read what the server is; raise `ConfigurationError` where it can't do logical replication."""
    with connection.cursor() as cursor:
        server = read_server(cursor)
    if server.version < 150000:
        raise ConfigurationError(f"PostgreSQL 15 or later is needed; this server is {server.version // 10000}.")
    if server.wal_level != "logical":
        raise ConfigurationError(
            f"The server's wal_level is {server.wal_level!r}, and logical replication needs 'logical'. Run: ALTER "
            "SYSTEM SET wal_level = 'logical'; and restart the server (on a managed service: its parameter for that)."
        )
    if server.in_recovery:
        raise ConfigurationError("This server is a standby: point DATABASE or REPLICATION_OPTIONS at its primary.")
    return server


class Walsender(Protocol):
    """As much of a replication connection as makes a slot."""

    def create_slot(self, slot: str, *, failover: bool) -> object:
        """Create a permanent slot."""
        ...


class StreamSetUp:
    """What one stream needs: a publication of its tables, replica identities, and a slot."""

    def __init__(
        self,
        config: StreamConfig,
        server: Server,
        report: Report,
        *,
        may_change: bool = True,
        announce: Callable[[str, str], None] = _ignore,
    ) -> None:
        """``report`` is called with a line for each thing done. Without ``may_change`` what is missing is an error.

        ``announce`` is called with a statement that is about to be run, and what it is for.
        """
        self._announce = announce
        self._config = config
        self._server = server
        self._report = report
        self._may_change = may_change

    def tables(self) -> list[str]:
        """Name the tables that the stream is to bring, as ``schema.name``; raise `ConfigurationError` if there are none."""
        return [str(table) for table in self.plan().tables]

    def plan(self, known_tables: Collection[str] = ()) -> Plan:
        """Work out what is missing, slot aside; of the tables in the publication only the known ones may be taken out."""
        config, connection = self._config, connections[self._config.database]
        wanted = published_models(config)
        if not wanted:
            raise ConfigurationError(
                "Nothing is to be published: no receiver of post_wal_change names a model as its sender. Connect one in "
                f"an app's walsignals.py, or name models in WALSIGNALS[{config.alias!r}]['MODELS']."
            )
        facts = read_tables(connection, wanted, config.publication)
        _refuse_missing_tables(config, wanted, {fact.model for fact in facts})
        with connection.cursor() as cursor:
            publication = read_publication(cursor, config.publication)
        choice = _choice(config, connection, facts, publication)
        return make_plan(config, facts, publication, known_tables, server_version=self._server.version, choice=choice)

    def apply(self, known_tables: Collection[str], follow: Follow = _follow_nothing) -> None:
        """Run what the plan says; raise `ConfigurationError`, with the statements, where nothing may be changed.

        ``follow`` is called in the transaction of each step.
        """
        plan = self.plan(known_tables)
        connection = connections[self._config.database]
        if plan.steps and not self._may_change:
            raise ConfigurationError(
                "Something is missing, and --no-setup creates nothing. Have this run: "
                f"{plan.script().as_string(connection.connection)};"
            )
        self.judge(plan)
        for step in plan.steps:
            self._announce(step.script().as_string(connection.connection), step.reason)
            run_ddl(self._config.database, step.statement, self._report, follow)
            self._report(step.done)
        for remark in plan.remarks:
            self._report(remark)

    def judge(self, plan: Plan) -> None:
        """Have the server judge the plan's conditions, before anything is changed.

        Raises `ConfigurationError` for one that it refuses, and `PrivilegeError`, with all that is to be run, where the
        role may not publish it: with some of it done, UPDATE and DELETE might fail.
        """
        with named_privileges(plan.script(), connections[self._config.database]):
            for model, statement in plan.conditions:
                judge(self._config.database, model, statement)

    def ensure_slot(self, connection: Walsender) -> None:
        """Create the slot where there is none that can be read; waits for the transactions that are open."""
        config = self._config
        with connections[config.database].cursor() as cursor:
            slot = read_slot(cursor, config.slot)
            if not self._may_change or (slot is not None and not slot.lost):
                return
            if slot is not None:
                self._announce_statement(commands.drop_slot(config.slot), "the server has invalidated it")
                cursor.execute(commands.drop_slot(config.slot))
                self._report(f"dropped replication slot {config.slot}, which the server had invalidated ({slot.lost})")
        failover = self._server.version >= 170000
        self._announce_statement(
            commands.create_slot(config.slot, failover=failover), "keeps the log until it is delivered"
        )
        with announce_wait(config.database, self._report):
            connection.create_slot(config.slot, failover=failover)
        self._report(f"created replication slot {config.slot}")

    def move_slot(self) -> None:
        """Move the slot to the end of the log: its publication is younger than it, and can't bring what lies between."""
        if not self._may_change:
            return
        self._announce_statement(commands.move_slot(self._config.slot), "its publication is younger than it")
        with connections[self._config.database].cursor() as cursor:
            cursor.execute(commands.move_slot(self._config.slot))
        self._report(f"moved replication slot {self._config.slot} to the end of the log, behind its new publication")

    def _announce_statement(self, statement: Composed, reason: str) -> None:
        connection = connections[self._config.database]
        connection.ensure_connection()
        self._announce(statement.as_string(connection.connection), reason)


def slot_finding(config: StreamConfig, slot: Slot | None) -> Finding:
    """Say how it stands with the slot."""
    with connections[config.database].cursor() as cursor:
        cursor.execute("SELECT current_database()")
        (database,) = cursor.fetchone()
    found = "missing"
    if slot is not None:
        plugin = slot.plugin or "of physical replication"
        found = f"lost: {slot.lost}" if slot.lost else f"{plugin}, in database {slot.database}"
    return Finding(f"replication slot {config.slot}", f"pgoutput, in database {database}", found)


def _choice(
    config: StreamConfig,
    connection: BaseDatabaseWrapper,
    facts: Sequence[TableFacts],
    publication: Publication | None,
) -> Choice:
    """Read from the settings which columns and rows are to be published, and compare the rows with what is."""
    conditions = row_conditions(config)
    filters: dict[str, RowFilter] = {}
    in_place = set()
    present = {table.table: table for table in publication.tables.values()} if publication else {}
    for root in (fact for fact in facts if fact.is_root):
        condition = conditions.get(root.model._meta.db_table)
        compiled = None if condition is None else compile_filter(connection, root.model, condition)
        if compiled is not None:
            filters[root.model._meta.db_table] = compiled
            published = present.get(root.table)
            if published is not None and is_as_published(connection, compiled.sql, published):
                in_place.add(root.table)
    return Choice(excluded_columns(config), filters, in_place)


def _refuse_missing_tables(
    config: StreamConfig, wanted: Sequence[type[models.Model]], found: set[type[models.Model]]
) -> None:
    missing = [model for model in wanted if model not in found and is_explicit(config, model)]
    if missing:
        tables = ", ".join(f"{model._meta.db_table} ({model._meta.label})" for model in missing)
        raise ConfigurationError(f"There is no table {tables}. Run manage.py migrate first.")

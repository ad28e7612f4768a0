"""Set up what is missing for a stream, in the order that PostgreSQL needs, and say what was done."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.ddl import Report, announce_wait, run_ddl
from django_walsignals.provisioning.plan import Plan, make_plan
from django_walsignals.provisioning.tables import read_tables
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Server, read_publication, read_server, read_slot
from django_walsignals.selection import is_explicit, published_models

logger = logging.getLogger(__name__)


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

    def __init__(self, config: StreamConfig, server: Server, report: Report, *, may_change: bool = True) -> None:
        """``report`` is called with a line for each thing done. Without ``may_change`` what is missing is an error."""
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
        return make_plan(config, facts, publication, known_tables, server_version=self._server.version)

    def apply(self, known_tables: Collection[str]) -> None:
        """Run what the plan says; raise `ConfigurationError`, with the statements, where nothing may be changed."""
        plan = self.plan(known_tables)
        if plan.steps and not self._may_change:
            connection = connections[self._config.database]
            statements = "; ".join(step.statement.as_string(connection.connection) for step in plan.steps)
            raise ConfigurationError(
                f"Something is missing, and --no-setup creates nothing. Have this run: {statements};"
            )
        for step in plan.steps:
            run_ddl(self._config.database, step.statement, self._report)
            self._report(step.done)
        for remark in plan.remarks:
            self._report(remark)

    def ensure_slot(self, connection: Walsender) -> None:
        """Create the slot where there is none that can be read; waits for the transactions that are open."""
        config = self._config
        with connections[config.database].cursor() as cursor:
            slot = read_slot(cursor, config.slot)
            if not self._may_change or (slot is not None and not slot.lost):
                return
            if slot is not None:
                cursor.execute(commands.drop_slot(config.slot))
                self._report(f"dropped replication slot {config.slot}, which the server had invalidated ({slot.lost})")
        with announce_wait(config.database, self._report):
            connection.create_slot(config.slot, failover=self._server.version >= 170000)
        self._report(f"created replication slot {config.slot}")

    def move_slot(self) -> None:
        """Move the slot to the end of the log: its publication is younger than it, and can't bring what lies between."""
        if not self._may_change:
            return
        with connections[self._config.database].cursor() as cursor:
            cursor.execute(commands.move_slot(self._config.slot))
        self._report(f"moved replication slot {self._config.slot} to the end of the log, behind its new publication")


@contextmanager
def temporary_publication(config: StreamConfig, server: Server) -> Iterator[None]:
    """Keep the stream's publication for a while only, and leave its tables' identity alone."""
    connection = connections[config.database]
    plan = StreamSetUp(replace(config, replica_identity="keep"), server, logger.info).plan()
    for step in plan.steps:
        run_ddl(config.database, step.statement)
    try:
        yield
    finally:
        connection.close()  # whatever state it is in
        run_ddl(config.database, commands.drop_publication(config.publication))


def _refuse_missing_tables(
    config: StreamConfig, wanted: Sequence[type[models.Model]], found: set[type[models.Model]]
) -> None:
    missing = [model for model in wanted if model not in found and is_explicit(config, model)]
    if missing:
        tables = ", ".join(f"{model._meta.db_table} ({model._meta.label})" for model in missing)
        raise ConfigurationError(f"There is no table {tables}. Run manage.py migrate first.")

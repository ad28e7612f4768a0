"""Set up what is missing for a stream, and say what was done.

DDL waits for locks, and everybody else waits behind it: so each statement runs in a transaction of its own under a
short ``lock_timeout`` and is tried again. A slot is made last, outside any transaction that wrote; making it waits
until all transactions that are open have ended, and `announce_wait` says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import stamina
from django.db import DatabaseError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError, PrivilegeError
from django_walsignals.provisioning.plan import Plan, make_plan
from django_walsignals.provisioning.tables import read_tables
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Server, read_publication, read_server, read_slot
from django_walsignals.replication.errors import translate
from django_walsignals.selection import is_explicit, published_models

logger = logging.getLogger(__name__)

Report = Callable[[str], None]

#: How long a statement waits for its lock, and how often and how long it is tried.
_LOCK_TIMEOUT: Final = "2s"
_LOCK_ATTEMPTS: Final = 10
_LOCK_PATIENCE: Final = 60.0

#: Seconds before a wait is announced, and between two announcements.
_ANNOUNCE_AFTER: Final = 1.0

_OPEN_TRANSACTIONS: Final = """
    SELECT pid, coalesce(datname, ''), coalesce(usename, ''), coalesce(application_name, ''),
           extract(epoch FROM clock_timestamp() - xact_start)::int
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 3
"""


def require_server(connection: BaseDatabaseWrapper) -> Server:
    """Read what the server is; raise `ConfigurationError` where it can't do logical replication or may not for us."""
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
    if not server.may_replicate:
        role = connection.settings_dict["USER"] or "the role"
        raise PrivilegeError(f"Role {role} may not replicate. Run as a superuser: ALTER ROLE {role} REPLICATION;")
    return server


def plan_setup(config: StreamConfig, server: Server) -> Plan:
    """Work out what is missing, slot aside; raise `ConfigurationError` where there is nothing to publish."""
    connection = connections[config.database]
    wanted = published_models(config)
    if not wanted:
        raise ConfigurationError(
            "Nothing is to be published: no receiver of post_wal_change names a model as its sender. Connect one in an "
            f"app's walsignals.py, or name models in WALSIGNALS[{config.alias!r}]['MODELS']."
        )
    facts = read_tables(connection, wanted, config.publication)
    _refuse_missing_tables(config, wanted, {fact.model for fact in facts})
    with connection.cursor() as cursor:
        publication = read_publication(cursor, config.publication)
    return make_plan(config, facts, publication, server_version=server.version)


def apply_plan(config: StreamConfig, plan: Plan, report: Report) -> None:
    """Run a plan's statements, reporting each."""
    for step in plan.steps:
        _run_ddl(config.database, step.statement, report)
        report(step.done)
    for remark in plan.remarks:
        report(remark)


def drop_lost_slot(config: StreamConfig, report: Report) -> None:
    """Drop a slot that the server has invalidated, so that one can be made in its place."""
    with connections[config.database].cursor() as cursor:
        slot = read_slot(cursor, config.slot)
        if slot is not None and slot.lost:
            cursor.execute(commands.drop_slot(config.slot))
            report(f"dropped replication slot {config.slot}, which the server had invalidated ({slot.lost})")


def ensure_slot(config: StreamConfig, server: Server, report: Report) -> None:
    """Create the slot unless it is there; waits for the transactions that are open."""
    connection = connections[config.database]
    with connection.cursor() as cursor:
        if read_slot(cursor, config.slot) is not None:
            return
    statement = commands.create_slot(config.slot, failover=server.version >= 170000)
    with (
        announce_wait(config.database, report),
        _privileges(statement, connection),
        transaction.atomic(using=config.database, durable=True),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(statement)
    report(f"created replication slot {config.slot}")


@contextmanager
def temporary_publication(config: StreamConfig, server: Server) -> Iterator[None]:
    """Keep the stream's publication for a while only, and leave its tables' identity alone."""
    connection = connections[config.database]
    facts = read_tables(connection, published_models(config), config.publication)
    tables = [fact.table for fact in facts if fact.is_root and not fact.not_publishable and fact.has_identity]
    if not tables:
        raise ConfigurationError("Nothing is to be published: no receiver names a model whose table has an identity.")
    with_generated = server.version >= 180000
    _run_ddl(config.database, commands.create_publication(config.publication, tables, generated_columns=with_generated))
    try:
        yield
    finally:
        connection.close()  # whatever state it is in
        _run_ddl(config.database, commands.drop_publication(config.publication))


@contextmanager
def announce_wait(alias: str, report: Report) -> Iterator[None]:
    """Say what a slot in the making waits for, from another thread with a connection of its own."""
    over = threading.Event()

    def announce() -> None:
        wait = _ANNOUNCE_AFTER
        while not over.wait(wait):
            report(f"waiting for open transactions to end before the slot can start: {_open_transactions(alias)}")
            wait = min(wait * 2, 30.0)
        connections[alias].close()

    thread = threading.Thread(target=announce, name="walsignals-announce", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _open_transactions(alias: str) -> str:
    with connections[alias].cursor() as cursor:
        cursor.execute(_OPEN_TRANSACTIONS)
        rows = cursor.fetchall()
    described = [f"pid {pid} ({user}@{name} {app}, open for {age} s)" for pid, name, user, app, age in rows]
    return "; ".join(described) or "none is left"


def _run_ddl(alias: str, statement: Composable, report: Report = logger.info) -> None:
    """Run one statement under a short lock timeout, again and again for a while."""
    connection = connections[alias]
    attempts = stamina.retry_context(on=_is_lock_timeout, attempts=_LOCK_ATTEMPTS, timeout=_LOCK_PATIENCE)
    with _privileges(statement, connection):
        for attempt in attempts:
            with attempt, transaction.atomic(using=alias, durable=True), connection.cursor() as cursor:
                if attempt.num > 1:
                    report("waiting for a lock that open transactions hold")
                cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                cursor.execute(statement)


def _is_lock_timeout(exc: Exception) -> bool:
    return isinstance(exc.__cause__, errors.LockNotAvailable)


@contextmanager
def _privileges(statement: Composed | Composable, connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Turn a refusal into the statement that somebody else may run."""
    try:
        yield
    except DatabaseError as exc:
        cause = exc.__cause__
        text = SQL("{}").format(statement).as_string(connection.connection)
        if isinstance(cause, errors.InsufficientPrivilege):
            raise PrivilegeError(
                f"{' '.join(str(cause).split())}. Have the owner of the tables, or a superuser, run: {text};"
            ) from exc
        if isinstance(cause, errors.LockNotAvailable):
            raise ConfigurationError(
                f"Could not get a lock in {_LOCK_PATIENCE:.0f} s: a transaction stays open on the table. End it, or "
                f"run at a quiet time: {text};"
            ) from exc
        if isinstance(cause, errors.Error):
            raise translate(cause, f"run {text}") from exc
        raise


def _refuse_missing_tables(
    config: StreamConfig, wanted: Sequence[type[models.Model]], found: set[type[models.Model]]
) -> None:
    missing = [model for model in wanted if model not in found and is_explicit(config, model)]
    if missing:
        tables = ", ".join(f"{model._meta.db_table} ({model._meta.label})" for model in missing)
        raise ConfigurationError(f"There is no table {tables}. Run manage.py migrate first.")

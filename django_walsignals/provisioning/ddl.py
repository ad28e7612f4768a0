"""Run DDL without being in anybody's way, and say what a wait is for.

DDL waits for locks, and everybody else waits behind it: so each statement runs in a transaction of its own under a
short ``lock_timeout`` and is tried again. A slot in the making waits until all transactions that are open have ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import stamina
from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed

from django_walsignals.exceptions import ConfigurationError, PrivilegeError
from django_walsignals.replication.errors import translate

logger = logging.getLogger(__name__)

Report = Callable[[str], None]

#: What is done after a statement, and commits or fails with it.
Follow = Callable[[], None]

#: How long a statement waits for its lock, how often it is tried, and for how many seconds.
_LOCK_TIMEOUT: Final = "2s"
_LOCK_ATTEMPTS: Final = 10
_LOCK_PATIENCE: Final = 60.0

#: Seconds before a wait is announced; the next announcements come after twice as long each.
_ANNOUNCE_AFTER: Final = 1.0

#: Those that a new slot waits for, the oldest first.
_OPEN_TRANSACTIONS: Final = """
    SELECT pid, coalesce(datname, ''), coalesce(usename, ''), coalesce(application_name, ''),
           extract(epoch FROM clock_timestamp() - xact_start)::int
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    ORDER BY xact_start
    LIMIT 3
"""


def _nothing() -> None:
    """Do nothing more."""


def run_ddl(alias: str, statement: Composable, report: Report = logger.info, follow: Follow = _nothing) -> None:
    """Run one statement under a short lock timeout, again and again for a while; ``follow`` is of its transaction."""
    with named_privileges(statement, connections[alias]):
        _run_in_turns(alias, statement, report, follow)


def try_out(alias: str, statement: Composable) -> None:
    """Let the server judge a statement, and leave nothing of it; raise Django's error for what it refuses."""
    _run_in_turns(alias, statement, logger.info, lambda: transaction.set_rollback(True, using=alias))


def _run_in_turns(alias: str, statement: Composable, report: Report, follow: Follow) -> None:
    attempts = stamina.retry_context(on=_is_lock_timeout, attempts=_LOCK_ATTEMPTS, timeout=_LOCK_PATIENCE)
    for attempt in attempts:
        with attempt, transaction.atomic(using=alias, durable=True), connections[alias].cursor() as cursor:
            if attempt.num > 1:
                report("waiting for a lock that open transactions hold")
            cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            cursor.execute(statement)
            follow()


def _is_lock_timeout(exc: Exception) -> bool:
    return isinstance(exc.__cause__, errors.LockNotAvailable)


@contextmanager
def named_privileges(statement: Composed | Composable, connection: BaseDatabaseWrapper) -> Iterator[None]:
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


@contextmanager
def announce_wait(alias: str, report: Report) -> Iterator[None]:
    """Say what a slot in the making waits for, from another thread with a connection of its own."""
    over = threading.Event()

    def announce() -> None:
        wait = _ANNOUNCE_AFTER
        try:
            while not over.wait(wait):
                report(f"waiting for open transactions to end before the slot can start: {_open_transactions(alias)}")
                wait = min(wait * 2, 30.0)
        except DatabaseError as exc:
            logger.info("Can't say what the slot waits for: %s", exc)
        finally:
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

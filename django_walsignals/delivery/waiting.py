"""Wait for whatever comes first: data from the server, the end of an ORM connection, a signal, or a deadline.

https://docs.djangoproject.com/en/stable/ref/databases/#persistent-connections says nothing of a process without
requests: here a connection lives as long as the session, and its socket is watched, so that its end is noticed at
once and not by the next query.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from typing import Any, Final

import psycopg
from django.db import connections

from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.exceptions import ConfigurationError, ConnectionLost

#: What a role may have set otherwise: psycopg loads dates and intervals in these styles only, the checkpoint's own among
#: them, and a quiet stream would be an idle session.
_PREPARE_SESSION: Final = "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET idle_session_timeout = 0"


class Waiter:
    """The sockets that a session waits on."""

    def __init__(self, replication: int, stop: StopRequest, aliases: Iterable[str]) -> None:
        """``replication`` is the file descriptor of the replication connection."""
        self._poll = select.poll()
        self._poll.register(replication, select.POLLIN)
        self._poll.register(stop.fileno(), select.POLLIN)
        self._stop = stop
        self._watched = {alias: session_of(alias) for alias in aliases}
        self._sessions = {session.fileno(): session for session in self._watched.values()}
        for descriptor in self._sessions:
            self._poll.register(descriptor, select.POLLIN)

    @property
    def orm_sockets(self) -> frozenset[int]:
        """The file descriptors of the ORM's connections."""
        return frozenset(self._sessions)

    def wait(self, seconds: float) -> None:
        """Wait at most so long; raise `ConnectionLost` where an ORM connection has died."""
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor in self._sessions:
                _refuse_dead(self._sessions[descriptor])
        self._stop.drain()

    def refuse_replaced(self) -> None:
        """Raise `ConnectionLost` where an ORM connection is no longer the one that is watched."""
        for alias, session in self._watched.items():
            if connections[alias].connection is not session:
                raise ConnectionLost(
                    f"Something closed the consumer's connection to database {alias!r}: a receiver, or an on_commit hook."
                )


def pause(seconds: float, stop: StopRequest, aliases: Iterable[str]) -> bool:
    """Wait for a time; False if somebody wants to stop. Raises `ConnectionLost` where an ORM connection dies."""
    sessions = {session.fileno(): session for session in map(session_of, aliases)}
    poll = select.poll()
    for descriptor in (stop.fileno(), *sessions):
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            if descriptor in sessions:
                _refuse_dead(sessions[descriptor])
        stop.drain()
        if stop.requested:
            return False
    return not stop.requested


def session_of(alias: str) -> psycopg.Connection[Any]:
    """Get the psycopg connection under Django's, which must be open."""
    connection = connections[alias]
    connection.ensure_connection()
    session: psycopg.Connection[Any] = connection.connection
    return session


def renew(aliases: Iterable[str]) -> None:
    """Have an open connection for each alias, whatever became of those of the last session.

    Raises `ConfigurationError` inside an atomic block, where no batch could commit.
    """
    for alias in aliases:
        connection = connections[alias]
        if connection.in_atomic_block:
            raise ConfigurationError(
                "The consumer can't run inside transaction.atomic(): it commits transactions of its own. In a test, "
                "use TransactionTestCase or pytest.mark.django_db(transaction=True)."
            )
        if connection.connection is not None and not connection.is_usable():
            connection.close()
        connection.ensure_connection()
        connection.close_at = None  # CONN_MAX_AGE is for requests: this one lives as long as the session
        with connection.cursor() as cursor:
            cursor.execute(_PREPARE_SESSION)


def close_obsolete(kept: Iterable[str]) -> None:
    """Do for the other databases that receivers use what a request's end does: drop the dead and the old."""
    for connection in connections.all(initialized_only=True):
        if connection.alias not in set(kept):
            connection.close_if_unusable_or_obsolete()


def _refuse_dead(session: psycopg.Connection[Any]) -> None:
    """Read what came on an idle connection: a notice is no harm, its end is."""
    try:
        session.pgconn.consume_input()
        while session.pgconn.notifies():
            pass
    except psycopg.OperationalError as exc:
        raise ConnectionLost(f"The database connection has died: {' '.join(str(exc).split())}") from exc

"""The context in the WAL: before a transaction's first write, one message says in which context it is made.

    pg_logical_emit_message(true, 'walsignals.context', '{"user": 7}')

It belongs to the transaction: rolled back with it, and in the WAL before the changes that it is about. Another one
follows where the context changes inside a transaction. A transaction that writes nothing gets none.
https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION

It is Django's ``execute_wrapper``, one a connection for as long as that lives, which sees every statement that goes
through Django's cursors. It knows nothing of COPY through psycopg, of ``executemany`` behind Django's back, and of
functions that write when a SELECT calls them.

The message goes out in the very (sub)transaction of the write behind it, never behind a savepoint of its own. Decoding
puts a transaction and its subtransactions in order by LSN, and takes a message's *end* for its LSN, which is where the
next record starts: between two subtransactions that is a tie, and the write may come first. So a message that no row
has followed yet is repeated behind a savepoint, or behind its release.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row

from django_walsignals.conf import source_databases
from django_walsignals.contexts import ACTIVE, Frame
from django_walsignals.metadata import CONTEXT_PREFIX, EMPTY
from django_walsignals.statements import Kind, kind

logger = logging.getLogger(__name__)

Execute = Callable[[Any, Any, bool, dict[str, Any]], Any]

_EMIT: Final = sql.SQL("SELECT pg_catalog.pg_logical_emit_message(true, {prefix}::text, {content}::text)")

#: The function has one parameter more since PostgreSQL 17.
_MAY_EMIT: Final = """
    SELECT coalesce(bool_and(has_function_privilege(oid, 'EXECUTE')), false) FROM pg_catalog.pg_proc
    WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace
    AND proargtypes[2] = 'text'::regtype
"""

#: The last message may have been rolled back. No message is like this, so that the next write emits one.
_UNSURE: Final = "?"

#: Around what a context's function asks of the database inside of the application's transaction.
_SHELTER: Final = "walsignals_context"
_IN_ORDER: Final = (TransactionStatus.IDLE, TransactionStatus.INTRANS)

#: Aliases whose role may not call the function, and in whose log that has been said.
_refused: Final[set[str]] = set()


class ContextEmitter:
    """The ``execute_wrapper`` of one connection, and what it knows of the transaction in hand.

    Whether a new transaction has begun is local knowledge: before its first statement libpq says "idle", and Django
    makes a new list of commit hooks at each commit and rollback.
    """

    __slots__ = ("_hooks", "_is_allowed", "_is_evaluating", "_is_last", "_is_sheltered", "_known")

    def __init__(self) -> None:
        #: What the last message of this transaction says; None if there is none.
        self._known: str | None = None
        self._hooks: object = None
        #: Whether that message may be the last record that this transaction has in the WAL.
        self._is_last = False
        self._is_allowed: bool | None = None
        self._is_evaluating = False
        self._is_sheltered = False

    def __call__(self, execute: Execute, statement: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Execute a statement, with a message before it where one is due."""
        frame = ACTIVE.get()
        connection = context["connection"]
        if self._is_evaluating:
            self._shelter(connection)
            return execute(statement, params, many, context)
        if (frame is None and self._known is None) or connection.connection is None:  # a cursor may outlive that
            return execute(statement, params, many, context)
        what = kind(_text(statement, connection))
        if what is Kind.WRITE:
            return self._write(frame, connection, lambda: execute(statement, params, many, context), context["cursor"])
        self._look(connection)
        if self._known is not None and (what is Kind.ROLLBACK or (what is Kind.SAVEPOINT and self._is_last)):
            self._known = _UNSURE
        return execute(statement, params, many, context)

    def _write(
        self, frame: Frame | None, connection: BaseDatabaseWrapper, execute: Callable[[], Any], cursor: Any
    ) -> Any:
        message = self._due(frame, connection)
        result = execute() if message is None else self._execute_after(message, connection, execute)
        if cursor.rowcount > 0:
            self._is_last = False
        return result

    def _due(self, frame: Frame | None, connection: BaseDatabaseWrapper) -> str | None:
        """Give the message that a write needs before it; None where the last one still holds."""
        if connection.alias not in source_databases():
            return None
        message = EMPTY if frame is None else self._evaluate(frame, connection)
        self._look(connection)
        status = connection.connection.pgconn.transaction_status
        if message == (self._known or EMPTY) or status in (TransactionStatus.INERROR, TransactionStatus.UNKNOWN):
            return None
        return message if self._may_emit(connection) else None

    def _evaluate(self, frame: Frame, connection: BaseDatabaseWrapper) -> str:
        """Ask the frame's functions, which may query the database themselves."""
        self._is_evaluating = True
        try:
            return frame.text()
        finally:
            self._is_evaluating = False
            if self._is_sheltered:
                self._leave_shelter(connection)

    def _shelter(self, connection: BaseDatabaseWrapper) -> None:
        """Have a function's failing query abort no more than a savepoint: the transaction is the application's."""
        session = connection.connection
        if self._is_sheltered or session is None or session.pgconn.transaction_status not in _IN_ORDER:
            return
        if not session.autocommit or session.pgconn.transaction_status == TransactionStatus.INTRANS:
            with connection.wrap_database_errors:
                session.execute(f"SAVEPOINT {_SHELTER}", prepare=False)
            self._is_sheltered = True

    def _leave_shelter(self, connection: BaseDatabaseWrapper) -> None:
        self._is_sheltered = False
        self._known = self._known and _UNSURE
        status = connection.connection.pgconn.transaction_status
        with connection.wrap_database_errors:
            if status == TransactionStatus.INERROR:
                connection.connection.execute(f"ROLLBACK TO SAVEPOINT {_SHELTER}", prepare=False)
                connection.needs_rollback = False  # or no query had been let through to make the shelter for
            if status in (TransactionStatus.INERROR, TransactionStatus.INTRANS):
                connection.connection.execute(f"RELEASE SAVEPOINT {_SHELTER}", prepare=False)

    def _look(self, connection: BaseDatabaseWrapper) -> None:
        """Forget what was emitted in a transaction that is over."""
        if self._known is None:
            return
        session = connection.connection
        if session.pgconn.transaction_status == TransactionStatus.IDLE:
            self._known = None
        elif session.autocommit or connection.run_on_commit is not self._hooks:  # psycopg's transaction() tells nobody
            self._known = _UNSURE

    def _execute_after(self, message: str, connection: BaseDatabaseWrapper, execute: Callable[[], Any]) -> Any:
        session = connection.connection
        if not session.autocommit or session.pgconn.transaction_status != TransactionStatus.IDLE:
            self._emit(message, connection)
            return execute()
        try:
            with connection.wrap_database_errors, _begun(session):
                self._emit(message, connection)
                return execute()
        finally:
            self._known = None

    def _emit(self, message: str, connection: BaseDatabaseWrapper) -> None:
        with connection.wrap_database_errors:
            connection.connection.execute(_EMIT.format(prefix=CONTEXT_PREFIX, content=message), prepare=False)
        self._known = message
        self._hooks = connection.run_on_commit
        self._is_last = True

    def _may_emit(self, connection: BaseDatabaseWrapper) -> bool:
        """Ask once whether the role may; the application's transaction must not be aborted by our finding out."""
        if self._is_allowed is None:
            session = connection.connection
            with connection.wrap_database_errors, session.cursor(row_factory=scalar_row) as cursor:
                self._is_allowed = bool(cursor.execute(_MAY_EMIT, prepare=False).fetchone())
            if not self._is_allowed and connection.alias not in _refused:
                _refused.add(connection.alias)
                logger.warning(
                    "Changes in database %r are made without their context: role %s may not call "
                    "pg_logical_emit_message. GRANT EXECUTE on the function to it.",
                    connection.alias,
                    session.info.user,
                )
        return self._is_allowed


def _begun(session: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    """Begin a transaction for one statement: at the level that it has alone, which is the server's."""
    if session.isolation_level is None or session.pgconn.pipeline_status:
        return session.transaction()
    return _begun_at_the_servers_level(session)


@contextmanager
def _begun_at_the_servers_level(session: psycopg.Connection[Any]) -> Iterator[None]:
    session.execute("BEGIN", prepare=False)
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):  # of a connection that is lost; what lost it is being raised
            session.execute("ROLLBACK", prepare=False)
        raise
    session.execute("COMMIT", prepare=False)


def install(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Give a connection its emitter, a new one if it is connected anew. A receiver of ``connection_created``.

    It goes first: Django's ``execute_wrapper()``, which may be why we are connecting, takes the last one away.
    """
    if isinstance(connection.connection, psycopg.Connection):
        wrappers = connection.execute_wrappers
        wrappers[:] = [
            ContextEmitter(),
            *(wrapper for wrapper in wrappers if not isinstance(wrapper, ContextEmitter)),
        ]


def _text(statement: Any, connection: BaseDatabaseWrapper) -> str:
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    return str(statement.as_string(connection.connection)) if isinstance(statement, sql.Composable) else ""

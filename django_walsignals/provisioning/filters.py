"""Row filters: a `Q` of the setting ROWS into the condition of a publication, as a check constraint's is compiled.

PostgreSQL takes a condition of the table's own columns and built-in immutable functions. What Django can't put so is
refused here; the rest the server judges, in a transaction that is rolled back, before anything is changed.
https://www.postgresql.org/docs/current/logical-replication-row-filter.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import EmptyResultSet, FieldError, FullResultSet, ValidationError
from django.db import DatabaseError, NotSupportedError, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col, RawSQL
from django.db.models.sql.query import Query
from psycopg import errors
from psycopg.sql import SQL, Composed, Literal

from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.ddl import try_out
from django_walsignals.replication.catalogue import PublishedTable

#: Refusals that say nothing of a condition.
_NO_OPINION: Final = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.LockNotAvailable)


@dataclass(frozen=True, slots=True)
class RowFilter:
    """A condition in SQL, and the columns that it reads."""

    sql: str
    columns: frozenset[str]


def compile_filter(connection: BaseDatabaseWrapper, model: type[models.Model], condition: models.Q) -> RowFilter | None:
    """Write a condition in SQL; None if every row meets it. Raises `ConfigurationError` for what can't be a row filter."""
    connection.ensure_connection()
    query = Query(model=model, alias_cols=False)
    try:
        where = query.build_where(_spelled_out(condition))
        template, parameters = where.as_sql(query.get_compiler(connection=connection), connection)
    except FullResultSet:
        return None
    except EmptyResultSet:
        raise _refusal(model, "no row can meet it") from None
    except (FieldError, ValidationError, NotSupportedError, TypeError, ValueError) as exc:
        raise _refusal(model, " ".join(str(exc).split())) from exc
    if any(isinstance(node, RawSQL) for node in _nodes(where)):
        raise _refusal(model, "it has raw SQL, whose columns are not known")
    columns = frozenset(str(node.target.column) for node in _nodes(where) if isinstance(node, Col))
    literals = tuple(Literal(value).as_string(connection.connection) for value in parameters)
    return RowFilter(template % literals, columns)


def judge(alias: str, model: type[models.Model], statement: Composed) -> None:
    """Ask the server for its opinion of a row filter; raise `ConfigurationError` with the server's reason for a no.

    ``statement`` is what would publish it, so that a role which may not run it is refused here too, with Django's error.
    """
    try:
        try_out(alias, statement)
    except DatabaseError as exc:
        cause = exc.__cause__
        if isinstance(cause, _NO_OPINION) or not isinstance(cause, errors.Error) or not cause.sqlstate:
            raise
        said = f"{cause.diag.message_primary}. {cause.diag.message_detail or ''}".rstrip()
        raise _refusal(model, f"PostgreSQL says: {said}") from exc


def is_as_published(connection: BaseDatabaseWrapper, wanted: str, published: PublishedTable) -> bool:
    """Say whether a condition is the published one, which the server shows in words of its own.

    It shows ours in the same words where it may make a view, which is rolled back at once. Where it may not, the two
    are taken for the same: whoever has the right to change the publication can tell.
    """
    if not wanted or not published.row_filter:
        return wanted == published.row_filter
    try:
        with transaction.atomic(using=connection.alias):
            ours = _shown(connection, wanted, published)
            same = ours == published.row_filter or ours == _shown(connection, published.row_filter, published)
            transaction.set_rollback(True, using=connection.alias)
    except DatabaseError as exc:
        if isinstance(exc.__cause__, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
            return True
        if isinstance(exc.__cause__, errors.ProgrammingError | errors.DataError | errors.NotSupportedError):
            return False  # it can't be what is published; why not, `judge` will say
        raise
    return same


def _shown(connection: BaseDatabaseWrapper, condition: str, published: PublishedTable) -> str:
    """Have a condition back in the server's words."""
    view = SQL("CREATE OR REPLACE TEMP VIEW walsignals_probe AS SELECT 1 AS one FROM ONLY {table} WHERE ({condition})")
    with connection.cursor() as cursor:
        cursor.execute(view.format(table=published.table.identifier, condition=SQL(condition)))
        cursor.execute("SELECT pg_get_viewdef('pg_temp.walsignals_probe'::regclass)")
        (definition,) = cursor.fetchone()
    return str(definition).partition("WHERE ")[2].rstrip(";")


def _spelled_out(condition: models.Q) -> models.Q:
    """Write each ``in`` as alternatives: an IN of a varchar column has a cast inside that no row filter may have."""
    children = [
        _spelled_out(child) if isinstance(child, models.Q) else _alternatives(child) for child in condition.children
    ]
    return models.Q(*children, _connector=condition.connector, _negated=condition.negated)


def _alternatives(child: Any) -> Any:
    if isinstance(child, tuple) and child[0].endswith("__in") and isinstance(child[1], list | tuple | set | frozenset):
        name, values = child[0].removesuffix("__in"), [value for value in child[1] if value is not None]
        if values:
            return models.Q(*((name, value) for value in values), _connector=models.Q.OR)
    return child


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    children: Iterable[Any] = getattr(node, "get_source_expressions", list)()
    for child in children:
        yield from _nodes(child)


def _refusal(model: type[models.Model], reason: str) -> ConfigurationError:
    return ConfigurationError(f"ROWS of {model._meta.label} can't be a row filter: {reason}.".replace("..", "."))

"""Tables for models that are not the test app's everyday ones: made for a test, and gone after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
from django.db import connection
from django.db.models import Model

MakeTables = Callable[..., None]
Run = Callable[..., list[tuple[Any, ...]]]


def run_sql(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run statements on Django's connection; return the rows of the last one, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def tables(undo: Callable[[str], None]) -> Iterator[MakeTables]:
    """Return a function that makes the tables of these models, to be dropped afterwards, before what `undo` notes."""
    made: list[type[Model]] = []

    def make(*models: type[Model]) -> None:
        for model in models:
            made.append(model)
            with connection.schema_editor() as editor:
                editor.create_model(model)

    yield make
    for model in reversed(made):
        for table in [*model._meta.local_many_to_many, model._meta]:
            name = table.db_table if table is model._meta else table.m2m_db_table()
            run_sql(f"DROP TABLE IF EXISTS {connection.ops.quote_name(name)} CASCADE")


@pytest.fixture
def undo(transactional_db: None) -> Iterator[Callable[[str], None]]:
    """Return a function that notes SQL to be run after the test, the last first."""
    noted: list[str] = []
    yield noted.append
    for sql in reversed(noted):
        run_sql(sql)
    connection.close()  # with whatever was set for its session


@pytest.fixture
def database_types(undo: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that makes a type of an extension, or where the server lacks it one of that name, as text.

    The stand-in has its values as text too, and that is all that the WAL and psycopg know of such a type.
    """

    def make(name: str) -> None:
        if run_sql("SELECT FROM pg_available_extensions WHERE name = %s", name):
            run_sql(f"CREATE EXTENSION IF NOT EXISTS {name}")
            undo(f"DROP EXTENSION {name} CASCADE")
        else:
            run_sql(
                f"CREATE TYPE {name};"
                f"CREATE FUNCTION {name}_in(cstring) RETURNS {name} LANGUAGE internal IMMUTABLE STRICT AS 'textin';"
                f"CREATE FUNCTION {name}_out({name}) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';"
                f"CREATE TYPE {name} (INPUT = {name}_in, OUTPUT = {name}_out, LIKE = text)"
            )
            undo(f"DROP TYPE {name} CASCADE")
        _reload_types()

    undo("SELECT")
    return make


def _reload_types() -> None:
    """Have Django look up the types of extensions anew, as its migration operations do."""
    get_hstore_oids.cache_clear()
    get_citext_oids.cache_clear()
    connection.close()

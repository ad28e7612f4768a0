"""What the server has, as tests look at it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

from django_walsignals.replication.catalogue import Publication, PublishedTable, read_publication
from tests.streams import Stream


def execute(sql: str, params: Any = None) -> Any:
    """Run a statement as the application's role; return its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def publication(stream: Stream) -> Publication:
    """Read the stream's publication, which must be there."""
    with connection.cursor() as cursor:
        found = read_publication(cursor, f'Pub "{stream.name}"')
    assert found is not None
    return found


def published(stream: Stream, table: str) -> PublishedTable:
    """Read what the stream's publication has of a table."""
    (found,) = (member for member in publication(stream).tables.values() if member.table.name == table)
    return found


def identity(table: str) -> str:
    """Read a table's replica identity: d, f, i or n."""
    return str(execute("SELECT relreplident FROM pg_class WHERE oid = %s::regclass", [table])[0][0])


@contextmanager
def consumer_role(stream: Stream) -> Iterator[str]:
    """Name a role for a consumer, which the test makes; it goes with the block."""
    role = f"{stream.name}_role"
    try:
        yield role
    finally:
        if execute("SELECT FROM pg_roles WHERE rolname = %s", [role]):
            execute(f"DROP OWNED BY {role}")
            execute(f"DROP ROLE {role}")

"""The application's own messages: written into the WAL with a transaction, delivered to ``wal_message``'s receivers.

A message needs no table: it is in the WAL, in its place between the changes, and nowhere else.
"""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections

from django_walsignals.exceptions import ConfigurationError
from django_walsignals.metadata import OWN_PREFIX, is_reserved


def emit_message(
    prefix: str, content: str | bytes, *, transactional: bool = True, using: str = DEFAULT_DB_ALIAS
) -> None:
    """Write a message into the WAL, for the receivers of ``wal_message``.

    >>> with transaction.atomic():
    ...     order = Order.objects.create(…)
    ...     emit_message("shop.mail", json.dumps({"template": "thanks", "order": order.pk}))

    A transactional message is part of the transaction: it arrives if that commits, in its place among the changes. One
    that is not is there at once, even if the transaction is rolled back, and has no ``transaction``. Receivers get the
    content as bytes; a string is written in UTF-8.

    Raises ``ValueError`` for a prefix that is empty, holds a NUL or is this library's own (``walsignals`` and
    ``walsignals.…``), ``TypeError`` for a prefix or content of another type, and `ConfigurationError` for a database
    that is not PostgreSQL.
    """
    _check_prefix(prefix)
    if not isinstance(content, str | bytes):
        raise TypeError(f"A message's content is str or bytes, not {type(content).__name__}: json.dumps() it, perhaps.")
    connection = connections[using]
    if connection.vendor != "postgresql":
        raise ConfigurationError(f"Database {using!r} is {connection.vendor}: only PostgreSQL has a WAL for messages.")
    # true or false is in the statement's text, where the context's emitter reads it
    query = f"SELECT pg_catalog.pg_logical_emit_message({str(bool(transactional)).lower()}, %s::text, %s::bytea)"
    with connection.cursor() as cursor:
        cursor.execute(query, [prefix, content.encode() if isinstance(content, str) else content])


def _check_prefix(prefix: str) -> None:
    if not isinstance(prefix, str):
        raise TypeError(f"A message's prefix is str, not {type(prefix).__name__}.")
    if not prefix or "\0" in prefix:
        raise ValueError(f"{prefix!r} can't be a message's prefix: it must hold something, and no NUL.")
    if is_reserved(prefix):
        raise ValueError(
            f"{prefix!r} is reserved: {OWN_PREFIX} and {OWN_PREFIX}.… are django-walsignals' own prefixes."
        )

"""A batch's transaction, and one call of a receiver in it: what both ways of delivering have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any

import psycopg
from django.db import connections, transaction
from psycopg.pq import TransactionStatus

from django_walsignals.delivery.routing import Target
from django_walsignals.exceptions import ConnectionLost, DeliveryError, ReceiverError


def call(sent: Any, target: Target, using: str) -> None:
    """Call one receiver; raise `ReceiverError` where it raises, and `ConnectionLost` where that is why."""
    try:
        if target.when is None or target.when(sent):
            result = target.send(sent)
            if result is not None and isawaitable(result):
                raise TypeError("it returned something to be awaited: declare it with async def")
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # SystemExit and CancelledError are no reason for the consumer to end
        if is_lost(using):
            raise ConnectionLost(f"The database connection died under receiver {target.path}.") from exc
        raise ReceiverError(target.path, sent.id, exc) from exc


@contextmanager
def batch_transaction(using: str) -> Iterator[None]:
    """Run a batch's transaction, and Django's care for its end: commit hooks that raise are logged by Django.

    A hook that raises would otherwise take every later hook of the batch with it.
    """
    connection: Any = connections[using]
    with transaction.atomic(using=using, durable=True):
        yield
        connection.run_on_commit = [(ids, hook, True) for ids, hook, _robust in connection.run_on_commit]


def is_lost(using: str) -> bool:
    """Say whether the server ended the connection, as opposed to a receiver that closed it."""
    session: psycopg.Connection[Any] | None = connections[using].connection
    return session is not None and session.broken


def refuse_broken_transaction(using: str) -> None:
    """Raise `DeliveryError` where the transaction in hand can't commit: Django would leave it without a word."""
    session = connections[using].connection
    if session is None or session.closed:
        raise DeliveryError(
            "A receiver closed the database connection inside the batch's transaction (connection.close() and "
            "close_old_connections() do): its effects are lost. The batch was not counted as done."
        )
    if session.info.transaction_status == TransactionStatus.INERROR:
        raise DeliveryError(
            "A receiver swallowed a database error, so that the batch's transaction can't commit. Wrap statements "
            "that may fail in transaction.atomic() inside the receiver. The batch was rolled back."
        )

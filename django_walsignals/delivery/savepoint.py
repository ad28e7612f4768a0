"""One receiver's call in a savepoint of its own, and what COMMIT would refuse, found out before it.

Whatever a receiver does to the batch's transaction must be seen right after its call, while it is known whose doing
it was.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import Error, connections, transaction

from django_walsignals.delivery.dispatch import call, is_lost, refuse_broken_transaction
from django_walsignals.delivery.routing import Target
from django_walsignals.exceptions import ConnectionLost, DeliveryError, ReceiverError

_CHECK_NOW: Final = "SET CONSTRAINTS ALL IMMEDIATE"

_PROBE: Final = (
    "SAVEPOINT walsignals_probe",
    _CHECK_NOW,
    "ROLLBACK TO SAVEPOINT walsignals_probe",
    "RELEASE SAVEPOINT walsignals_probe",
)


def call_with_savepoint(sent: Any, target: Target, using: str) -> None:
    """Call a receiver in a savepoint of its own.

    Raises `ReceiverError` also where it swallowed a database error, closed the connection, or left something behind
    that a deferred constraint would refuse at COMMIT.
    """
    try:
        with transaction.atomic(using=using):
            call(sent, target, using)
            _refuse_closed(using)
            _probe_constraints(using)
    except (ReceiverError, ConnectionLost):
        raise
    except Exception as exc:
        if is_lost(using):
            raise ConnectionLost(f"The database connection died at receiver {target.path}.") from exc
        raise ReceiverError(target.path, sent.id, exc) from exc


def enforce_constraints(using: str) -> None:
    """Check what COMMIT would check, as the last thing before it; raise `DeliveryError` for what it would refuse.

    Django's foreign keys are deferred until COMMIT, whose failure could be put down to no receiver.
    https://www.postgresql.org/docs/current/sql-set-constraints.html
    """
    refuse_broken_transaction(using)
    try:
        with connections[using].cursor() as cursor:
            cursor.execute(_CHECK_NOW)
    except Error as exc:
        if is_lost(using):
            raise ConnectionLost("The database connection died before COMMIT.") from exc
        raise DeliveryError(f"The batch's transaction can't commit: {' '.join(str(exc).split())}") from exc


def _probe_constraints(using: str) -> None:
    """Check the deferred constraints, and leave them as deferred as they were, for the receivers that follow.

    Rolled back to a savepoint, PostgreSQL takes both the mode and the checks made as not having happened.
    """
    with connections[using].cursor() as cursor:
        for statement in _PROBE:
            cursor.execute(statement)


def is_usable(using: str) -> bool:
    """Say whether the transaction in hand can still be written in."""
    connection = connections[using]
    return connection.connection is not None and not connection.closed_in_transaction and not connection.needs_rollback


def _refuse_closed(using: str) -> None:
    """Raise where a receiver closed the connection under its own savepoint."""
    session = connections[using].connection
    if session is None or session.closed:
        raise RuntimeError("it closed the database connection that the batch's transaction runs on")

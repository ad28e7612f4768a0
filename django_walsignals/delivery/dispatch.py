"""Call the receivers of a batch and move the checkpoint, in one database transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, reset_queries, transaction

from django_walsignals.delivery.checkpoint import CheckpointKeeper
from django_walsignals.delivery.intake import Event
from django_walsignals.delivery.position import Position
from django_walsignals.exceptions import ReceiverError


def deliver(events: Sequence[Event], keeper: CheckpointKeeper, old: Position, new: Position, *, using: str) -> None:
    """Let a batch take effect, exactly once: its receivers and then the checkpoint, or nothing.

    Raises `ReceiverError` for what a receiver raised, and what the keeper raises; the transaction is then rolled back.
    Where COMMIT itself fails nobody can tell what it did: the next session reads the checkpoint again.
    """
    with transaction.atomic(using=using, durable=True):
        send(events)
        keeper.move(old, new)
        _isolate_commit_hooks(using)
    if connections[DEFAULT_DB_ALIAS].queries_logged:
        reset_queries()


def send(events: Sequence[Event]) -> None:
    """Call each receiver of each event, in order; the first that raises ends it with `ReceiverError`."""
    for sent, targets in events:
        for target in targets:
            try:
                if target.when is None or target.when(sent):
                    target.send(sent)
            except Exception as exc:
                raise ReceiverError(target.path, sent.id, exc) from exc


def _isolate_commit_hooks(using: str) -> None:
    """Make every ``on_commit`` hook robust: Django logs one that raises, and it takes no other of the batch with it."""
    connection: Any = connections[using]  # whose list is documented by its use in Django's TestCase
    connection.run_on_commit = [(ids, hook, True) for ids, hook, _robust in connection.run_on_commit]

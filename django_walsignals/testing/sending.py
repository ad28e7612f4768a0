"""Send one change to the receivers that want it, chosen by the consumer's own router."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, Final, NamedTuple, cast

from django.db import connections, models

from django_walsignals.binding.plan import TablePlan
from django_walsignals.binding.registry import TableRegistry
from django_walsignals.changes import WalChange
from django_walsignals.conf import get_stream
from django_walsignals.delivery.routing import Router, Target
from django_walsignals.protocol.messages import Relation

#: Of the one relation that a router here knows.
_RELATION_ID: Final = 0


class Call(NamedTuple):
    """A receiver that was called, by its dotted path, and what it returned."""

    receiver: str
    result: Any


def send_change(change: WalChange[Any]) -> list[Call]:
    """Call the connected receivers that want a change, in order, and return the calls.

    Who wants it is judged as ``walconsume`` does: by the sender, the stream, and the filters ``operations``,
    ``fields`` and ``when``. An ``async def`` receiver is run to its end. What a receiver raises comes through, and the
    receivers after it are not called. There is no transaction around it, no retry and no dead letter.

    >>> calls = send_change(make_change(Order(pk=1, status="paid"), old=Order(pk=1, status="new")))
    >>> [call.receiver for call in calls]
    ['shop.walsignals.status_changed']

    In an ``async def`` test: ``await sync_to_async(send_change)(change)``.
    """
    old, new = change.rows
    calls = [_call(change, target) for target in _targets(change) if target.wants(old, new)]
    return [call for call in calls if call is not None]


def _call(sent: WalChange[Any], target: Target) -> Call | None:
    """Call one receiver, unless its ``when`` says no."""
    if target.when is not None and not target.when(sent):
        return None
    result = target.send(sent)
    if isawaitable(result):
        raise TypeError(f"{target.path} returned something to be awaited: declare it with async def")
    return Call(target.path, result)


class _OneRouter(Router):
    """The consumer's router, with a binding that is there already."""

    def __init__(self, change: WalChange[Any]) -> None:
        registry = TableRegistry({_RELATION_ID: change.model}, {})
        super().__init__(get_stream(change.stream), registry, connections[change.using])
        self._binding = change.binding

    def _plan(self, relation: Relation, model: type[models.Model]) -> TablePlan[Any]:
        return cast("TablePlan[Any]", self._binding)  # of which a router asks no more than a FieldRows has


def _targets(change: WalChange[Any]) -> tuple[Target, ...]:
    router = _OneRouter(change)
    router.add(Relation(_RELATION_ID, change.table.schema, change.table.name, "f", ()))
    return router.route(_RELATION_ID).targets[change.operation]

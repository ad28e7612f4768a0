"""The decorators: the handler takes the change alone, stays as it is, and is held strongly."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_walsignals import on_change, on_delete, on_insert, on_update
from django_walsignals.changes import Operation, WalChange
from django_walsignals.signals import Connected, Filter, post_wal_change
from tests.testapp.models import Note

pytestmark = pytest.mark.usefixtures("no_receivers")

Decorator = Callable[..., Any]
BY_OPERATION = {"insert": on_insert, "update": on_update, "delete": on_delete}


def only() -> Connected:
    """Return the only receiver of a note's changes."""
    (connected,) = post_wal_change.receivers_for(Note, "default")
    return connected


@pytest.mark.parametrize("decorator", [on_change, *BY_OPERATION.values()])
def test_the_handler_stays_as_it_is(decorator: Decorator) -> None:
    def handler(change: WalChange[Note]) -> str:
        return "called"

    decorated = decorator(Note)(handler)
    assert decorated is handler
    assert only().handler is handler


@pytest.mark.parametrize("decorator", [on_change, *BY_OPERATION.values()])
def test_the_handler_is_held_strongly(decorator: Decorator) -> None:
    def define() -> None:
        @decorator(Note)
        def handler(change: WalChange[Note]) -> None: ...

    define()
    gc.collect()
    assert only().path == f"{__name__}.test_the_handler_is_held_strongly.<locals>.define.<locals>.handler"


def test_the_handler_takes_the_change_alone() -> None:
    taken: list[object] = []
    on_change(Note)(taken.append)
    post_wal_change.send(sender=Note, change="the change", instance="the instance", using="default")
    assert taken == ["the change"]


async def test_an_async_handler_takes_the_change_alone() -> None:
    taken: list[object] = []

    @on_change(Note)
    async def handler(change: WalChange[Note]) -> None:
        taken.append(change)

    assert only().is_async
    await post_wal_change.asend(sender=Note, change="the change", instance="the instance", using="default")
    assert taken == ["the change"]


async def test_a_handler_made_async_is_awaited() -> None:
    taken: list[object] = []
    on_change(Note)(sync_to_async(taken.append))
    assert only().is_async
    await post_wal_change.asend(sender=Note, change="the change", instance="the instance", using="default")
    assert taken == ["the change"]


def test_a_plain_handler_is_not_async() -> None:
    on_change(Note)(lambda change: None)
    assert not only().is_async


@pytest.mark.parametrize("operation", Operation)
def test_each_operation_has_its_decorator(operation: Operation) -> None:
    BY_OPERATION[operation](Note)(lambda change: None)
    assert only().filter == Filter(frozenset({operation}))


def test_on_change_hears_of_every_operation_unless_told_otherwise() -> None:
    on_change(Note)(lambda change: None)
    on_change(Note, operations=["insert", "delete"])(lambda change: None)
    assert [connected.filter.operations for connected in post_wal_change.receivers_for(Note, "default")] == [
        {"insert", "update", "delete"},
        {"insert", "delete"},
    ]


@pytest.mark.parametrize("decorator", [on_change, *BY_OPERATION.values()])
def test_the_filters_are_those_of_connect(decorator: Decorator) -> None:
    decorator(Note, fields=["text"], when=callable, stream="default")(lambda change: None)
    wanted = only().filter
    assert (wanted.fields, wanted.when, wanted.stream) == ({"text"}, callable, "default")


@pytest.mark.parametrize("decorator", [on_change, *BY_OPERATION.values()])
@pytest.mark.parametrize("model", ["testapp.Note", None])
def test_the_model_may_be_a_label_or_every_model(decorator: Decorator, model: str | None) -> None:
    decorator(model)(lambda change: None)
    assert only().handler is not None


def test_a_mistake_is_met_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="no column of its own for txet"):
        on_update(Note, fields=["txet"])(lambda change: None)


def test_a_decorator_on_one_operation_takes_no_other() -> None:
    with pytest.raises(TypeError, match="operations"):
        on_update(Note, operations=["insert"])  # type: ignore[call-overload]


def test_decorators_stack() -> None:
    @on_insert(Note)
    @on_delete("auth.User")
    def handler(change: WalChange[Any]) -> None: ...

    assert only().handler is handler
    assert len(post_wal_change.receivers) == 2


def test_a_dispatch_uid_connects_once_and_disconnects() -> None:
    for _ in range(2):
        on_update(Note, dispatch_uid="mine")(lambda change: None)
    assert only().filter.operations == {"update"}
    assert post_wal_change.disconnect(sender=Note, dispatch_uid="mine") is True
    assert post_wal_change.receivers == []


def test_under_debug_a_handler_needs_no_keywords(settings: Any) -> None:
    settings.DEBUG = True
    on_change(Note)(lambda change: None)
    assert only().handler is not None

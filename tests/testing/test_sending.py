"""A change reaches the receivers that the consumer would call."""

import pytest

from django_walsignals import on_change, on_delete, on_update, post_wal_change
from django_walsignals.testing import make_change, send_change
from tests.testapp.models import Note
from tests.testing.models import Coded

CREATED = make_change(Note(pk=1, text="a"))
UPDATED = make_change(Note(pk=1, text="b"), old=Note(pk=1, text="a"))
SAVED = make_change(Note(pk=1, text="b"), old=Note(pk=1, text="b"))


def names(change):
    return [call.receiver.rpartition(".")[2] for call in send_change(change)]


def test_receivers_are_called_in_order_with_the_signal_s_keywords():
    heard = []

    def first(sender, instance, change, **kwargs):
        heard.append((sender, instance.text, change, kwargs))
        return "done"

    @on_change(None)
    def second(change):
        heard.append(change)

    post_wal_change.connect(first, sender=Note)
    calls = send_change(CREATED)

    assert [call.result for call in calls] == [None, "done"]
    assert heard == [CREATED, (Note, "a", CREATED, {"signal": post_wal_change, "using": "default"})]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [True, True, True]),
        ({"operations": ["update"]}, [False, True, True]),
        ({"fields": ["text"]}, [True, True, False]),
        ({"when": lambda change: change.instance.text == "b"}, [False, True, True]),
        ({"stream": "default"}, [True, True, True]),
        ({"stream": "audit"}, [False, False, False]),
    ],
)
def test_filters_are_judged(filters, expected):
    post_wal_change.connect(lambda **kwargs: None, sender=Note, weak=False, **filters)

    assert [bool(send_change(change)) for change in (CREATED, UPDATED, SAVED)] == expected


def test_other_senders_and_operations_hear_nothing():
    on_change(Coded)(lambda change: None)
    on_delete(Note)(lambda change: None)

    assert send_change(CREATED) == []


def test_an_unknown_field_may_have_changed():
    on_update(Note, fields=["text"])(lambda change: None)

    assert send_change(make_change(Note(pk=1, text="b"), operation="update"))


def test_async_receivers_are_run():
    @on_change(Note)
    async def heard(change):
        return change.pk

    @post_wal_change.connect
    async def other(change, **kwargs): ...

    assert [call.result for call in send_change(CREATED)] == [1]


def test_a_receiver_s_exception_comes_through():
    after = []

    @on_change(Note)
    def fails(change):
        raise LookupError(change.pk)

    on_change(Note)(after.append)

    with pytest.raises(LookupError):
        send_change(CREATED)
    assert after == []


def test_a_receiver_that_forgot_to_be_async_is_refused():
    async def work(): ...

    works = []
    on_change(Note)(lambda change: works.append(work()) or works[0])

    with pytest.raises(TypeError, match="async def"):
        send_change(CREATED)
    works[0].close()


def test_receivers_are_named():
    @on_update(Note)
    def shipped(change): ...

    assert names(UPDATED) == ["shipped"]

"""Filters are judged on undecoded values: a change that nobody wants costs no decoding."""

from __future__ import annotations

from typing import Any

import pytest

from django_walsignals.changes import WalChange
from django_walsignals.receivers import on_change, on_update
from django_walsignals.signals import post_wal_change
from tests.binding.conftest import MakeTables, run_sql
from tests.binding.fields import CountedField
from tests.binding.models import Counted, Keyless
from tests.streams import Stream

pytestmark = pytest.mark.integration


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> type[CountedField]:
    monkeypatch.setattr(CountedField, "decoded", 0)
    return CountedField


@pytest.fixture
def undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make decoding a row of `Counted` an error."""
    monkeypatch.setattr(CountedField, "fails", True)


def write() -> None:
    """Insert a row, update each of its two columns, delete it, without decoding anything."""
    run_sql("INSERT INTO binding_counted (status, text) VALUES ('new', 'a')")
    run_sql("UPDATE binding_counted SET text = 'b'")
    run_sql("UPDATE binding_counted SET status = 'paid'")
    run_sql("UPDATE binding_counted SET status = status")
    run_sql("DELETE FROM binding_counted")


def hear(heard: list[WalChange[Any]], **filters: Any) -> None:
    """Connect a handler, which takes the change alone and reads nothing of it."""
    on_change(Counted, **filters)(heard.append)


@pytest.mark.usefixtures("undecodable")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["insert", "update", "update", "update", "delete"]),
        ({"operations": ["delete"]}, ["delete"]),
        ({"operations": []}, []),
        ({"fields": ["status"]}, ["insert", "update", "delete"]),
        ({"fields": ["status"], "operations": ["update"]}, ["update"]),
        ({"fields": ["pk"], "operations": ["update"]}, []),
        ({"fields": ["id", "text"], "operations": ["update"]}, ["update"]),
        ({"when": lambda change: change.has_changed("text")}, ["insert", "update", "delete"]),
        ({"when": lambda change: change.changed_fields == {"status"}}, ["update"]),
        ({"when": lambda change: False}, []),
        ({"stream": "default", "operations": ["insert"]}, ["insert"]),
        ({"stream": "another"}, []),
    ],
)
def test_no_filter_decodes_a_value(
    stream: Stream, tables: MakeTables, filters: dict[str, Any], expected: list[str]
) -> None:
    tables(Counted, Keyless)
    stream.configure(MODELS=["testapp.Counted", "testapp.Keyless"])
    heard: list[WalChange[Any]] = []
    hear(heard, **filters)
    stream.set_up()
    write()
    stream.consume()
    assert [change.operation for change in heard] == expected


@pytest.mark.usefixtures("undecodable")
def test_a_receiver_of_another_model_decodes_nothing(stream: Stream, tables: MakeTables) -> None:
    tables(Counted, Keyless)
    stream.configure(MODELS=["testapp.Counted", "testapp.Keyless"])
    stream.listen(Keyless)
    stream.set_up()
    write()
    Keyless.objects.create(code="x")
    assert stream.one().model is Keyless


@pytest.mark.usefixtures("undecodable")
def test_a_receiver_that_wants_an_instance_of_a_change_nobody_wants_costs_nothing(
    stream: Stream, tables: MakeTables
) -> None:
    """An ordinary receiver is given the instance, which is decoded; not so where its filter says no."""
    tables(Counted)
    stream.listen(Counted, fields=["status"], operations=["update"])
    stream.set_up()
    run_sql("INSERT INTO binding_counted (status, text) VALUES ('new', 'a')")
    run_sql("UPDATE binding_counted SET text = 'b'")
    run_sql("DELETE FROM binding_counted")
    assert stream.consume() == []


def test_a_row_is_decoded_once_for_all_its_receivers(
    stream: Stream, tables: MakeTables, decodings: type[CountedField]
) -> None:
    tables(Counted)
    instances = []

    def receive(*, instance: Counted, **kwargs: Any) -> None:
        instances.append(instance)

    for number in range(5):
        post_wal_change.connect(receive, sender=Counted, dispatch_uid=f"receiver {number}")
    stream.set_up()
    run_sql("INSERT INTO binding_counted (status, text) VALUES ('new', 'a')")
    stream.consume()
    assert len(instances) == 5 and len(set(map(id, instances))) == 1
    assert decodings.decoded == 1


def test_a_diff_decodes_what_differs_and_nothing_else(
    stream: Stream, tables: MakeTables, decodings: type[CountedField]
) -> None:
    tables(Counted)
    heard: list[WalChange[Any]] = []
    hear(heard, operations=["update"])
    stream.set_up()
    run_sql("INSERT INTO binding_counted (status, text) VALUES ('new', 'a')")
    run_sql("UPDATE binding_counted SET status = 'paid'")
    run_sql("UPDATE binding_counted SET text = 'b'")
    stream.consume()
    paid, texted = heard
    assert paid.diff["status"] == ("new", "paid") and paid.pk and repr(paid) and paid.changed_fields
    assert decodings.decoded == 0
    assert texted.diff["text"] == texted.diff["text"] == ("a", "b")
    assert decodings.decoded == 2


def test_when_is_asked_last_and_only_of_what_the_other_filters_let_through(
    stream: Stream, tables: MakeTables, decodings: type[CountedField]
) -> None:
    tables(Counted)
    asked = []
    heard: list[WalChange[Any]] = []

    def is_paid(change: WalChange[Counted]) -> bool:
        asked.append(change.operation)
        return change.instance.status == "paid"

    on_update(Counted, fields=["status"], when=is_paid)(heard.append)
    stream.set_up()
    write()
    stream.consume()
    assert asked == ["update"] and len(heard) == 1
    assert decodings.decoded == 1


def test_an_update_whose_old_values_are_unknown_passes_a_filter_by_fields(stream: Stream, tables: MakeTables) -> None:
    """It may have changed them: heard once too often is better than not at all."""
    tables(Counted)
    stream.configure(REPLICA_IDENTITY="keep")
    heard: list[WalChange[Any]] = []
    hear(heard, operations=["update"], fields=["status"])
    stream.set_up()
    write()
    stream.consume()
    assert len(heard) == 3


def test_a_filter_by_a_field_that_the_model_lacks_is_refused(stream: Stream) -> None:
    with pytest.raises(ValueError, match="no column of its own for nonsense"):
        stream.listen(Counted, fields=["nonsense"])

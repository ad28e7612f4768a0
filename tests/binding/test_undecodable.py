"""Values that PostgreSQL has and Python has not: the row arrives, that one field is unknown."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

import pytest
from django.db import DataError

from django_walsignals.changes import UNKNOWN, FieldDiff, WalChange
from django_walsignals.receivers import on_insert
from tests.binding import models as m
from tests.binding.comparing import shown
from tests.binding.conftest import MakeTables, run_sql
from tests.streams import Stream

pytestmark = pytest.mark.integration

UNREADABLE = {
    "date": ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"],
    "moment": ["infinity", "-infinity", "0044-03-15 12:00 BC", "294276-12-31 23:59:59.999999+00"],
    "time": ["24:00:00"],
    "duration": ["100000000 years"],
}
CASES = [pytest.param(field, value, id=f"{field} {value}") for field, values in UNREADABLE.items() for value in values]


@pytest.fixture
def listening(stream: Stream, tables: MakeTables) -> Stream:
    tables(m.Target, m.CoreFields, m.PostgresFields)
    stream.listen(m.CoreFields, m.PostgresFields)
    stream.set_up()
    return stream


@pytest.mark.parametrize(("field", "value"), CASES)
def test_what_the_orm_cannot_read_is_unknown_and_all_else_arrives(listening: Stream, field: str, value: str) -> None:
    run_sql(f"INSERT INTO binding_core ({field}, text, json) VALUES (%s, 'x', '[1]')", value)
    with pytest.raises(DataError):
        m.CoreFields.objects.get()
    readable = m.CoreFields.objects.defer(field).get()
    change = listening.one()
    assert change.unknown_fields == change.instance.get_deferred_fields() == {field}
    assert change.diff[field] == FieldDiff(None, UNKNOWN)
    assert change.diff["text"] == FieldDiff(None, "x") and change.diff["json"] == FieldDiff(None, [1])
    assert change.has_changed(field)
    assert change.pk == readable.pk
    names = {name.attname for name in m.CoreFields._meta.concrete_fields} - {field}
    assert {name: shown(getattr(change.instance, name)) for name in names} == {
        name: shown(getattr(readable, name)) for name in names
    }


def test_it_is_said_once_a_field(listening: Stream, caplog: pytest.LogCaptureFixture) -> None:
    run_sql("INSERT INTO binding_core (date, moment) SELECT 'infinity', '-infinity' FROM generate_series(1, 20)")
    with caplog.at_level(logging.WARNING, "django_walsignals"):
        for change in listening.consume():
            assert change.unknown_fields == {"date", "moment"}
            assert change.instance.get_deferred_fields() == {"date", "moment"}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "testapp.CoreFields.date" in said[0] and "testapp.CoreFields.moment" in said[1]
    assert "infinity" not in "".join(said), "a value is not for the log"


def test_an_update_to_and_from_such_a_value_is_a_difference(listening: Stream) -> None:
    run_sql("INSERT INTO binding_core (date) VALUES ('2024-01-02')")
    for value in ("infinity", "-infinity", "2024-01-03"):
        run_sql("UPDATE binding_core SET date = %s", value)
    run_sql("UPDATE binding_core SET text = 'x'")
    inserted, to, between, back, other = listening.consume()
    day = inserted.instance.date
    assert to.diff == {"date": FieldDiff(day, UNKNOWN)}
    assert between.diff == {"date": FieldDiff(UNKNOWN, UNKNOWN)} and between.changed_fields == {"date"}
    assert between.old.get_deferred_fields() == between.instance.get_deferred_fields() == {"date"}
    assert back.diff == {"date": FieldDiff(UNKNOWN, day.replace(day=3))} and back.instance.date == day.replace(day=3)
    assert other.changed_fields == {"text"}


def test_one_such_value_makes_a_whole_array_or_range_unknown(listening: Stream) -> None:
    run_sql(
        "INSERT INTO binding_postgres (dates, moments, date_range, moment_range, integers) VALUES "
        "('{2024-01-01,infinity}', '{-infinity}', '[2024-01-01,infinity)', '[-infinity,)', '{1}')"
    )
    change = listening.one()
    assert change.unknown_fields == {"dates", "moments", "date_range", "moment_range"}
    assert change.instance.integers == [1] and change.instance.decimals is None


def test_numbers_that_are_none_are_what_the_orm_reads(listening: Stream) -> None:
    run_sql("INSERT INTO binding_core (float, big) VALUES ('NaN', 1)")
    run_sql("ALTER TABLE binding_core ALTER COLUMN decimal TYPE numeric")
    run_sql("INSERT INTO binding_core (decimal) VALUES ('NaN'), ('Infinity'), ('-Infinity')")
    read = [shown(row.decimal) for row in m.CoreFields.objects.order_by("pk")]
    changes = listening.consume()
    assert [shown(change.instance.decimal) for change in changes] == read
    assert read[1] == shown(Decimal("NaN")) and read[3] == shown(Decimal("-Infinity"))
    assert shown(changes[0].instance.float) == shown(float("nan"))


def test_nan_that_stays_nan_is_no_difference(listening: Stream) -> None:
    run_sql("INSERT INTO binding_core (float, decimal) VALUES ('NaN', 'NaN')")
    run_sql("UPDATE binding_core SET text = 'x'")
    _, updated = listening.consume()
    assert updated.diff == {"text": FieldDiff(None, "x")}
    assert not updated.has_changed("float")


def test_a_key_that_cannot_be_read_is_unknown(stream: Stream, tables: MakeTables) -> None:
    tables(m.Measurement)
    stream.listen(m.Measurement)
    stream.set_up()
    run_sql("INSERT INTO binding_measurement (day, number, text) VALUES ('infinity', 1, 'x')")
    change = stream.one()
    assert change.pk is UNKNOWN
    assert change.unknown_fields == {"day"}
    assert (change.instance.number, change.instance.text) == (1, "x")
    assert "pk=UNKNOWN" in repr(change)


def test_a_handler_hears_of_such_a_row_and_reads_the_rest_of_it(listening: Stream) -> None:
    seen: list[tuple[str, Any]] = []

    @on_insert(m.CoreFields, when=lambda change: change.instance.text == "read")
    def hear(change: WalChange[m.CoreFields]) -> None:
        seen.append((change.instance.text, change.diff["moment"].new))

    run_sql("INSERT INTO binding_core (moment, text) VALUES ('infinity', 'read'), ('infinity', 'not')")
    listening.consume()
    assert seen == [("read", UNKNOWN)]

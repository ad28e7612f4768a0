"""Each field on the signal's instance is what `Model.objects.get()` gives, whatever its type."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from django.db.models import Model

from django_walsignals.changes import UNKNOWN, FieldDiff
from tests.binding import models as m
from tests.binding.comparing import assert_as_orm, shown
from tests.binding.conftest import MakeTables, run_sql
from tests.binding.fields import Money, Vector
from tests.streams import Stream

pytestmark = pytest.mark.integration

UTC = dt.UTC
NOON = dt.datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=UTC)

CORE_VALUES: dict[str, list[Any]] = {
    "binary": [b"\x00\xff'\\x00\\\n", b""],
    "boolean": [True, False],
    "char": ["Größe 🦀 'x' \\ \t\n", "", "NULL", "\\N"],
    "collated": ["ß"],
    "unlimited": ["x" * 300],
    "date": [dt.date(2024, 2, 29), dt.date.min, dt.date.max],
    "moment": [
        NOON,
        NOON.replace(microsecond=0),
        dt.datetime.min.replace(tzinfo=UTC),
        dt.datetime.max.replace(tzinfo=UTC),
    ],
    "decimal": [Decimal("12345678901234567890.0123456789"), Decimal("-0.5"), Decimal(0)],
    "duration": [dt.timedelta(days=-3, seconds=5, microseconds=7), dt.timedelta(0), dt.timedelta(days=99999, hours=-1)],
    "email": ["a@example.com"],
    "file": ["folder/å file.txt", ""],
    "file_path": ["/tmp/x y"],
    "float": [0.1, -0.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"), 0.1 + 0.2],
    "address": ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"],
    "address6": ["2001:db8::ff00:42:8329"],
    "integer": [0, -(2**31), 2**31 - 1],
    "big": [-(2**63), 2**63 - 1],
    "small": [-(2**15), 2**15 - 1],
    "positive": [2**31 - 1],
    "positive_big": [2**63 - 1],
    "positive_small": [2**15 - 1],
    "json": [{"a": [1, 2.5, None, "é\u2028", {"b": True}]}, [], {}, "text", "", 0, False, 10**40, 1.0],
    "slug": ["a-slug"],
    "text": ["", "line\r\nline\x01 \u00a0", "long ä" * 200_000],
    "time": [dt.time(23, 59, 59, 999999), dt.time(0)],
    "url": ["https://example.com/?q=1&r=é"],
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
    "foreign_id": ["käy"],
    "one_id": ["k'2"],
}

POSTGRES_VALUES: dict[str, list[Any]] = {
    "integers": [[1, None, -3], []],
    "nested": [[["a", 'b"{},\\'], ["", "NULL"]]],
    "decimals": [[Decimal("1.5000"), Decimal("-2.0000")]],
    "moments": [[NOON, NOON - dt.timedelta(days=100_000)]],
    "dates": [[dt.date(2024, 1, 2), None]],
    "uuids": [[uuid.UUID(int=7)]],
    "moneys": [[Money(Decimal("1.20"), "EUR")]],
    "documents": [[{"a": 1}, [2], "x"]],
    "sized": [[True, False, True]],
    "integer_range": [NumericRange(1, 5), NumericRange(None, 5), NumericRange(empty=True), NumericRange(1, 4, "[]")],
    "big_range": [NumericRange(-(2**40), 2**40)],
    "decimal_range": [NumericRange(Decimal("1.5"), Decimal("2.5"), "()"), NumericRange(None, None)],
    "date_range": [DateRange(dt.date(2024, 1, 1), dt.date(2024, 2, 1)), DateRange(dt.date(2024, 1, 1), None)],
    "moment_range": [DateTimeTZRange(NOON, NOON + dt.timedelta(hours=1)), DateTimeTZRange(None, NOON)],
    "ranges": [[DateTimeTZRange(NOON, None, "(]")]],
    "search": ["'cat':3 'fat':2A", ""],
}


def one_each(values: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Make a row of each value, all other fields NULL."""
    return [{name: value} for name, listed in values.items() for value in listed]


def arrive_as_read(stream: Stream, model: type[Model], *rows: dict[str, Any]) -> list[Model]:
    """Write rows, read them by the ORM, and compare what arrives; return what the ORM read."""
    keys = [model.objects.create(**row).pk for row in rows]
    expected = [model.objects.get(pk=key) for key in keys]
    values = [{field.attname: shown(row.__dict__[field.attname]) for field in own_fields(model)} for row in expected]
    changes = [change for change in stream.consume() if change.model is model]
    assert [shown(change.pk) for change in changes] == [shown(row.pk) for row in expected]
    for change, row, value in zip(changes, expected, values, strict=True):
        assert change.unknown_fields == frozenset()
        assert change.changed_fields == value.keys()
        assert {name: shown(diff.new) for name, diff in change.diff.items()} == value
        assert_as_orm(change.instance, row)
    return expected


def own_fields(model: type[Model]) -> list[Any]:
    return model._meta.local_concrete_fields


def has_values_for_all(values: dict[str, list[Any]], model: type[Model]) -> bool:
    return values.keys() == {field.attname for field in own_fields(model) if not field.primary_key}


def test_every_core_field_is_what_the_orm_reads(stream: Stream, tables: MakeTables) -> None:
    assert has_values_for_all(CORE_VALUES, m.CoreFields)
    tables(m.Target, m.CoreFields)
    stream.listen(m.CoreFields)
    stream.set_up()
    for key in ("käy", "k'2"):
        m.Target.objects.create(code=key)
    assert len(arrive_as_read(stream, m.CoreFields, *one_each(CORE_VALUES))) > 60


def test_every_field_of_contrib_postgres_is_what_the_orm_reads(stream: Stream, tables: MakeTables) -> None:
    assert has_values_for_all(POSTGRES_VALUES, m.PostgresFields)
    tables(m.PostgresFields)
    stream.listen(m.PostgresFields)
    stream.set_up()
    arrive_as_read(stream, m.PostgresFields, *one_each(POSTGRES_VALUES))


def test_hstore_and_case_insensitive_text_are_what_the_orm_reads(
    stream: Stream, tables: MakeTables, database_types: Callable[[str], None]
) -> None:
    database_types("hstore")
    database_types("citext")
    tables(m.ExtensionFields)
    stream.listen(m.ExtensionFields)
    stream.set_up()
    read = arrive_as_read(
        stream,
        m.ExtensionFields,
        {"pairs": {"a": "1", 'ä "b"=>': "", "null": None}, "pairs_list": [{"a": "b"}, {}], "folded": "ÄbC"},
        {"pairs": {}, "folded": "", "folded_list": ["A", "b"]},
        {},
    )
    assert read[0].pairs == {"a": "1", 'ä "b"=>': "", "null": None}  # the ORM reads a dict, and so did we


def test_fields_with_conversions_of_their_own_are_converted(stream: Stream, tables: MakeTables) -> None:
    tables(m.CustomFields)
    stream.listen(m.CustomFields)
    stream.set_up()
    read = arrive_as_read(
        stream,
        m.CustomFields,
        {"price": Money(Decimal("9.90"), "EUR"), "secret": "pässword", "exact": {"n": 0.1, "m": [1.25]}},
        {"secret": "", "exact": [1.5, "x", None], "vector": [1.0, 2.5, float("nan")]},
        {},
    )
    assert read[0].exact == {"n": Decimal("0.1"), "m": [Decimal("1.25")]}
    assert read[0].secret == "pässword"
    assert isinstance(read[1].vector, Vector)


def test_a_value_that_compares_in_odd_ways_is_never_compared(stream: Stream, tables: MakeTables) -> None:
    """Arrays of numpy, which pgvector's field gives, have no truth value when compared."""
    tables(m.CustomFields)
    stream.listen(m.CustomFields)
    stream.set_up()
    row = m.CustomFields.objects.create(vector=[1.0, 2.0])
    m.CustomFields.objects.update(vector=[1.0, 3.0])
    row.delete()
    inserted, updated, deleted = stream.consume()
    assert shown(inserted.instance.vector) == shown(Vector([1.0, 2.0]))
    assert {name: shown(value) for name, value in updated.diff.items()} == {
        "vector": shown(FieldDiff(Vector([1.0, 2.0]), Vector([1.0, 3.0])))
    }
    assert shown(deleted.old.vector) == shown(Vector([1.0, 3.0]))
    assert inserted.unknown_fields == updated.unknown_fields == deleted.unknown_fields == frozenset()


def test_a_converted_key_and_a_foreign_key_to_it_are_converted(stream: Stream, tables: MakeTables) -> None:
    tables(m.MoneyKey, m.MoneyReference)
    stream.listen(m.MoneyKey, m.MoneyReference)
    stream.set_up()
    price = Money(Decimal("1.00"), "CHF")
    target = m.MoneyKey.objects.create(price=price)
    reference = m.MoneyReference.objects.create(target=target)
    keyed, referring = stream.consume()
    assert shown(keyed.pk) == shown(price)
    assert_as_orm(keyed.instance, m.MoneyKey.objects.get())
    assert_as_orm(referring.instance, m.MoneyReference.objects.get(pk=reference.pk))
    assert shown(referring.instance.target.pk) == shown(price)


def test_domains_enums_and_composites_are_what_the_orm_reads(
    stream: Stream, tables: MakeTables, undo: Callable[[str], None]
) -> None:
    run_sql(
        "CREATE DOMAIN binding_count AS integer CHECK (VALUE >= 0); CREATE DOMAIN binding_amount AS numeric(12, 2);"
        "CREATE DOMAIN binding_moment AS timestamptz; CREATE TYPE binding_mood AS ENUM ('glad', 'öde');"
        "CREATE TYPE binding_pair AS (a integer, b text)"
    )
    undo("DROP DOMAIN binding_count, binding_amount, binding_moment; DROP TYPE binding_mood, binding_pair")
    tables(m.DomainFields)
    stream.listen(m.DomainFields)
    stream.set_up()
    run_sql(
        """INSERT INTO binding_domain (count, amount, at, mood, moods, counts, pair) VALUES
        (5, 1.50, '2024-05-06 07:08:09+02', 'öde', ARRAY['glad']::binding_mood[], ARRAY[1, 2]::binding_count[],
         ROW(1, 'x'))"""
    )
    assert_as_orm(stream.one().instance, m.DomainFields.objects.get())


@pytest.mark.parametrize("model", [m.BigKey, m.SmallKey, m.UUIDKey])
def test_a_key_of_any_kind_is_the_changes_pk(stream: Stream, tables: MakeTables, model: type[Model]) -> None:
    tables(model)
    stream.listen(model)
    stream.set_up()
    arrive_as_read(stream, model, {}, {})


def test_a_composite_key_is_a_tuple(stream: Stream, tables: MakeTables) -> None:
    tables(m.CompositeKey)
    stream.listen(m.CompositeKey)
    stream.set_up()
    row = m.CompositeKey.objects.create(tenant="å", number=1, text="a")
    read = m.CompositeKey.objects.get(pk=("å", 1))
    m.CompositeKey.objects.update(number=2)
    row.number = 2
    row.delete()
    inserted, updated, deleted = stream.consume()
    assert inserted.pk == inserted.instance.pk == ("å", 1)
    assert_as_orm(inserted.instance, read)
    assert updated.pk == ("å", 2) and updated.old.pk == ("å", 1)
    assert updated.has_changed("pk") and updated.has_changed("number") and not updated.has_changed("tenant")
    assert dict(updated.diff) == {"number": FieldDiff(1, 2)}
    assert deleted.pk == ("å", 2)


def test_names_that_need_quotes_a_schema_or_too_many_bytes_are_found(
    stream: Stream, tables: MakeTables, undo: Callable[[str], None]
) -> None:
    run_sql('CREATE SCHEMA "Odd Schema"')
    undo('DROP SCHEMA "Odd Schema" CASCADE')
    tables(m.OddNames)
    stream.listen(m.OddNames)
    stream.set_up()
    row = {"weird": "w", "größe": 1, "emoji": "e", "reserved": "r", "quoted": "q", "long": "l"}
    arrive_as_read(stream, m.OddNames, row)
    assert stream.changes[0].table == ("Odd Schema", "M Tāble")


def test_null_in_every_column_is_none_and_not_unknown(stream: Stream, tables: MakeTables) -> None:
    tables(m.Target, m.CoreFields, m.PostgresFields)
    stream.listen(m.CoreFields, m.PostgresFields)
    stream.set_up()
    run_sql("INSERT INTO binding_core DEFAULT VALUES; INSERT INTO binding_postgres DEFAULT VALUES")
    core, postgres = stream.consume()
    assert_as_orm(core.instance, m.CoreFields.objects.get())
    assert_as_orm(postgres.instance, m.PostgresFields.objects.get())
    for change in (core, postgres):
        assert {name for name, diff in change.diff.items() if diff.new is None} == change.diff.keys() - {"id"}
        assert change.unknown_fields == frozenset()


def test_an_update_from_and_to_null_and_the_empty_string_tells_them_apart(stream: Stream, tables: MakeTables) -> None:
    tables(m.Target, m.CoreFields)
    stream.listen(m.CoreFields)
    stream.set_up()
    row = m.CoreFields.objects.create(text=None)
    for value in ("", None, ""):
        m.CoreFields.objects.filter(pk=row.pk).update(text=value)
    _, *updates = stream.consume()
    assert [dict(change.diff) for change in updates] == [
        {"text": FieldDiff(None, "")},
        {"text": FieldDiff("", None)},
        {"text": FieldDiff(None, "")},
    ]


def test_a_value_of_ten_megabytes_arrives_whole(stream: Stream, tables: MakeTables) -> None:
    tables(m.Target, m.CoreFields)
    stream.listen(m.CoreFields)
    stream.set_up()
    arrive_as_read(stream, m.CoreFields, {"text": "ä" * 5_000_000, "binary": bytes(range(256)) * 40_000})


def test_a_row_written_by_the_database_alone_is_what_the_orm_reads(stream: Stream, tables: MakeTables) -> None:
    """Text that the ORM would never write: padded, of another scale, with another offset."""
    tables(m.Target, m.CoreFields)
    stream.listen(m.CoreFields)
    stream.set_up()
    run_sql(
        """INSERT INTO binding_core (moment, decimal, duration, json, address, float, time, uuid, text) VALUES
        ('2024-03-31 02:30:00 Europe/Berlin', 1e5, '1 year 2 mons -3 days 04:05:06.7', '{"a": 1.0,"a":2}',
         '10.0.0.0/8', '1e23', '04:05:06.7', '{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}', E'\\u2603')"""
    )
    assert_as_orm(stream.one().instance, m.CoreFields.objects.get())


def test_a_stored_generated_column_is_what_the_server_publishes_of_it(stream: Stream, tables: MakeTables) -> None:
    """From PostgreSQL 18 on that is its value; before, nothing: it is then unknown, and never a guess."""
    tables(m.StoredGenerated)
    stream.listen(m.StoredGenerated)
    stream.set_up()
    row = m.StoredGenerated.objects.create(name="ABC")
    m.StoredGenerated.objects.filter(pk=row.pk).update(name="XYZ")
    m.StoredGenerated.objects.filter(pk=row.pk).update(other=1)
    read = m.StoredGenerated.objects.get()
    m.StoredGenerated.objects.all().delete()
    inserted, renamed, updated, deleted = stream.consume()
    if connection.pg_version >= 180000:
        assert inserted.instance.lowered == "abc" and inserted.unknown_fields == frozenset()
        assert renamed.diff["lowered"] == FieldDiff("abc", "xyz")
        assert updated.changed_fields == {"other"}
        assert_as_orm(updated.instance, read)
        assert deleted.instance.lowered == "xyz"
    else:
        for change in (inserted, renamed, updated, deleted):
            assert change.unknown_fields == change.instance.get_deferred_fields() == {"lowered"}
            assert "lowered" not in change.diff
            assert change.has_changed("lowered"), "it may have"
        assert renamed.diff == {"name": FieldDiff("ABC", "XYZ")}


def test_a_generated_column_is_converted_by_its_output_field(stream: Stream, tables: MakeTables) -> None:
    tables(m.ConvertedGenerated)
    stream.listen(m.ConvertedGenerated)
    stream.set_up()
    m.ConvertedGenerated.objects.create(text="1.50 EUR")
    change = stream.one()
    if connection.pg_version >= 180000:
        assert_as_orm(change.instance, m.ConvertedGenerated.objects.get())
    else:
        assert change.unknown_fields == {"price"} and change.instance.text == "1.50 EUR"


def test_a_virtual_generated_column_is_unknown_and_breaks_no_write(stream: Stream, tables: MakeTables) -> None:
    if not hasattr(m, "VirtualGenerated") or connection.pg_version < 180000:
        pytest.skip("virtual generated columns need Django 6.0 and PostgreSQL 18")
    tables(m.VirtualGenerated)
    stream.listen(m.VirtualGenerated)
    stream.set_up()
    assert "keeps its replica identity" in stream.output.getvalue()
    row = m.VirtualGenerated.objects.create(number=2)
    m.VirtualGenerated.objects.filter(pk=row.pk).update(number=3)
    m.VirtualGenerated.objects.all().delete()
    inserted, updated, deleted = stream.consume()
    for change in (inserted, updated):
        assert change.unknown_fields == change.instance.get_deferred_fields() == {"double"}
    assert inserted.instance.number == 2
    assert updated.diff == {"number": FieldDiff(UNKNOWN, 3), "other": FieldDiff(UNKNOWN, 0)}
    assert deleted.pk == row.pk and deleted.unknown_fields == {"number", "double", "other"}

"""Whatever the ORM writes, the WAL says what the ORM reads; what an update changes, and nothing else, is the diff."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from django.db.models import Model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.binding import models as m
from tests.binding.comparing import shown
from tests.binding.conftest import MakeTables
from tests.binding.fields import Money
from tests.streams import Stream

pytestmark = pytest.mark.integration

#: Many rows an example, since each example costs one run of the command.
few_examples = settings(
    max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
moments = st.datetimes(
    dt.datetime(1, 1, 3),  # noqa: DTZ001  # the zone is added to it
    dt.datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)
decimals = st.decimals(-(10**15), 10**15, places=10, allow_nan=False)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def integers(bits: int, *, positive: bool = False) -> st.SearchStrategy[int]:
    return st.integers(0 if positive else -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def ranges(kind: Callable[..., Any], ends: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.tuples(st.none() | ends, st.none() | ends).map(
        lambda pair: pair if None in pair else tuple(sorted(pair))
    )
    bounds = st.sampled_from(["[)", "(]", "[]", "()"])
    return st.builds(lambda pair, bound: kind(*pair, bound), pairs, bounds) | st.just(kind(empty=True))


def arrays(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, max_size=5)


#: Of each field the values that its column takes; a range's ends stay clear of the type's, which "[]" would overstep.
CORE = {
    "binary": st.binary(max_size=40),
    "boolean": st.booleans(),
    "char": texts,
    "collated": texts,
    "unlimited": texts,
    "date": st.dates(),
    "moment": moments,
    "decimal": decimals,
    "duration": st.timedeltas(dt.timedelta(days=-(10**6)), dt.timedelta(days=10**6)),
    "float": st.floats(),
    "address": st.ip_addresses().map(str),
    "integer": integers(32),
    "big": integers(64),
    "small": integers(16),
    "positive": integers(32, positive=True),
    "positive_big": integers(64, positive=True),
    "positive_small": integers(16, positive=True),
    "json": documents,
    "text": texts | st.integers(2000, 30_000).map(lambda size: "Lä" * size),
    "time": st.times(),
    "uuid": st.uuids(),
}
POSTGRES = {
    "integers": arrays(st.none() | integers(32)),
    "nested": st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(texts.map(lambda text: text[:20]), min_size=width, max_size=width), max_size=3)
    ),
    "decimals": arrays(st.decimals(-(10**7), 10**7, places=4, allow_nan=False)),
    "moments": arrays(moments),
    "dates": arrays(st.none() | st.dates()),
    "uuids": arrays(st.uuids()),
    "moneys": arrays(st.builds(Money, st.decimals(-100, 100, places=2), st.sampled_from(["EUR", "CHF"]))),
    "documents": arrays(documents.filter(lambda value: value is not None)),
    "integer_range": ranges(NumericRange, st.integers(-(10**9), 10**9)),
    "big_range": ranges(NumericRange, st.integers(-(10**18), 10**18)),
    "decimal_range": ranges(NumericRange, decimals),
    "date_range": ranges(DateRange, st.dates(max_value=dt.date(9999, 12, 1))),
    "moment_range": ranges(DateTimeTZRange, moments),
    "ranges": arrays(ranges(DateTimeTZRange, moments)),
}


def rows(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Make rows of which any field may be NULL."""
    return st.fixed_dictionaries({name: st.none() | values for name, values in fields.items()})


def read(model: type[Model]) -> dict[int, dict[str, Any]]:
    """Read all rows by the ORM, and spell their fields."""
    return {row.pk: spelled(row) for row in model._base_manager.all()}


def spelled(row: Model) -> dict[str, Any]:
    return {field.attname: shown(row.__dict__[field.attname]) for field in row._meta.concrete_fields}


@pytest.fixture
def listening(stream: Stream, tables: MakeTables) -> Stream:
    tables(m.Target, m.CoreFields, m.PostgresFields)
    stream.listen(m.CoreFields, m.PostgresFields)
    stream.set_up()
    return stream


def assert_inserts_arrive(stream: Stream, model: type[Model], values: list[dict[str, Any]]) -> None:
    written = model._base_manager.bulk_create(model(**value) for value in values)
    expected = read(model)
    changes = stream.consume()
    assert [change.pk for change in changes] == [row.pk for row in written]
    for change in changes:
        assert change.unknown_fields == frozenset()
        assert spelled(change.instance) == expected[change.pk]
        assert {name: shown(diff.new) for name, diff in change.diff.items()} == expected[change.pk]
    model._base_manager.all().delete()
    deleted = stream.consume()
    assert {change.pk: spelled(change.instance) for change in deleted} == expected


@given(values=st.lists(rows(CORE), min_size=1, max_size=25))
@few_examples
def test_any_row_of_core_fields_arrives_as_the_orm_reads_it(listening: Stream, values: list[dict[str, Any]]) -> None:
    assert_inserts_arrive(listening, m.CoreFields, values)


@given(values=st.lists(rows(POSTGRES), min_size=1, max_size=25))
@few_examples
def test_any_row_of_contrib_postgres_fields_arrives_as_the_orm_reads_it(
    listening: Stream, values: list[dict[str, Any]]
) -> None:
    assert_inserts_arrive(listening, m.PostgresFields, values)


def assert_updates_arrive(stream: Stream, model: type[Model], pairs: list[tuple[dict[str, Any], ...]]) -> None:
    written = model._base_manager.bulk_create(model(**before) for before, _ in pairs)
    before = read(model)
    stream.consume()
    for row, (_, values) in zip(written, pairs, strict=True):
        model._base_manager.filter(pk=row.pk).update(**values)
    after = read(model)
    changes = stream.consume()
    assert [change.pk for change in changes] == [row.pk for row in written]
    for change in changes:
        old, new = before[change.pk], after[change.pk]
        differs = {name for name in new if old[name] != new[name]}
        assert change.changed_fields == change.diff.keys() == differs
        assert {name: tuple(map(shown, diff)) for name, diff in change.diff.items()} == {
            name: (old[name], new[name]) for name in differs
        }
        assert spelled(change.old) == old and spelled(change.instance) == new
        assert all(change.has_changed(name) is (name in differs) for name in new)


def some_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Make the values of an update, which sets some of the fields, maybe to what they are."""
    return st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in fields.items()}).filter(
        bool
    )


@given(pairs=st.lists(st.tuples(rows(CORE), some_of(CORE)), min_size=1, max_size=12))
@few_examples
def test_a_diff_of_core_fields_is_what_the_orm_sees_change(
    listening: Stream, pairs: list[tuple[dict[str, Any], ...]]
) -> None:
    assert_updates_arrive(listening, m.CoreFields, pairs)


@given(pairs=st.lists(st.tuples(rows(POSTGRES), some_of(POSTGRES)), min_size=1, max_size=12))
@few_examples
def test_a_diff_of_contrib_postgres_fields_is_what_the_orm_sees_change(
    listening: Stream, pairs: list[tuple[dict[str, Any], ...]]
) -> None:
    assert_updates_arrive(listening, m.PostgresFields, pairs)


def test_a_decimal_of_another_scale_is_a_difference_only_where_the_column_keeps_it(listening: Stream) -> None:
    row = m.CoreFields.objects.create(decimal=Decimal("1.5"))
    m.CoreFields.objects.filter(pk=row.pk).update(decimal=Decimal("1.50"))
    _, updated = listening.consume()
    assert updated.diff == {}

"""Times are what the ORM reads in the zone that the project has set, at the edges of the zone and of time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.utils import timezone

from tests.binding import models as m
from tests.binding.comparing import assert_as_orm
from tests.binding.conftest import MakeTables, run_sql
from tests.streams import Stream

pytestmark = pytest.mark.integration

#: Moments on both sides of each change of the clock in these zones, one long ago with an offset of seconds, and the
#: half hours and odd offsets of others.
MOMENTS = [
    "2024-03-31 00:59:59.999999+00",
    "2024-03-31 01:00:00+00",
    "2024-10-27 00:30:00+00",
    "2024-10-27 01:30:00+00",
    "2024-11-03 05:30:00+00",
    "2024-11-03 06:30:00+00",
    "2024-04-06 15:15:00+00",
    "1850-01-01 12:00:00+00",
    "0001-01-03 00:00:00+00",
    "9999-12-29 00:00:00+00",
]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Kiritimati"]


def use_database_zone(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """Set DATABASES' TIME_ZONE, as a settings file would."""
    monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", name)
    forget_zone()


def forget_zone() -> None:
    connection.close()
    for cached in ("timezone", "timezone_name"):
        connections[DEFAULT_DB_ALIAS].__dict__.pop(cached, None)


@pytest.fixture(autouse=True)
def zone_of_the_settings() -> Iterator[None]:
    yield
    forget_zone()


@pytest.fixture
def listening(stream: Stream, tables: MakeTables) -> Stream:
    tables(m.Target, m.CoreFields, m.PostgresFields)
    stream.listen(m.CoreFields, m.PostgresFields)
    stream.set_up()
    return stream


def assert_moments_are_what_the_orm_reads(stream: Stream, moments: list[str]) -> None:
    for moment in moments:
        run_sql("INSERT INTO binding_core (moment, date, time) VALUES (%s, '2024-03-31', '02:30')", moment)
        run_sql(
            "INSERT INTO binding_postgres (moments, moment_range) VALUES (ARRAY[%s]::timestamptz[], "
            "tstzrange(%s, NULL))",
            moment,
            moment,
        )
    changes = stream.consume()
    assert len(changes) == 2 * len(moments)
    for change in changes:
        assert_as_orm(change.instance, change.model._base_manager.get(pk=change.pk))


@pytest.mark.parametrize("zone", ZONES)
def test_aware_times_have_the_zone_of_the_database_setting(
    listening: Stream, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    use_database_zone(monkeypatch, zone)
    assert_moments_are_what_the_orm_reads(listening, MOMENTS)
    assert str(listening.changes[0].instance.moment.tzinfo) == zone


@pytest.mark.parametrize("zone", ZONES)
def test_naive_times_are_in_the_zone_of_the_project(listening: Stream, settings: Any, zone: str) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = zone
    forget_zone()
    assert_moments_are_what_the_orm_reads(listening, MOMENTS)
    assert listening.changes[0].instance.moment.tzinfo is None


def test_the_zone_in_force_while_consuming_is_of_no_consequence(listening: Stream) -> None:
    with timezone.override("Asia/Tokyo"):
        assert_moments_are_what_the_orm_reads(listening, MOMENTS)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_the_first_and_last_moments_that_python_knows_are_what_the_orm_reads(
    listening: Stream, settings: Any, zone: str
) -> None:
    """A row that is valid "for ever" has such an end, and without USE_TZ it is one of local time."""
    settings.USE_TZ = False
    settings.TIME_ZONE = zone
    forget_zone()
    for moment in (dt.datetime.max, dt.datetime.min + dt.timedelta(days=1)):  # noqa: DTZ901  # naive is the point
        m.CoreFields.objects.create(moment=moment)
        change = listening.one()
        assert_as_orm(change.instance, m.CoreFields.objects.get(pk=change.pk))
        assert change.instance.moment == moment


@pytest.mark.parametrize(
    ("zone", "moment"),
    [("America/New_York", "0001-01-01 00:00:00+00"), ("Asia/Tokyo", "9999-12-31 20:00:00+00")],
)
def test_a_moment_outside_the_years_of_its_zone_is_unknown_and_not_another_moment(
    listening: Stream, monkeypatch: pytest.MonkeyPatch, zone: str, moment: str
) -> None:
    use_database_zone(monkeypatch, zone)
    run_sql("INSERT INTO binding_core (moment) VALUES (%s)", moment)
    assert listening.one().unknown_fields == {"moment"}


def test_an_hour_that_comes_twice_keeps_its_fold_and_differs(
    listening: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_database_zone(monkeypatch, "Europe/Berlin")
    first = dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    row = m.CoreFields.objects.create(moment=first)
    row.moment = first.replace(fold=1)
    row.save()
    inserted, updated = listening.consume()
    assert inserted.instance.moment.fold == 0 and updated.instance.moment.fold == 1
    assert updated.changed_fields == {"moment"}
    assert_as_orm(updated.instance, m.CoreFields.objects.get())

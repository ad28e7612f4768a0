"""Which model a row belongs to: the one whose own table it is in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.db import connection

from django_walsignals.changes import UNKNOWN, FieldDiff
from django_walsignals.delivery.routing import Route, Router
from django_walsignals.signals import post_wal_change
from tests.binding import models as m
from tests.binding.comparing import assert_as_orm
from tests.binding.conftest import MakeTables, run_sql
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration

PARTITIONED = """
    CREATE TABLE binding_measurement (day date, number integer, text text, PRIMARY KEY (day, number))
        PARTITION BY RANGE (day);
    CREATE TABLE binding_measurement_1 PARTITION OF binding_measurement
        FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE binding_measurement_2 (text text, gone integer, number integer NOT NULL, day date NOT NULL);
    ALTER TABLE binding_measurement_2 DROP COLUMN gone;
    ALTER TABLE binding_measurement ATTACH PARTITION binding_measurement_2
        FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')
"""


def run_elsewhere(sql: str) -> None:
    """Run statements on a connection of their own, as another process would."""
    with psycopg.connect(autocommit=True, **elsewhere()) as other:
        other.execute(sql)


def elsewhere() -> dict[str, Any]:
    parameters = connection.get_connection_params()
    return {key: value for key, value in parameters.items() if key not in ("context", "cursor_factory")}


def test_rows_of_an_automatic_many_to_many_table_are_its_through_models(stream: Stream, tables: MakeTables) -> None:
    tables(m.Tag, m.Article)
    through = m.Article.tags.through
    stream.listen(through)
    stream.set_up()
    article = m.Article.objects.create()
    red, blue = m.Tag.objects.create(name="red"), m.Tag.objects.create(name="blue")
    article.tags.set([red, blue])
    article.tags.set([blue])
    article.tags.clear()
    changes = stream.consume()
    assert {change.model for change in changes} == {through}
    assert [(str(change.operation), change.instance.tag_id) for change in changes] == [
        ("insert", red.pk),
        ("insert", blue.pk),
        ("delete", red.pk),
        ("delete", blue.pk),
    ]
    assert changes[0].instance.article == article


def test_rows_of_an_explicit_through_table_are_its_models(stream: Stream, tables: MakeTables) -> None:
    tables(m.Tag, m.Article, m.Rating)
    stream.listen(m.Rating)
    stream.set_up()
    article, tag = m.Article.objects.create(), m.Tag.objects.create(name="x")
    article.rated.add(tag, through_defaults={"stars": 4})
    change = stream.one()
    assert_as_orm(change.instance, m.Rating.objects.get())
    assert change.instance.stars == 4


def test_parent_and_child_tables_are_changes_of_their_own(stream: Stream, tables: MakeTables) -> None:
    tables(m.Place, m.Restaurant)
    stream.listen(m.Place, m.Restaurant)
    stream.set_up()
    restaurant = m.Restaurant.objects.create(name="Ratskeller", stars=1)
    restaurant.stars = 2
    restaurant.save(update_fields=["stars"])
    key = restaurant.pk
    restaurant.delete()
    parent, child, updated, *deleted = stream.consume()
    assert (parent.model, child.model, updated.model) == (m.Place, m.Restaurant, m.Restaurant)
    assert type(parent.instance) is m.Place and parent.instance.name == "Ratskeller"
    assert child.pk == parent.pk == key
    assert child.unknown_fields == child.instance.get_deferred_fields() == {"id", "name"}
    assert child.instance.stars == 1 and child.instance.place_ptr_id == child.instance.pk == key
    assert child.diff.keys() == {"place_ptr_id", "stars"}
    assert updated.diff == {"stars": FieldDiff(1, 2)}
    assert [change.model for change in deleted] == [m.Restaurant, m.Place]
    assert deleted[0].pk == deleted[1].pk == key


def test_a_child_alone_can_be_listened_to(stream: Stream, tables: MakeTables) -> None:
    tables(m.Place, m.Restaurant)
    stream.listen(m.Restaurant)
    stream.set_up()
    restaurant = m.Restaurant.objects.create(name="x", stars=1)
    m.Place.objects.update(name="y")
    change = stream.one()
    assert change.model is m.Restaurant
    assert change.instance.place_ptr == m.Place.objects.get(pk=restaurant.pk), "its parent is a relation like any other"


def test_a_receiver_of_a_proxy_hears_of_its_tables_changes(stream: Stream, tables: MakeTables) -> None:
    tables(m.Place)
    stream.listen(m.NamedPlace)
    stream.set_up()
    m.NamedPlace.objects.create(name="x")
    change = stream.one()
    assert change.model is m.Place and type(change.instance) is m.Place


def test_two_apps_and_a_receiver_of_every_model_keep_commit_order(stream: Stream, tables: MakeTables) -> None:
    tables(m.Tag)
    stream.configure(MODELS=["testapp.Note", "auth.Group", "testapp.Tag"])
    senders = []

    def receive(sender: type, **kwargs: Any) -> None:
        senders.append(sender)

    post_wal_change.connect(receive)
    stream.set_up()
    Note.objects.create()
    Group.objects.create(name="g")
    m.Tag.objects.create(name="t")
    Note.objects.update(text="x")
    stream.consume()
    assert senders == [Note, Group, m.Tag, Note]


def test_a_partitioned_tables_rows_come_under_its_root(stream: Stream, undo: Callable[[str], None]) -> None:
    run_sql(PARTITIONED)
    undo("DROP TABLE binding_measurement CASCADE")
    stream.listen(m.Measurement)
    stream.set_up()
    identities = run_sql("SELECT relreplident FROM pg_class WHERE relname LIKE 'binding_measurement__'")
    assert identities == [("f",), ("f",)], "each partition has an identity of its own"
    run_sql("INSERT INTO binding_measurement VALUES ('2024-01-05', 1, 'a'), ('2024-02-05', 2, 'b')")
    read = [m.Measurement.objects.get(number=1), m.Measurement.objects.get(number=2)]
    run_sql("UPDATE binding_measurement SET text = 'c'")
    run_sql("UPDATE binding_measurement SET day = '2024-02-06' WHERE number = 1")
    run_sql("DELETE FROM binding_measurement WHERE number = 2")
    first, second, updated, also, left, came, deleted = stream.consume()
    assert_as_orm(first.instance, read[0])
    assert_as_orm(second.instance, read[1])
    assert {change.table for change in stream.changes} == {("public", "binding_measurement")}
    assert updated.diff == {"text": FieldDiff("a", "c")} and also.diff == {"text": FieldDiff("b", "c")}
    assert (left.operation, came.operation) == ("delete", "insert"), "from one partition to another"
    assert left.pk == (first.instance.day, 1) and left.instance.text == "c"
    assert_as_orm(came.instance, m.Measurement.objects.get())
    assert deleted.pk == second.pk and deleted.instance.text == "c"


def test_a_partition_that_came_later_brings_whole_new_rows_and_keys_of_old_ones(
    stream: Stream, undo: Callable[[str], None]
) -> None:
    run_sql(PARTITIONED)
    undo("DROP TABLE binding_measurement CASCADE")
    stream.listen(m.Measurement)
    stream.set_up()
    run_sql(
        "CREATE TABLE binding_measurement_3 PARTITION OF binding_measurement FOR VALUES FROM ('2024-03-01') TO "
        "('2024-04-01')"
    )
    run_sql("INSERT INTO binding_measurement VALUES ('2024-03-05', 1, NULL)")
    run_sql("UPDATE binding_measurement SET text = 'b'")
    run_sql("UPDATE binding_measurement SET number = 2")
    run_sql("DELETE FROM binding_measurement")
    inserted, updated, moved, deleted = stream.consume()
    day = inserted.instance.day
    assert inserted.instance.text is None and inserted.unknown_fields == frozenset()
    assert updated.instance.text == "b" and updated.diff["text"] == FieldDiff(UNKNOWN, "b")
    assert moved.diff == {"number": FieldDiff(1, 2), "text": FieldDiff(UNKNOWN, "b")} and moved.old.pk == (day, 1)
    assert deleted.pk == (day, 2)
    assert deleted.unknown_fields == {"text"}, "the text was 'b', and the WAL has not kept it"
    stream.consume()
    assert "set REPLICA IDENTITY FULL on public.binding_measurement_3" in stream.output.getvalue(), "at the next start"


def test_a_long_value_in_a_partition_that_came_later_is_unknown_and_not_null(
    stream: Stream, undo: Callable[[str], None]
) -> None:
    run_sql(PARTITIONED)
    undo("DROP TABLE binding_measurement CASCADE")
    stream.listen(m.Measurement)
    stream.set_up()
    run_sql(
        "CREATE TABLE binding_measurement_3 PARTITION OF binding_measurement FOR VALUES FROM ('2024-03-01') TO "
        "('2024-04-01'); ALTER TABLE binding_measurement_3 ALTER COLUMN text SET STORAGE EXTERNAL"
    )
    run_sql("INSERT INTO binding_measurement VALUES ('2024-03-05', 1, repeat('x', 20000))")
    run_sql("UPDATE binding_measurement SET number = 2")
    _, moved = stream.consume()
    assert moved.diff == {"number": FieldDiff(1, 2)}, "what is not in the WAL did not change"
    assert moved.unknown_fields == moved.instance.get_deferred_fields() == {"text"}


def test_a_partition_with_a_model_of_its_own_is_that_models_where_it_is_published_alone(
    stream: Stream, undo: Callable[[str], None]
) -> None:
    run_sql(PARTITIONED)
    undo("DROP TABLE binding_measurement CASCADE")
    stream.listen(m.January)
    stream.set_up()
    run_sql("INSERT INTO binding_measurement VALUES ('2024-01-05', 1, 'a'), ('2024-02-05', 2, 'b')")
    change = stream.one()
    assert change.model is m.January and change.table.name == "binding_measurement_1"
    assert_as_orm(change.instance, m.January.objects.get())


def test_a_table_that_is_renamed_while_streaming_stays_its_models(stream: Stream, tables: MakeTables) -> None:
    tables(m.Tag)
    names = []

    def receive(change: Any, **kwargs: Any) -> None:
        names.append((change.table.name, change.instance.name))
        if len(names) == 1:
            run_elsewhere(
                "ALTER TABLE binding_tag RENAME TO binding_label; INSERT INTO binding_label (name) VALUES ('after')"
            )
        elif len(names) == 2:
            run_elsewhere("ALTER TABLE binding_label RENAME TO binding_tag")
            run_elsewhere("INSERT INTO binding_tag (name) VALUES ('back')")

    post_wal_change.connect(receive, sender=m.Tag)
    stream.set_up()
    m.Tag.objects.create(name="before")
    stream.consume(until_lsn=None, max_changes=3)
    assert names == [("binding_tag", "before"), ("binding_label", "after"), ("binding_tag", "back")]


def test_changes_from_before_a_rename_are_its_models_after_a_restart(
    stream: Stream, tables: MakeTables, undo: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables(m.Tag)
    undo("DROP TABLE IF EXISTS binding_label CASCADE")
    stream.listen(m.Tag)
    stream.set_up()
    run_sql("INSERT INTO binding_tag (name) VALUES ('before')")
    run_sql("ALTER TABLE binding_tag RENAME TO binding_label")
    run_sql("INSERT INTO binding_label (name) VALUES ('after')")
    with monkeypatch.context() as deployed:
        deployed.setattr(m.Tag._meta, "db_table", "binding_label")
        before, after = stream.consume()
    assert [before.table.name, after.table.name] == ["binding_tag", "binding_label"]
    assert [before.instance.name, after.instance.name] == ["before", "after"]


def test_a_table_without_a_model_is_named_once_and_its_rows_are_counted(
    stream: Stream,
    tables: MakeTables,
    undo: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routers = set()

    def count(router: Router, route: Route, count: Callable[..., None] = Router.count_unmapped) -> None:
        routers.add(router)
        count(router, route)

    monkeypatch.setattr(Router, "count_unmapped", count)
    tables(m.Tag)
    stream.listen(m.Tag)
    stream.set_up()
    run_sql('CREATE TABLE "No model" (id serial PRIMARY KEY)')
    undo('DROP TABLE "No model"')
    run_sql(f'ALTER PUBLICATION "Pub ""{stream.name}""" ADD TABLE "No model"')
    run_sql('INSERT INTO "No model" SELECT FROM generate_series(1, 5)')
    m.Tag.objects.create(name="x")
    run_sql('UPDATE "No model" SET id = -id; TRUNCATE "No model"')
    with caplog.at_level(logging.INFO):
        changes = stream.consume(no_setup=True, verbosity=2)
    assert [change.model for change in changes] == [m.Tag]
    counted = [router.unmapped for router in routers]
    assert counted == [{"public.No model": 11}], "five inserts, five updates, one TRUNCATE"
    said = [record.getMessage() for record in caplog.records if "No model" in record.getMessage()]
    assert len(said) == 1 and "public.No model" in said[0]


def test_the_search_path_decides_between_tables_of_one_name(
    stream: Stream, tables: MakeTables, undo: Callable[[str], None]
) -> None:
    tables(m.Tag)
    run_sql("CREATE SCHEMA tenant; CREATE TABLE tenant.binding_tag (LIKE public.binding_tag INCLUDING ALL)")
    undo("DROP SCHEMA tenant CASCADE; DROP TABLE public.binding_tag CASCADE")
    database = connection.ops.quote_name(connection.settings_dict["NAME"])
    run_sql(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET search_path = tenant, public")
    undo(f"ALTER ROLE CURRENT_USER IN DATABASE {database} RESET search_path")
    connection.close()
    stream.listen(m.Tag)
    stream.set_up()
    run_sql(f'ALTER PUBLICATION "Pub ""{stream.name}""" ADD TABLE public.binding_tag')
    run_sql("INSERT INTO public.binding_tag (name) VALUES ('public')")
    m.Tag.objects.create(name="tenant")
    changes = stream.consume(no_setup=True)
    assert [(change.table.schema, change.instance.name) for change in changes] == [("tenant", "tenant")]


def test_a_table_that_was_made_anew_under_its_name_is_its_models(stream: Stream, tables: MakeTables) -> None:
    """The relation in the WAL has another OID than the table has today: the name tells whose it is."""
    tables(m.Tag)
    stream.listen(m.Tag)
    stream.set_up()
    m.Tag.objects.create(name="old")
    with connection.schema_editor() as editor:
        editor.execute("ALTER TABLE binding_tag RENAME TO binding_tag_old")
        editor.create_model(m.Tag)
    run_sql("DROP TABLE binding_tag_old CASCADE")
    run_sql(f'ALTER PUBLICATION "Pub ""{stream.name}""" ADD TABLE binding_tag')
    m.Tag.objects.create(name="new")
    changes = stream.consume(accept_gap=True)
    assert [change.instance.name for change in changes] == ["old", "new"]


def test_a_model_named_by_a_string_is_listened_to(stream: Stream, tables: MakeTables) -> None:
    tables(m.Tag)
    stream.listen("testapp.Tag")
    stream.set_up()
    m.Tag.objects.create(name="x")
    assert stream.one().model is m.Tag

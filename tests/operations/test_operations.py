"""Migration operations: what they run, that it can be undone, and what they refuse before PostgreSQL would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import ConnectionHandler, ProgrammingError, connection, migrations, models
from django.db.migrations.operations.base import Operation
from django.db.migrations.optimizer import MigrationOptimizer
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter

from django_walsignals.conf import get_stream
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.operations import AlterPublication, CreatePublication, SetReplicaIdentity
from django_walsignals.provisioning.setup import StreamSetUp, require_server
from django_walsignals.replication.catalogue import Publication, read_publication
from tests.binding import models as m
from tests.binding.conftest import MakeTables, run_sql
from tests.streams import Stream

NAME = 'Pub "of" 100%s'


@pytest.fixture
def server(transactional_db: None) -> Iterator[None]:
    """Give a server that has no publications and default identities, and is left so."""
    reset = "ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT; ALTER TABLE auth_user REPLICA IDENTITY DEFAULT"
    run_sql(reset)
    yield
    for (name,) in run_sql("SELECT quote_ident(pubname) FROM pg_publication"):
        run_sql(f"DROP PUBLICATION {name}")
    run_sql(reset)


def apply(*operations: Operation, app_label: str = "testapp", backwards: bool = False) -> None:
    """Run operations as one migration does, in one transaction."""
    state = ProjectState.from_apps(apps)
    with connection.schema_editor(atomic=True) as editor:
        for operation in operations:
            run = operation.database_backwards if backwards else operation.database_forwards
            run(app_label, editor, state, state)


def undo_all(*operations: Operation) -> None:
    apply(*operations, backwards=True)


def publication(name: str = NAME) -> Publication | None:
    with connection.cursor() as cursor:
        return read_publication(cursor, name)


def published(name: str = NAME) -> set[str]:
    found = publication(name)
    assert found is not None
    return {str(table.table) for table in found.tables.values()}


def identity(table: str) -> str:
    return str(run_sql("SELECT relreplident FROM pg_class WHERE oid = %s::regclass", table)[0][0])


@pytest.mark.integration
@pytest.mark.usefixtures("server")
class TestSetReplicaIdentity:
    def test_it_is_set_and_undone(self) -> None:
        operation = SetReplicaIdentity("Note")
        apply(operation)
        assert identity("testapp_note") == "f"
        undo_all(operation)
        assert identity("testapp_note") == "d"

    def test_what_was_there_before_comes_back(self) -> None:
        apply(SetReplicaIdentity("note", "nothing"))
        assert identity("testapp_note") == "n"
        operation = SetReplicaIdentity("note", "FULL", previous="nothing")
        apply(operation)
        assert identity("testapp_note") == "f"
        undo_all(operation)
        assert identity("testapp_note") == "n"

    def test_an_index_can_be_it(self, tables: MakeTables) -> None:
        tables(m.Keyless)
        run_sql('CREATE UNIQUE INDEX "Odd ""Code""" ON binding_identity (code)')
        apply(SetReplicaIdentity("Keyless", 'Odd "Code"'))
        assert identity("binding_identity") == "i"

    def test_a_name_in_quotes_and_with_a_schema(self, tables: MakeTables, undo: Callable[[str], None]) -> None:
        run_sql('CREATE SCHEMA "Odd Schema"')
        undo('DROP SCHEMA "Odd Schema" CASCADE')
        tables(m.OddNames)
        apply(SetReplicaIdentity("OddNames"), CreatePublication(NAME, ["OddNames"]))
        assert identity('"Odd Schema"."M Tāble"') == "f"
        assert published() == {"Odd Schema.M Tāble"}

    def test_partitions_are_set_with_their_root(self, undo: Callable[[str], None]) -> None:
        make_partitions(undo)
        apply(SetReplicaIdentity("Measurement"))
        assert identity("binding_measurement") == identity('"Odd ""p"""') == "f"
        undo_all(SetReplicaIdentity("Measurement"))
        assert identity("binding_measurement") == identity('"Odd ""p"""') == "d"

    def test_an_index_of_a_partitioned_table_is_not_its_partitions(self, undo: Callable[[str], None]) -> None:
        make_partitions(undo)
        apply(SetReplicaIdentity("Measurement", "binding_measurement_pkey"))
        assert (identity("binding_measurement"), identity('"Odd ""p"""')) == ("i", "d")

    def test_it_goes_with_the_transaction(self) -> None:
        with pytest.raises(ConfigurationError):
            apply(SetReplicaIdentity("Note"), CreatePublication(NAME, ["Note"]), SetReplicaIdentity("Nota"))
        assert identity("testapp_note") == "d"
        assert publication() is None


def make_partitions(undo: Callable[[str], None]) -> None:
    run_sql(
        "CREATE TABLE binding_measurement (day date, number int, text text, PRIMARY KEY (day, number)) "
        'PARTITION BY RANGE (day); CREATE TABLE "Odd ""p""" PARTITION OF binding_measurement DEFAULT'
    )
    undo("DROP TABLE binding_measurement")


@pytest.mark.integration
@pytest.mark.usefixtures("server")
class TestPublication:
    def test_it_has_what_a_stream_needs(self) -> None:
        apply(CreatePublication(NAME, ["Note", "auth.User"]))
        assert published() == {"public.testapp_note", "public.auth_user"}
        found = publication()
        assert found is not None and found.has_every_operation and found.via_root
        assert found.generated_columns == (connection.pg_version >= 180000)

    def test_undone_it_is_gone(self) -> None:
        operation = CreatePublication(NAME, ["Note"])
        apply(operation)
        undo_all(operation)
        assert publication() is None

    def test_models_come_and_go_and_back(self) -> None:
        apply(CreatePublication(NAME, ["Note"]))
        operation = AlterPublication(NAME, add=["auth.User", "auth.Group"], drop=["Note"])
        apply(operation)
        assert published() == {"public.auth_user", "public.auth_group"}
        undo_all(operation)
        assert published() == {"public.testapp_note"}

    def test_a_many_to_many_table_and_a_proxy_are_models_too(self, tables: MakeTables) -> None:
        tables(m.Place)
        apply(CreatePublication(NAME, ["auth.user_groups", "NamedPlace"]))
        assert published() == {"public.auth_user_groups", "public.binding_place"}

    def test_a_table_that_inherits_in_the_database_is_left_out(self, undo: Callable[[str], None]) -> None:
        run_sql("CREATE TABLE older () INHERITS (testapp_note)")
        undo("DROP TABLE older")
        apply(CreatePublication(NAME, ["Note"]))
        assert published() == {"public.testapp_note"}

    def test_one_that_is_there_is_not_taken_over(self) -> None:
        apply(CreatePublication(NAME, ["Note"]))
        with pytest.raises(ProgrammingError, match="already exists"):
            apply(CreatePublication(NAME, ["Note"]))


@pytest.mark.integration
@pytest.mark.usefixtures("server")
def test_a_stream_finds_nothing_left_to_do_but_its_slot(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note", "auth.User"])
    name = get_stream().publication
    apply(*(SetReplicaIdentity(label) for label in ("testapp.Note", "auth.User")))
    apply(CreatePublication(name, ["Note"]), AlterPublication(name, add=["auth.User"]))
    set_up = StreamSetUp(get_stream(), require_server(connection), lambda line: None)
    assert set_up.plan().steps == []


class Router:
    """Lets one model migrate."""

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        return model_name == "note"


@pytest.mark.integration
@pytest.mark.usefixtures("server")
class TestWhere:
    def test_a_router_decides_for_each_model(self, settings: Any) -> None:
        settings.DATABASE_ROUTERS = ["tests.operations.test_operations.Router"]
        operations = [
            SetReplicaIdentity("auth.User"),
            CreatePublication(NAME, ["Note", "auth.User"]),
            AlterPublication(NAME, add=["auth.Group"]),
        ]
        apply(*operations)
        assert identity("auth_user") == "d"
        assert published() == {"public.testapp_note"}
        undo_all(*reversed(operations))
        assert publication() is None

    def test_nothing_is_made_where_none_of_the_models_is(self, settings: Any) -> None:
        settings.DATABASE_ROUTERS = ["tests.operations.test_operations.Router"]
        operation = CreatePublication(NAME, ["auth.User"])
        apply(operation)
        assert publication() is None
        undo_all(operation)

    def test_a_model_that_django_does_not_manage_is_somebodys_all_the_same(self, tables: MakeTables) -> None:
        tables(m.Tag)
        assert not m.Tag._meta.managed
        apply(SetReplicaIdentity("Tag"))
        assert identity("binding_tag") == "f"


@pytest.mark.django_db
@pytest.mark.integration
def test_another_database_is_left_alone(tmp_path: Path) -> None:
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3")}
    other = ConnectionHandler({"default": engine})["default"]
    state = ProjectState.from_apps(apps)
    with other.schema_editor(collect_sql=True) as editor:
        for operation in (
            SetReplicaIdentity("Note"),
            CreatePublication(NAME, ["Note"]),
            AlterPublication(NAME, add=["auth.User"]),
        ):
            operation.database_forwards("testapp", editor, state, state)
            operation.database_backwards("testapp", editor, state, state)
    other.close()
    assert editor.collected_sql == []


@pytest.mark.integration
@pytest.mark.usefixtures("server")
class TestRefusals:
    """Whatever PostgreSQL accepts and then makes the application's writes fail for is refused, and leaves nothing."""

    def refused(self, *operations: Operation, message: str, backwards: bool = False) -> None:
        before = run_sql("SELECT oid, relreplident FROM pg_class ORDER BY 1"), run_sql("TABLE pg_publication_rel")
        with pytest.raises(ConfigurationError, match=message) as refusal:
            apply(*operations, backwards=backwards)
        assert "\n" not in str(refusal.value)
        after = run_sql("SELECT oid, relreplident FROM pg_class ORDER BY 1"), run_sql("TABLE pg_publication_rel")
        assert after == before

    @pytest.mark.parametrize("label", ["Nota", "auth.Nota", "nowhere.Note"])
    def test_a_model_that_there_is_not(self, label: str) -> None:
        self.refused(CreatePublication(NAME, [label]), message="There is no model .* add the migration that creates")

    def test_a_table_that_there_is_not(self) -> None:
        self.refused(SetReplicaIdentity("Tag"), message=r"no table binding_tag \(testapp\.Tag\)")

    def test_our_own_tables(self) -> None:
        self.refused(CreatePublication(NAME, ["walsignals.Checkpoint"]), message="walsignals.Checkpoint can't be")

    def test_an_unlogged_table(self, undo: Callable[[str], None]) -> None:
        run_sql("CREATE UNLOGGED TABLE binding_tag (id bigint PRIMARY KEY, name text)")
        undo("DROP TABLE binding_tag")
        self.refused(CreatePublication(NAME, ["Tag"]), message="UNLOGGED")

    def test_publishing_a_table_without_identity(self) -> None:
        nothing = SetReplicaIdentity("Note", "nothing")
        self.refused(nothing, CreatePublication(NAME, ["Note"]), message="SetReplicaIdentity")
        apply(CreatePublication(NAME, ["auth.User"]))
        self.refused(nothing, AlterPublication(NAME, add=["Note"]), message="it has no replica identity")

    def test_taking_the_identity_from_a_table_that_is_published(self) -> None:
        apply(CreatePublication(NAME, ["Note"]))
        self.refused(SetReplicaIdentity("Note", "nothing"), message='NOTHING on public.testapp_note .*Pub "of" 100%s')

    def test_a_default_that_is_none_for_want_of_a_key(self, undo: Callable[[str], None]) -> None:
        run_sql("CREATE TABLE binding_tag (id bigint, name text); ALTER TABLE binding_tag REPLICA IDENTITY FULL")
        undo("DROP TABLE binding_tag")
        apply(CreatePublication(NAME, ["Tag"]))
        self.refused(SetReplicaIdentity("Tag"), message="DEFAULT on public.binding_tag", backwards=True)

    def test_full_under_a_column_list(self) -> None:
        run_sql("CREATE PUBLICATION other FOR TABLE testapp_note (id)")
        self.refused(SetReplicaIdentity("Note"), message="publication other has a column list")
        run_sql("ALTER TABLE testapp_note REPLICA IDENTITY FULL")
        self.refused(CreatePublication(NAME, ["Note"]), message="publication other has a column list")

    def test_full_with_a_virtual_column(self, undo: Callable[[str], None]) -> None:
        if connection.pg_version < 180000:
            pytest.skip("virtual generated columns came with PostgreSQL 18")
        run_sql("CREATE TABLE binding_tag (id bigint PRIMARY KEY, name int GENERATED ALWAYS AS (id + 1) VIRTUAL)")
        undo("DROP TABLE binding_tag")
        self.refused(SetReplicaIdentity("Tag"), message="virtual generated column")
        run_sql("ALTER TABLE binding_tag REPLICA IDENTITY FULL")
        self.refused(CreatePublication(NAME, ["Tag"]), message="virtual generated column")

    def test_a_stored_column_that_goes_along_is_fine(self, undo: Callable[[str], None]) -> None:
        run_sql("CREATE TABLE binding_tag (id bigint PRIMARY KEY, name int GENERATED ALWAYS AS (id + 1) STORED)")
        undo("DROP TABLE binding_tag")
        apply(SetReplicaIdentity("Tag"), CreatePublication(NAME, ["Tag"]))
        run_sql("INSERT INTO binding_tag VALUES (1); UPDATE binding_tag SET id = 2; DELETE FROM binding_tag")


@pytest.mark.integration
def test_a_publication_that_a_slot_needs_is_not_dropped(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"])
    stream.set_up()
    operation = CreatePublication(get_stream().publication, ["Note"])
    with pytest.raises(ConfigurationError, match=f"Replication slot {stream.name} is still there.*walsetup --drop"):
        undo_all(operation)
    run_sql("SELECT pg_drop_replication_slot(%s)", stream.name)
    undo_all(operation)
    assert publication(get_stream().publication) is None


@pytest.mark.integration
def test_a_slot_of_another_database_is_no_hindrance(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"])
    operation = CreatePublication(get_stream().publication, ["Note"])
    apply(operation)
    with connection._nodb_cursor() as cursor:  # Django's way to the database "postgres"
        cursor.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [stream.name])
    undo_all(operation)
    assert publication(get_stream().publication) is None


class TestOperation:
    EVERY = (
        SetReplicaIdentity("Order", "full"),
        SetReplicaIdentity("Order", "order_code_key", previous="nothing"),
        CreatePublication("walsignals_default", ["Order", "customers.Customer"]),
        AlterPublication("walsignals_default", add=["Order"]),
        AlterPublication("walsignals_default", drop=["Order"]),
        AlterPublication("Odd 'name'", ["A"], ["B", "x.C"]),
    )

    @pytest.mark.parametrize("operation", EVERY, ids=repr)
    def test_it_is_written_as_it_was(self, operation: Operation) -> None:
        again = written(operation)
        assert type(again) is type(operation)
        assert again.deconstruct() == operation.deconstruct()
        assert vars(again) | {"_constructor_args": 0} == vars(operation) | {"_constructor_args": 0}

    @pytest.mark.parametrize(
        ("operation", "says", "part"),
        [
            (EVERY[0], "~ Set the replica identity of Order to full", "order_replica_identity_full"),
            (
                EVERY[1],
                "~ Set the replica identity of Order to order_code_key",
                "order_replica_identity_order_code_key",
            ),
            (
                EVERY[2],
                "+ Create publication walsignals_default of Order, customers.Customer",
                "create_publication_walsignals_default",
            ),
            (EVERY[3], "~ Alter publication walsignals_default: add Order", "alter_publication_walsignals_default"),
            (EVERY[4], "~ Alter publication walsignals_default: drop Order", "alter_publication_walsignals_default"),
            (EVERY[5], "~ Alter publication Odd 'name': add A; drop B, x.C", "alter_publication_odd_name_"),
        ],
    )
    def test_it_says_what_it_does(self, operation: Operation, says: str, part: str) -> None:
        assert operation.formatted_description() == says
        assert operation.migration_name_fragment == part

    def test_it_does_not_touch_the_models(self) -> None:
        before = ProjectState.from_apps(apps)
        after = before.clone()
        before.models = dict(after.models)
        for operation in self.EVERY:
            operation.state_forwards("testapp", after)
        assert after.models == before.models

    def test_what_could_not_mean_anything_is_refused(self) -> None:
        with pytest.raises(ValueError, match="needs models"):
            CreatePublication("p", [])
        with pytest.raises(ValueError, match="to add or to drop"):
            AlterPublication("p")
        with pytest.raises(TypeError, match=r"a list of models is wanted, not 'shop\.Order'"):
            CreatePublication("p", "shop.Order")


def written(operation: Operation) -> Operation:
    """Write a migration file and read it."""
    migration = type("Migration", (migrations.Migration,), {"operations": [operation]})("0001_x", "testapp")
    namespace: dict[str, Any] = {}
    exec(MigrationWriter(migration, include_header=False).as_string(), namespace)
    (again,) = namespace["Migration"].operations
    assert isinstance(again, Operation)
    return again


class TestSquashing:
    def test_the_last_identity_counts_and_the_first_previous(self) -> None:
        first = SetReplicaIdentity("Order", "full", previous="nothing")
        assert squashed(first, SetReplicaIdentity("order", "default", previous="full")) == [
            SetReplicaIdentity("Order", "default", previous="nothing").deconstruct()
        ]

    def test_a_publication_takes_in_its_changes(self) -> None:
        found = squashed(
            CreatePublication("p", ["Order", "a.B"]),
            AlterPublication("p", add=["C"], drop=["order"]),
            AlterPublication("p", add=["D"], drop=["c"]),
        )
        assert found == [CreatePublication("p", ["a.B", "D"]).deconstruct()]

    def test_changes_are_joined_and_may_come_to_nothing(self) -> None:
        add, drop = AlterPublication("p", add=["A"], drop=["B"]), AlterPublication("p", add=["B"], drop=["app.a"])
        assert squashed(add, AlterPublication("p", add=["C"])) == [
            AlterPublication("p", add=["A", "C"], drop=["B"]).deconstruct()
        ]
        assert squashed(add, drop) == []

    def test_another_publication_or_none_left_is_let_be(self) -> None:
        operations = [
            CreatePublication("p", ["A"]),
            AlterPublication("q", drop=["A"]),
            AlterPublication("p", drop=["A"]),
        ]
        assert squashed(*operations) == [operation.deconstruct() for operation in operations]

    def test_an_identity_goes_with_its_model(self) -> None:
        delete = migrations.DeleteModel("order")
        assert squashed(SetReplicaIdentity("Order"), delete) == [delete.deconstruct()]

    def test_what_is_about_other_models_passes(self) -> None:
        create = migrations.CreateModel("Other", [("id", models.BigAutoField(primary_key=True))])
        add = migrations.AddField("Other", "name", models.TextField())
        found = squashed(create, SetReplicaIdentity("Order"), CreatePublication("p", ["Order"]), add)
        assert sorted(name for name, *_ in found) == ["CreateModel", "CreatePublication", "SetReplicaIdentity"]

    def test_what_is_about_the_same_model_does_not(self) -> None:
        create = migrations.CreateModel("Order", [("id", models.BigAutoField(primary_key=True))])
        add = migrations.AddField("Order", "name", models.TextField())
        found = squashed(create, CreatePublication("p", ["Order"]), add)
        assert [name for name, *_ in found] == ["CreateModel", "CreatePublication", "AddField"]


def squashed(*operations: Operation) -> list[Any]:
    return [operation.deconstruct() for operation in MigrationOptimizer().optimize(list(operations), "app")]


@pytest.fixture
def migration(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, server: None) -> Iterator[str]:
    """Give the test app a migration that makes a table and publishes it, as a file."""
    operations = [
        migrations.CreateModel("Parcel", [("id", models.BigAutoField(primary_key=True))]),
        SetReplicaIdentity("Parcel"),
        CreatePublication(NAME, ["Parcel", "auth.User"]),
        AlterPublication(NAME, add=["auth.Group"]),
    ]
    values = {"operations": operations, "dependencies": [("auth", "0001_initial")], "initial": True}
    made = type("Migration", (migrations.Migration,), values)("0001_initial", "testapp")
    folder = tmp_path / "parcel_migrations"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "0001_initial.py").write_text(MigrationWriter(made).as_string())
    monkeypatch.syspath_prepend(str(tmp_path))
    settings.MIGRATION_MODULES = {"testapp": folder.name}
    yield "testapp"
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.mark.integration
class TestCommands:
    def test_migrate_there_and_back(self, migration: str) -> None:
        call_command("migrate", migration, verbosity=0)
        assert identity("testapp_parcel") == "f"
        assert published() == {"public.testapp_parcel", "public.auth_user", "public.auth_group"}
        call_command("migrate", migration, "zero", verbosity=0)
        assert publication() is None
        assert run_sql("SELECT to_regclass('testapp_parcel')") == [(None,)]

    def test_sqlmigrate_prints_the_statements(self, migration: str) -> None:
        there, back = StringIO(), StringIO()
        call_command("sqlmigrate", migration, "0001", stdout=there)
        assert 'ALTER TABLE "testapp_parcel" REPLICA IDENTITY FULL;' in there.getvalue()
        assert 'FOR TABLE ONLY "testapp_parcel", ONLY "auth_user" WITH (publish = ' in there.getvalue()
        assert 'ADD TABLE ONLY "auth_group";' in there.getvalue()
        call_command("sqlmigrate", migration, "0001", backwards=True, stdout=back)
        assert 'DROP TABLE ONLY "auth_group";' in back.getvalue()
        assert "DROP PUBLICATION" in back.getvalue()
        assert 'ALTER TABLE "testapp_parcel" REPLICA IDENTITY DEFAULT;' in back.getvalue()
        assert publication() is None
        run_sql(there.getvalue())
        assert published() == {"public.testapp_parcel", "public.auth_user", "public.auth_group"}
        run_sql(back.getvalue())
        assert publication() is None

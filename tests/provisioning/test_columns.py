"""EXCLUDE: such columns never leave the server where the replica identity allows it, and it is said where it does not."""

from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection
from django.db.models import Q

from django_walsignals.provisioning import setup
from tests.processes import database_dsn
from tests.provisioning.catalogue import execute, identity, published
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration

SECRET = "never to be seen"  # what a test looks for in the stream


@pytest.fixture(autouse=True)
def _default_identity(transactional_db: None) -> None:
    execute("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")
    execute("ALTER TABLE auth_user REPLICA IDENTITY DEFAULT")


@pytest.fixture
def kept(stream: Stream) -> Stream:
    """Give a stream of users whose tables are left alone."""
    stream.configure(MODELS=["auth.User"], REPLICA_IDENTITY="keep")
    stream.listen(User)
    stream.set_up()
    return stream


def raw_stream(stream: Stream) -> bytes:
    """Read what the server would send, and let the slot be."""
    options = ["proto_version", "1", "publication_names", f'"Pub ""{stream.name}"""']
    with psycopg.connect(database_dsn()) as session:
        query = "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, %s, %s, %s, %s)"
        return b"".join(data for (data,) in session.execute(query, [stream.name, *options]))


def test_excluded_column_never_leaves_the_server(kept: Stream) -> None:
    columns = published(kept, "auth_user").columns
    assert columns is not None
    assert "password" not in columns
    User.objects.create(username="ann", password=SECRET)
    User.objects.update(email="ann@example.org")
    User.objects.update(password=f"{SECRET} again")
    User.objects.all().delete()  # the application's own writes
    sent = raw_stream(kept)
    assert b"ann@example.org" in sent
    assert SECRET.encode() not in sent
    changes = kept.consume()
    assert [change.operation for change in changes] == ["insert", "update", "update", "delete"]
    assert "password" not in changes[0].diff


def test_under_full_it_does_and_that_is_said(stream: Stream) -> None:
    stream.configure(MODELS=["auth.User"])
    call_command("walsetup", stdout=stream.output)
    assert published(stream, "auth_user").columns is None
    said = stream.output.getvalue()
    assert "public.auth_user: password (EXCLUDE) leaves the server in the stream" in said
    assert "not decoded" in said
    User.objects.create(username="ann", password=SECRET)
    User.objects.update(email="b")
    User.objects.all().delete()  # the application's own writes
    assert SECRET.encode() in raw_stream(stream)


def test_list_goes_before_the_table_becomes_full(kept: Stream) -> None:
    kept.configure(MODELS=["auth.User"], REPLICA_IDENTITY="full")
    User.objects.create(username="ann")
    kept.output.truncate(0)
    kept.set_up()
    assert identity("auth_user") == "f"
    assert published(kept, "auth_user").columns is None
    User.objects.update(email="b")  # the application's own write
    said = kept.output.getvalue()
    assert said.index("changed what publication") < said.index("set REPLICA IDENTITY FULL")


def test_each_step_on_the_way_to_full_leaves_writes_alone(kept: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the set-up half-way: the application's UPDATE still works."""
    User.objects.create(username="ann")
    run_ddl = setup.run_ddl
    ran = []

    def run_and_write(alias: str, statement: Any, *args: Any) -> None:
        run_ddl(alias, statement, *args)
        ran.append(statement)
        User.objects.update(email=f"{len(ran)}@example.org")

    monkeypatch.setattr(setup, "run_ddl", run_and_write)
    kept.configure(MODELS=["auth.User"], REPLICA_IDENTITY="full", ROWS={"auth.User": Q(is_active=True)})
    kept.set_up()
    assert len(ran) == 3
    assert published(kept, "auth_user").row_filter == "is_active"
    kept.configure(MODELS=["auth.User"], REPLICA_IDENTITY="keep")
    kept.set_up()
    assert len(ran) == 4
    assert published(kept, "auth_user").columns is None, "a list under FULL would break writes"


def test_rows_stay_as_they_are_when_the_list_goes(kept: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that the condition keeps on the server stays there, at every moment, and nothing is done twice."""
    rows = {"auth.User": Q(pk__gt=5)}
    kept.configure(MODELS=["auth.User"], REPLICA_IDENTITY="keep", ROWS=rows)
    kept.set_up()
    run_ddl = setup.run_ddl
    seen = []

    def run_and_look(alias: str, statement: Any, *args: Any) -> None:
        run_ddl(alias, statement, *args)
        found = published(kept, "auth_user")
        seen.append((found.columns, found.row_filter, identity("auth_user")))

    monkeypatch.setattr(setup, "run_ddl", run_and_look)
    kept.configure(MODELS=["auth.User"], REPLICA_IDENTITY="full", ROWS=rows)
    kept.set_up()
    assert seen == [(None, "(id > 5)", "d"), (None, "(id > 5)", "f")]


def test_raw_postgresql_does_break_writes_that_are_spared_here(kept: Stream) -> None:
    """The fact behind it: PostgreSQL takes FULL beside a list of columns, and then refuses UPDATE."""
    User.objects.create(username="ann")
    execute("ALTER TABLE auth_user REPLICA IDENTITY FULL")
    with pytest.raises(ProgrammingError, match="does not cover the replica identity"):
        User.objects.update(email="b")
    kept.set_up()  # which mends it
    User.objects.update(email="b")


def test_key_that_is_excluded_is_published_all_the_same(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"], EXCLUDE={"testapp.Note": ["id"]}, REPLICA_IDENTITY="keep")
    call_command("walsetup", stdout=stream.output)
    assert published(stream, "testapp_note").columns is None
    assert "they are part of its replica identity" in stream.output.getvalue()
    Note.objects.create(text="a")
    Note.objects.update(text="b")


class TestColumnAddedLater:
    @pytest.fixture(autouse=True)
    def added(self, kept: Stream) -> Any:
        execute("ALTER TABLE auth_user ADD COLUMN shoe_size int")
        yield
        execute("ALTER TABLE auth_user DROP COLUMN shoe_size CASCADE")

    def columns(self, stream: Stream) -> tuple[str, ...]:
        found = published(stream, "auth_user").columns
        assert found is not None
        return found

    def test_next_start_publishes_it_and_is_no_gap(self, kept: Stream) -> None:
        User.objects.create(username="ann")
        kept.consume()
        assert "shoe_size" in self.columns(kept)
        assert "password" not in self.columns(kept)
        kept.consume()

    def test_walsetup_publishes_it_and_the_next_start_sees_no_gap(self, kept: Stream) -> None:
        User.objects.create(username="before")
        call_command("walsetup", stdout=kept.output)
        assert "shoe_size" in self.columns(kept)
        User.objects.create(username="after")
        assert [change.instance.username for change in kept.consume()] == ["before", "after"]

    def test_what_somebody_else_narrowed_is_a_gap_in_words(self, kept: Stream) -> None:
        name = f'"Pub ""{kept.name}"""'
        execute(f"ALTER PUBLICATION {name} SET TABLE auth_user (id, username) WHERE (id > 5)")
        before = kept.checkpoint.publication
        for command in ("walconsume", "walsetup"):
            options = {"until_lsn": "now"} if command == "walconsume" else {}
            with pytest.raises(CommandError) as caught:
                call_command(command, stdout=kept.output, **options)
            assert caught.value.returncode == 4
            said = str(caught.value)
            assert "put back with the columns id, username instead of the columns id, last_login" in said
            assert "put back with the rows where (id > 5) instead of all rows" in said
        assert kept.checkpoint.publication == before

    def test_note_of_an_earlier_version_is_no_gap(self, kept: Stream) -> None:
        row = kept.checkpoint
        row.publication["tables"] = {oid: facts[:2] for oid, facts in row.publication["tables"].items()}
        row.save()
        kept.consume()
        assert all(len(facts) == 4 for facts in kept.checkpoint.publication["tables"].values())


def test_generated_columns_are_listed_where_the_server_can(stream: Stream) -> None:
    execute("ALTER TABLE auth_user ADD COLUMN shout text GENERATED ALWAYS AS (upper(username)) STORED")
    try:
        stream.configure(MODELS=["auth.User"], REPLICA_IDENTITY="keep")
        stream.listen(User)
        stream.set_up()
        columns = published(stream, "auth_user").columns
        assert columns is not None
        assert ("shout" in columns) is (connection.pg_version >= 180000)
        User.objects.create(username="ann")
        User.objects.update(email="b")
        assert len(stream.consume()) == 2
    finally:
        stream.drop()
        execute("ALTER TABLE auth_user DROP COLUMN shout")

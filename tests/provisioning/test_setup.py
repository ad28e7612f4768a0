"""What ``walconsume`` creates, what it leaves alone, and what it refuses because PostgreSQL would refuse it later."""

from typing import Any

import psycopg
import pytest
from django.core.management import CommandError
from django.db import connection

from django_walsignals.delivery import session
from tests.processes import database_dsn
from tests.provisioning.catalogue import execute, identity, publication
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _default_identity(transactional_db: None) -> None:
    execute("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")
    execute("ALTER TABLE auth_user REPLICA IDENTITY DEFAULT")


def tables(stream: Stream) -> set[str]:
    return {table.table.name for table in publication(stream).tables.values()}


def test_publication_holds_what_receivers_name(stream: Stream) -> None:
    stream.listen(Note, "auth.User")
    stream.set_up()
    assert tables(stream) == {"testapp_note", "auth_user"}
    assert publication(stream).via_root
    assert identity("testapp_note") == identity("auth_user") == "f"


def test_models_list_that_grew_or_shrank_is_followed_at_the_next_start(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"])
    stream.set_up()
    stream.configure(MODELS=["auth.User", "testapp.Note"])
    stream.set_up()
    assert tables(stream) == {"testapp_note", "auth_user"}
    stream.configure(MODELS=["auth.User"])
    stream.set_up()
    assert tables(stream) == {"auth_user"}
    stream.configure(MODELS=["auth.User", "testapp.Note"])
    stream.set_up()
    assert tables(stream) == {"testapp_note", "auth_user"}
    assert "took public.testapp_note out of publication" in stream.output.getvalue()


def test_every_model_of_an_app_and_of_all_apps(stream: Stream) -> None:
    stream.configure(MODELS=["auth.*"])
    stream.set_up()
    assert {"auth_user", "auth_user_groups", "auth_group"} <= tables(stream)
    stream.configure(MODELS="__all__", REPLICA_IDENTITY="keep")
    stream.set_up()
    assert {"auth_user", "testapp_note", "django_session"} <= tables(stream)
    assert "walsignals_checkpoint" not in tables(stream)


def test_replica_identity_is_kept_when_asked(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"], REPLICA_IDENTITY="keep")
    stream.set_up()
    assert identity("testapp_note") == "d"


def test_publication_that_lacks_an_operation_gets_it(stream: Stream) -> None:
    name = f'"Pub ""{stream.name}"""'
    execute(f"CREATE PUBLICATION {name} FOR TABLE testapp_note WITH (publish = 'insert')")
    stream.listen(Note)
    stream.set_up()
    assert publication(stream).has_every_operation
    assert publication(stream).via_root


def test_publication_of_all_tables_is_left_alone_and_stays_quiet(stream: Stream) -> None:
    execute(f'CREATE PUBLICATION "Pub ""{stream.name}""" FOR ALL TABLES WITH (publish_via_partition_root = true)')
    stream.listen(Note)
    stream.set_up()
    Note.objects.create(text="a")
    assert [change.instance.text for change in stream.consume()] == ["a"]
    before = stream.checkpoint
    assert stream.consume() == []
    assert stream.checkpoint.lsn - before.lsn < 64 * 1024, "each checkpoint gives cause for the next one"


def test_ddl_waits_for_its_lock_in_short_turns(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"])
    with psycopg.connect(database_dsn()) as reader:
        reader.execute("SELECT count(*) FROM testapp_note")
        with stream.process() as consumer:
            consumer.wait_for_stdout("waiting for a lock that open transactions hold")
            # Somebody who comes behind us is let in as soon as our turn is over.
            execute("SELECT count(*) FROM testapp_note")
            reader.commit()
            consumer.wait_for_stdout("streaming")


def test_table_that_does_not_exist_is_named(stream: Stream) -> None:
    stream.listen(Note)
    execute("ALTER TABLE testapp_note RENAME TO hidden")
    try:
        with pytest.raises(CommandError, match=r"no table testapp_note \(testapp.Note\). Run manage.py migrate first"):
            stream.set_up()
    finally:
        execute("ALTER TABLE hidden RENAME TO testapp_note")


def test_table_without_an_identity_is_refused_before_it_breaks_writes(stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"], REPLICA_IDENTITY="keep")
    execute("ALTER TABLE testapp_note REPLICA IDENTITY NOTHING")
    with pytest.raises(
        CommandError, match=r"UPDATE and DELETE fail: it has no replica identity.*REPLICA IDENTITY FULL"
    ):
        stream.set_up()
    assert execute("SELECT count(*) FROM pg_publication") == [(0,)]


def test_unlogged_table_is_refused(stream: Stream) -> None:
    stream.listen(Note)
    execute("ALTER TABLE testapp_note SET UNLOGGED")
    try:
        with pytest.raises(CommandError, match="UNLOGGED"):
            stream.set_up()
    finally:
        execute("ALTER TABLE testapp_note SET LOGGED")


def test_column_list_elsewhere_keeps_full_away(stream: Stream) -> None:
    stream.listen(Note)
    execute("CREATE PUBLICATION elsewhere FOR TABLE testapp_note (id)")
    stream.set_up()
    assert identity("testapp_note") == "d"
    assert "testapp_note keeps its replica identity" in stream.output.getvalue()
    note = Note.objects.create(text="a")
    note.text = "b"
    note.save()  # the application's own write
    assert [change.operation for change in stream.consume()] == ["insert", "update"]


class TestGeneratedColumns:
    """PostgreSQL 18 refuses UPDATE where the identity holds a generated column that is not published."""

    @pytest.fixture
    def generated(self, stream: Stream, request: pytest.FixtureRequest) -> Any:
        stream.listen(Note)

        def add(kind: str) -> None:
            execute(f"ALTER TABLE testapp_note ADD COLUMN shout text GENERATED ALWAYS AS (upper(text)) {kind}")

        yield add
        execute("ALTER TABLE testapp_note DROP COLUMN IF EXISTS shout")

    def test_stored_one_is_published_so_that_full_is_safe(self, stream: Stream, generated: Any) -> None:
        generated("STORED")
        stream.set_up()
        Note.objects.create(text="a")
        Note.objects.update(text="b")
        Note.objects.all().delete()
        assert len(stream.consume()) == 3
        assert identity("testapp_note") == "f"

    def test_stored_one_that_another_publication_leaves_out_keeps_full_away(
        self, stream: Stream, generated: Any
    ) -> None:
        generated("STORED")
        execute("CREATE PUBLICATION elsewhere FOR ALL TABLES")
        stream.set_up()
        Note.objects.create(text="a")
        Note.objects.update(text="b")
        assert len(stream.consume()) == 2
        assert identity("testapp_note") == ("d" if connection.pg_version >= 180000 else "f")

    def test_virtual_one_keeps_full_away(self, stream: Stream, generated: Any) -> None:
        if connection.pg_version < 180000:
            pytest.skip("virtual generated columns came with PostgreSQL 18")
        generated("VIRTUAL")
        stream.set_up()
        Note.objects.create(text="a")
        Note.objects.update(text="b")
        assert len(stream.consume()) == 2
        assert identity("testapp_note") == "d"
        assert "virtual generated column" in stream.output.getvalue()

    def test_virtual_one_under_full_already_is_refused(self, stream: Stream, generated: Any) -> None:
        if connection.pg_version < 180000:
            pytest.skip("virtual generated columns came with PostgreSQL 18")
        generated("VIRTUAL")
        execute("ALTER TABLE testapp_note REPLICA IDENTITY FULL")
        with pytest.raises(CommandError, match="REPLICA IDENTITY DEFAULT"):
            stream.set_up()


class TestLeastPrivilege:
    def test_role_without_ddl_rights_consumes_what_a_dba_set_up(self, stream: Stream) -> None:
        stream.configure(MODELS=["testapp.Note"])
        stream.set_up()
        role = f"{stream.name}_role"
        execute(f"CREATE ROLE {role} LOGIN REPLICATION")
        execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        execute(f"GRANT INSERT, UPDATE, DELETE ON walsignals_checkpoint TO {role}")
        execute(f"GRANT INSERT ON ledger_effect TO {role}")
        execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
        try:
            Note.objects.create(text="a")
            with stream.process("--until-lsn", "now", **as_role(role)) as consumer:
                consumer.succeed()
            assert consumer.stdout.text.endswith("stopped: 1 delivered\n")
        finally:
            execute(f"DROP OWNED BY {role}")
            execute(f"DROP ROLE {role}")

    def test_missing_right_names_the_statement_for_a_dba(self, stream: Stream) -> None:
        stream.configure(MODELS=["testapp.Note"])
        role = f"{stream.name}_role"
        execute(f"CREATE ROLE {role} LOGIN REPLICATION")
        execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        execute(f"GRANT INSERT, UPDATE ON walsignals_checkpoint TO {role}")
        try:
            with stream.process(**as_role(role)) as consumer:
                assert consumer.wait() == 1
        finally:
            execute(f"DROP OWNED BY {role}")
            execute(f"DROP ROLE {role}")
        assert 'ALTER TABLE "public"."testapp_note" REPLICA IDENTITY FULL;' in consumer.stderr.text
        assert "Traceback" not in consumer.stderr.text


def as_role(role: str) -> dict[str, str]:
    return {"WALSIGNALS_TEST_DSN": psycopg.conninfo.make_conninfo(database_dsn(), user=role)}


class TestGaps:
    def consume_with_gap(self, stream: Stream) -> str:
        with pytest.raises(CommandError) as failure:
            stream.consume()
        assert failure.value.returncode == 4
        return str(failure.value)

    @pytest.fixture
    def delivered(self, stream: Stream) -> Stream:
        stream.listen(Note)
        stream.set_up()
        Note.objects.create(text="delivered")
        stream.consume()
        return stream

    def test_slot_that_is_gone_is_not_made_again(self, delivered: Stream) -> None:
        execute("SELECT pg_drop_replication_slot(%s)", [delivered.name])
        Note.objects.create(text="lost")
        assert "is gone" in self.consume_with_gap(delivered)
        assert delivered.slot() is None

    def test_slot_made_anew_is_noticed(self, delivered: Stream) -> None:
        execute("SELECT pg_drop_replication_slot(%s)", [delivered.name])
        Note.objects.create(text="lost")
        execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [delivered.name])
        said = self.consume_with_gap(delivered)
        assert str(delivered.checkpoint.lsn) in said
        assert "ahead of the checkpoint" in said

    def test_slot_advanced_by_somebody_is_noticed(self, delivered: Stream) -> None:
        Note.objects.create(text="lost")
        execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [delivered.name])
        assert "ahead of the checkpoint" in self.consume_with_gap(delivered)

    def test_publication_dropped_is_noticed_and_not_made_again(self, delivered: Stream) -> None:
        execute(f'DROP PUBLICATION "Pub ""{delivered.name}"""')
        Note.objects.create(text="lost")
        assert "its publication was dropped" in self.consume_with_gap(delivered)

    def test_table_taken_out_and_put_back_is_noticed(self, delivered: Stream) -> None:
        name = f'"Pub ""{delivered.name}"""'
        execute(f"ALTER PUBLICATION {name} DROP TABLE testapp_note")
        Note.objects.create(text="lost")
        execute(f"ALTER PUBLICATION {name} ADD TABLE testapp_note")
        assert "table public.testapp_note was taken out of its publication" in self.consume_with_gap(delivered)

    def test_table_taken_out_and_not_put_back_is_noticed(self, delivered: Stream) -> None:
        execute(f'ALTER PUBLICATION "Pub ""{delivered.name}""" DROP TABLE testapp_note')
        Note.objects.create(text="lost")
        assert "table public.testapp_note was taken out of its publication" in self.consume_with_gap(delivered)

    def test_other_cluster_is_noticed(self, delivered: Stream) -> None:
        execute("UPDATE walsignals_checkpoint SET system_identifier = '1'")
        assert "belongs to the database cluster 1" in self.consume_with_gap(delivered)

    def test_checkpoint_ahead_of_the_log_is_noticed(self, delivered: Stream) -> None:
        execute("UPDATE walsignals_checkpoint SET lsn = 'FFFF/0'")
        assert "lies ahead of the server's log" in self.consume_with_gap(delivered)

    def test_accepted_gap_goes_on_from_what_there_is(self, delivered: Stream) -> None:
        execute("SELECT pg_drop_replication_slot(%s)", [delivered.name])
        Note.objects.create(text="lost")
        assert delivered.consume(accept_gap=True) == []
        Note.objects.create(text="after")
        assert [change.instance.text for change in delivered.consume()] == ["after"]

    def test_killed_before_an_accepted_gap_is_told_it_is_still_a_gap(
        self, delivered: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = f'"Pub ""{delivered.name}"""'
        execute(f"ALTER PUBLICATION {name} DROP TABLE testapp_note")
        Note.objects.create(text="lost")

        def die(*args: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(session, "_position", die)
            with pytest.raises(CommandError, match="Stopped at once"):
                delivered.consume(accept_gap=True)
        assert tables(delivered) == {"testapp_note"}
        assert "table public.testapp_note was taken out of its publication" in self.consume_with_gap(delivered)


def test_two_consumers_starting_at_once_do_not_both_set_up(stream: Stream) -> None:
    """The second finds what the first made, or the slot taken; neither fails with a server's raw error."""
    stream.configure(MODELS=["testapp.Note"])
    with stream.process() as first, stream.process() as second:
        both = (first, second)
        (standby,) = wait_until(lambda: [process for process in both if "standing by" in process.stdout.text])
        (worker,) = {*both} - {standby}
        worker.wait_for_stdout("streaming")
        assert worker.terminate() == 0
        standby.wait_for_stdout("streaming")
        assert (worker.stderr.text, standby.stderr.text) == ("", "")

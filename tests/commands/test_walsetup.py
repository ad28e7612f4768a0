"""``walsetup``: what is missing is made once, compared, written down for a DBA, or dropped; each end has its exit code."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.models import Q
from django.db.models.functions import Now

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import preparing
from django_walsignals.models import Checkpoint, DeadLetter
from django_walsignals.provisioning import setup
from example_project.binaries import PostgresError, bin_dir
from tests.conftest import MakeCluster
from tests.ledger.models import Effect
from tests.processes import database_dsn, manage, run_manage
from tests.provisioning.catalogue import consumer_role, execute, identity, publication, published
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _default_identity(transactional_db: None) -> None:
    execute("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")
    execute("ALTER TABLE auth_user REPLICA IDENTITY DEFAULT")


@pytest.fixture
def notes(stream: Stream) -> Stream:
    """Give a stream of notes that nobody has set up."""
    stream.configure(MODELS=["testapp.Note"])
    stream.listen(Note)
    return stream


@pytest.fixture
def elsewhere(notes: Stream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """Keep the checkpoint in what is another database to Django, where another role keeps it."""
    other = connections["default"].copy(alias="elsewhere")
    other.settings_dict = {**other.settings_dict}
    connections["elsewhere"] = other
    monkeypatch.setitem(notes._settings.DATABASES, "elsewhere", other.settings_dict)
    notes.configure(MODELS=["testapp.Note"], CHECKPOINT_DATABASE="elsewhere")
    other.connect()  # as one that the tests do not know of: pytest-django lets nobody ask for it
    other.settings_dict["USER"] = "keeper"
    try:
        yield notes
    finally:
        other.close()
        del connections["elsewhere"]


def walsetup(*arguments: str, **options: Any) -> str:
    output = StringIO()
    call_command("walsetup", *arguments, stdout=output, no_color=True, **options)
    return output.getvalue()


def refused(*arguments: str, **options: Any) -> tuple[int, str]:
    """Return exit code and message, which is a single line."""
    output = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("walsetup", *arguments, stdout=output, no_color=True, **options)
    assert "\n" not in str(caught.value)
    return caught.value.returncode, f"{output.getvalue()}{caught.value}"


class TestApplying:
    def test_makes_what_is_missing_in_the_order_that_postgresql_needs(self, notes: Stream) -> None:
        said = walsetup()
        order = ["REPLICA IDENTITY FULL;", "CREATE PUBLICATION", "CREATE_REPLICATION_SLOT", "has all it needs"]
        assert [said.index(text) for text in order] == sorted(said.index(text) for text in order)
        assert "-- the whole old row of public.testapp_note, for updates and deletes" in said
        assert identity("testapp_note") == "f"
        assert notes.slot() is not None
        assert not Checkpoint.objects.exists(), "nothing was delivered yet"
        Note.objects.create(text="after")
        assert [change.instance.text for change in notes.consume()] == ["after"]

    def test_does_nothing_the_second_time(self, notes: Stream) -> None:
        walsetup()
        before = publication(notes)
        assert walsetup() == "Nothing to do: stream default has all it needs.\n"
        assert publication(notes) == before

    def test_beside_a_running_consumer_does_nothing_or_refuses(self, notes: Stream) -> None:
        with notes.process() as consumer:
            consumer.wait_for_stdout("streaming")
            assert "Nothing to do" in walsetup()
            notes.configure(MODELS=["testapp.Note", "auth.User"])
            code, said = refused()
            assert (code, [member.table.name for member in publication(notes).tables.values()]) == (3, ["testapp_note"])
            assert "in use by another consumer" in said
            assert identity("auth_user") == "d"
            assert consumer.terminate() == 0

    def test_stream_after_set_up_by_walsetup_and_grown_by_it_has_no_gap(self, notes: Stream) -> None:
        notes.set_up()
        Note.objects.create(text="before")
        notes.configure(MODELS=["testapp.Note"], ROWS={"testapp.Note": Q(text__startswith="a")})
        assert "DROP TABLE" in walsetup()
        Note.objects.create(text="beta")
        Note.objects.create(text="alpha")
        assert [change.instance.text for change in notes.consume()] == ["before", "alpha"]

    @pytest.mark.parametrize("mode", [(), ("--check",)], ids=["apply", "check"])
    def test_slot_missing_beside_a_checkpoint_is_a_gap_and_is_not_made_again(
        self, notes: Stream, mode: tuple[str, ...]
    ) -> None:
        notes.set_up()
        execute("SELECT pg_drop_replication_slot(%s)", [notes.name])
        code, said = refused(*mode)
        assert code == (4 if not mode else 1)
        assert "walconsume default --accept-gap" in said
        assert notes.slot() is None

    def test_slot_moved_ahead_is_a_gap_though_nothing_is_missing(self, notes: Stream) -> None:
        notes.set_up()
        Note.objects.create(text="lost")
        execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [notes.name])
        code, said = refused()
        assert code == 4
        assert "ahead of the checkpoint" in said

    def test_publication_made_anew_is_a_gap(self, notes: Stream) -> None:
        notes.set_up()
        name = f'"Pub ""{notes.name}"""'
        execute(f"DROP PUBLICATION {name}")
        execute(f"CREATE PUBLICATION {name} FOR TABLE testapp_note WITH (publish_via_partition_root = true)")
        code, said = refused()
        assert code == 4
        assert "its publication was dropped and made anew" in said

    def test_slot_older_than_its_publication_is_moved_behind_it(self, notes: Stream) -> None:
        """In the wrong order by hand: what lies between could never be decoded, and would jam the slot."""
        execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [notes.name])
        Note.objects.create(text="between")
        assert "moved replication slot" in walsetup()
        Note.objects.create(text="after")
        assert [change.instance.text for change in notes.consume()] == ["after"]

    def test_slot_of_another_kind_is_refused_before_anything_is_made(self, notes: Stream) -> None:
        execute("SELECT pg_create_physical_replication_slot(%s)", [notes.name])
        code, said = refused()
        assert code == 1
        assert "belongs to the plugin of physical replication" in said
        assert identity("testapp_note") == "d"

    def test_second_attempt_finishes_what_the_first_began(self, notes: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        run_ddl = setup.run_ddl
        with monkeypatch.context() as patched:

            def fail_at_publication(alias: str, statement: Any, *args: Any) -> None:
                if "PUBLICATION" in statement.as_string(None):
                    raise KeyboardInterrupt
                run_ddl(alias, statement, *args)

            patched.setattr(setup, "run_ddl", fail_at_publication)
            assert refused()[0] == 1
        assert identity("testapp_note") == "f"
        assert "has all it needs" in walsetup()

    def test_killed_between_a_change_and_its_note_there_is_no_gap(
        self, notes: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A table goes and comes back to get a condition: the checkpoint's note of that commits with it."""
        notes.set_up()
        Note.objects.create(text="before")
        notes.configure(MODELS=["testapp.Note"], ROWS={"testapp.Note": Q(text__startswith="b")})
        run_ddl = setup.run_ddl
        with monkeypatch.context() as patched:

            def die_after(*args: Any) -> None:
                run_ddl(*args)
                raise KeyboardInterrupt

            patched.setattr(setup, "run_ddl", die_after)
            assert refused()[0] == 1
        assert published(notes, "testapp_note").row_filter
        assert walsetup() == "Nothing to do: stream default has all it needs.\n"
        assert [change.instance.text for change in notes.consume()] == ["before"]

    def test_checkpoint_that_moves_while_we_look_is_no_gap(
        self, notes: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rival's last act: it moves the checkpoint, then the slot, and lets go just before we read the slot."""
        notes.set_up()
        read = preparing.read_server_side

        def after_a_rival(config: StreamConfig) -> Any:
            monkeypatch.setattr(preparing, "read_server_side", read)
            execute("SELECT pg_logical_emit_message(true, 'x', 'y')")
            execute("UPDATE walsignals_checkpoint SET lsn = pg_current_wal_flush_lsn()")
            execute("SELECT pg_replication_slot_advance(%s, (SELECT lsn FROM walsignals_checkpoint))", [notes.name])
            return read(config)

        monkeypatch.setattr(preparing, "read_server_side", after_a_rival)
        assert notes.consume() == []

    def test_role_that_may_not_publish_changes_nothing_for_a_condition(self, notes: Stream) -> None:
        """It owns the tables, and not the publication: a half of the steps might break the application's writes."""
        notes.configure(MODELS=["testapp.Note"], REPLICA_IDENTITY="keep")
        walsetup()
        notes.configure(MODELS=["testapp.Note"], ROWS={"testapp.Note": Q(text="a")})
        with consumer_role(notes) as role:
            execute(f"CREATE ROLE {role} LOGIN REPLICATION")
            execute(f"GRANT SELECT ON {Checkpoint._meta.db_table} TO {role}")
            execute(f"ALTER TABLE testapp_note OWNER TO {role}")
            execute(f"SET ROLE {role}")
            try:
                code, said = refused()
            finally:
                execute("RESET ROLE")
                execute("ALTER TABLE testapp_note OWNER TO CURRENT_USER")
        assert (code, identity("testapp_note")) == (1, "d")
        assert "must be owner of publication" in said
        whole = said[said.index("superuser, run: ") :]
        assert whole.index("REPLICA IDENTITY FULL") < whole.index("ADD TABLE")


class TestLostSlot:
    """The server has thrown a slot's log away."""

    @pytest.fixture
    def lost(self, make_cluster: MakeCluster) -> dict[str, str]:
        """Lose the slot of a stream that was set up; give the environment that commands find it in."""
        cluster = make_cluster(max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB")
        stream = {"default": {"MODELS": ["testapp.Note"], "SLOT": "s", "PUBLICATION": "p"}}
        env = {"WALSIGNALS_TEST_DSN": cluster.dsn(), "TEST_WALSIGNALS": json.dumps(stream)}
        for command in (["migrate", "-v", "0", "--run-syncdb"], ["walsetup"]):
            assert run_manage(*command, **env).returncode == 0
        with psycopg.connect(cluster.dsn(), autocommit=True) as session:
            for _ in range(3):
                session.execute("SELECT pg_logical_emit_message(false, 'x', 'y')")
                session.execute("SELECT pg_switch_wal()")
            session.execute("CHECKPOINT")
            assert session.execute("SELECT wal_status FROM pg_replication_slots").fetchone() == ("lost",)
        return env

    def test_is_made_anew_where_nothing_was_delivered(self, lost: dict[str, str]) -> None:
        checked = run_manage("walsetup", "--check", **lost)
        assert (checked.returncode, "lost: wal_removed" in checked.stdout.text) == (1, True)
        script = run_manage("walsetup", "--sql", **lost).stdout.text
        assert "-- SELECT pg_drop_replication_slot('s');" in script
        made = run_manage("walsetup", **lost)
        assert (made.returncode, made.stderr.text) == (0, "")
        assert "dropped replication slot s, which the server had invalidated" in made.stdout.text
        assert run_manage("walsetup", "--check", **lost).returncode == 0

    def test_beside_a_checkpoint_is_a_gap(self, lost: dict[str, str]) -> None:
        run_manage("walsetup", **lost)
        with manage("walconsume", "--until-lsn", "now", **lost) as consumer:
            consumer.succeed()
        with psycopg.connect(lost["WALSIGNALS_TEST_DSN"], autocommit=True) as session:
            for _ in range(3):
                session.execute("SELECT pg_logical_emit_message(false, 'x', 'y')")
                session.execute("SELECT pg_switch_wal()")
            session.execute("CHECKPOINT")
        process = run_manage("walsetup", **lost)
        assert process.returncode == 4
        assert "the server has invalidated its replication slot 's' (wal_removed)" in process.stderr.text
        assert "MIND THE GAP" in run_manage("walsetup", "--sql", **lost).stdout.text


class TestBadInput:
    @pytest.mark.parametrize("arguments", [["--check", "--sql"], ["--drop", "--check"], ["--role", "x"], ["--nothing"]])
    def test_usage_is_2(self, notes: Stream, arguments: list[str]) -> None:
        process = run_manage("walsetup", *arguments)
        assert process.returncode == 2
        assert "Traceback" not in process.stderr.text

    def test_options_that_call_command_lets_through_are_refused(self, notes: Stream) -> None:
        assert refused(check=True, sql=True)[0] == 2
        assert refused(role="x") == (2, "--role goes with --sql.")

    def test_unknown_stream(self, notes: Stream) -> None:
        assert refused("defualt") == (1, "There is no stream 'defualt' in WALSIGNALS: did you mean 'default'?")

    def test_nothing_to_publish(self, stream: Stream) -> None:
        code, said = refused()
        assert code == 1
        assert "Nothing is to be published" in said

    def test_other_database(self, stream: Stream) -> None:
        process = run_manage(
            "walsetup", TEST_SQLITE="1", TEST_WALSIGNALS=json.dumps({"default": {"DATABASE": "elsewhere"}})
        )
        assert process.returncode == 1
        assert (
            process.stderr.text == "CommandError: Database 'elsewhere' is sqlite: only PostgreSQL has a WAL to read.\n"
        )

    def test_server_out_of_reach(self, stream: Stream) -> None:
        dsn = psycopg.conninfo.make_conninfo(database_dsn(), port="1")
        process = run_manage("walsetup", WALSIGNALS_TEST_DSN=dsn)
        assert process.returncode == 1
        assert "CommandError: The database is out of reach: " in process.stderr.text
        assert "Traceback" not in process.stderr.text

    def test_server_that_is_not_logical(self, make_cluster: MakeCluster) -> None:
        dsn = make_cluster(wal_level="replica").dsn()
        process = run_manage("walsetup", WALSIGNALS_TEST_DSN=dsn)
        assert process.returncode == 1
        assert "ALTER SYSTEM SET wal_level = 'logical'" in process.stderr.text


class TestChecking:
    def lines(self, text: str) -> dict[str, list[str]]:
        rows = [line.split("  ") for line in text.splitlines() if line.endswith(("ok", "differs"))]
        return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}

    def test_says_what_differs_and_changes_nothing(self, notes: Stream) -> None:
        code, said = refused("--check")
        assert code == 1
        assert "4 things differ" in said
        rows = self.lines(said)
        assert rows["replica identity of public.testapp_note"] == ["full", "default", "differs"]
        assert rows["table public.testapp_note"] == ["all columns", "not published", "differs"]
        assert rows[f"replication slot {notes.name}"][1:] == ["missing", "differs"]
        assert execute("SELECT count(*) FROM pg_publication") == [(0,)]
        assert (identity("testapp_note"), notes.slot()) == ("d", None)

    def test_finds_nothing_after_set_up(self, notes: Stream) -> None:
        walsetup()
        assert {row[-1] for row in self.lines(walsetup("--check")).values()} == {"ok"}

    def test_finds_nothing_beside_a_consumer_at_work(self, notes: Stream) -> None:
        with notes.process() as consumer:
            consumer.wait_for_stdout("streaming")
            for number in range(10):
                Note.objects.create(text=str(number))
                walsetup("--check")

    def test_sees_options_that_somebody_changed(self, notes: Stream) -> None:
        walsetup()
        execute(f'ALTER PUBLICATION "Pub ""{notes.name}""" SET (publish = \'insert\')')
        code, said = refused("--check")
        assert code == 1
        assert "some operations" in said

    def test_sees_columns_and_rows(self, stream: Stream) -> None:
        stream.configure(MODELS=["auth.User"], REPLICA_IDENTITY="keep", ROWS={"auth.User": Q(id__gt=0)})
        walsetup()
        assert "differs" not in walsetup("--check")
        stream.configure(MODELS=["auth.User"], REPLICA_IDENTITY="keep", EXCLUDE={})
        code, said = refused("--check")
        assert code == 1
        row = self.lines(said)["table public.auth_user"]
        assert row[0] == "all columns"
        assert row[1].startswith("columns id, last_login")
        assert row[1].endswith("; rows where (id > 0)")
        assert row[2] == "differs"


class TestScript:
    def test_touches_nothing(self, notes: Stream) -> None:
        before = execute("SELECT (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_publication)")
        assert "CREATE PUBLICATION" in walsetup("--sql", role="somebody_new")
        assert execute("SELECT (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_publication)") == before
        assert (identity("testapp_note"), notes.slot()) == ("d", None)

    def test_is_of_what_is_missing(self, notes: Stream) -> None:
        walsetup()
        said = walsetup("--sql")
        assert "Publication and replica identities are as they should be." in said
        assert f"Replication slot {notes.name} is there." in said
        assert "pg_create_logical_replication_slot" not in said

    def test_is_taken_by_psql_and_by_it_again(self, notes: Stream) -> None:
        if psql() is None:
            pytest.skip("there is no psql here")
        with consumer_role(notes) as role:
            script = walsetup("--sql", role=role)
            run_script(script)
            walsetup("--check")
            run_script(walsetup("--sql", role=role))
            walsetup("--check")

    def test_says_nothing_twice(self, notes: Stream) -> None:
        statements = [line for line in walsetup("--sql").splitlines() if line.endswith(";")]
        assert len(statements) == len({*statements})

    def test_condition_that_the_server_refuses_is_in_no_script(self, notes: Stream) -> None:
        notes.configure(MODELS=["auth.User"], ROWS={"auth.User": Q(date_joined__lt=Now())})
        code, said = refused("--sql")
        assert (code, "PostgreSQL says: invalid publication WHERE expression" in said) == (1, True)
        assert "CREATE PUBLICATION" not in said

    def test_of_a_role_that_may_not_read_the_checkpoint_grants_it(self, notes: Stream) -> None:
        notes.consume()
        with consumer_role(notes) as role:
            execute(f"CREATE ROLE {role}")
            execute(f"SET SESSION AUTHORIZATION {role}")
            try:
                said = walsetup("--sql", "--role", role)
            finally:
                execute("RESET SESSION AUTHORIZATION")
        assert re.search(
            rf'^GRANT SELECT, INSERT, UPDATE\b.* ON .*walsignals_checkpoint.* TO "?{role}"?;', said, re.MULTILINE
        ), said

    def test_of_a_role_without_rights_is_of_a_condition_that_it_may_not_publish(self, notes: Stream) -> None:
        notes.configure(MODELS=["testapp.Note"], ROWS={"testapp.Note": Q(text="a")})
        with consumer_role(notes) as role:
            execute(f"CREATE ROLE {role}")
            execute(f"GRANT SELECT ON {Checkpoint._meta.db_table} TO {role}")
            execute(f"SET SESSION AUTHORIZATION {role}")
            try:
                said = walsetup("--sql")
            finally:
                execute("RESET SESSION AUTHORIZATION")
        assert "WHERE (\"text\" = 'a')" in said

    def test_own_tables_in_another_database_are_for_a_script_of_that(self, elsewhere: Stream) -> None:
        said = walsetup("--sql").splitlines()
        name = connections["elsewhere"].settings_dict["NAME"]
        assert f"(what receivers read and write is the application's to grant), in database {name}." in "\n".join(said)
        assert not [line for line in said if line.startswith("GRANT SELECT")]
        grants = [line for line in said if line.startswith("-- GRANT") and line.endswith('TO "keeper";')]
        assert len(grants) == 3
        assert [line for line in said if line.startswith("GRANT CONNECT") and "keeper" not in line]

    def test_grants_no_more_than_is_needed(self, notes: Stream) -> None:
        with consumer_role(notes) as role:
            run_script(walsetup("--sql", role=role))
            query = "SELECT table_name, privilege_type FROM information_schema.table_privileges WHERE grantee = %s"
            assert set(execute(query, [role])) == {
                *((Checkpoint._meta.db_table, right) for right in ("SELECT", "INSERT", "UPDATE")),
                *((DeadLetter._meta.db_table, right) for right in ("SELECT", "INSERT", "UPDATE", "DELETE")),
            }

    def test_least_privileged_role_consumes_what_a_dba_set_up(self, stream: Stream) -> None:
        """It delivers, writes a dead letter, and starts again, where it may do nothing but what the script grants."""
        stream.configure(MODELS=["testapp.Note"], ROWS={"testapp.Note": Q(text__gt="")}, MAX_ATTEMPTS=1)
        with consumer_role(stream) as role:
            run_script(walsetup("--sql", role=role))
            # What receivers write is the application's own; ROWS is no JSON, and needs nothing of the role.
            execute(f"GRANT SELECT, INSERT ON {Effect._meta.db_table} TO {role}")
            stream.configure(MODELS=["testapp.Note"], MAX_ATTEMPTS=1)
            walsetup()
            Note.objects.create(text="a")
            Note.objects.create(text="poison")
            dsn = psycopg.conninfo.make_conninfo(database_dsn(), user=role)
            for expected in ("2 delivered, 1 dead letter\n", "1 delivered"):
                with stream.process(
                    "--until-lsn", "now", WALSIGNALS_TEST_DSN=dsn, EFFECTS_RAISE_ON="poison"
                ) as consumer:
                    consumer.succeed()
                assert f"stopped: {expected}" in consumer.stdout.text
                Note.objects.create(text="b")
            assert DeadLetter.objects.count() == 1
            assert run_as(stream, dsn, "walsetup").stdout.text.startswith("Nothing to do")
            assert run_as(stream, dsn, "walsetup", "--check").returncode == 0

    def test_role_without_rights_is_told_what_to_have_run(self, notes: Stream) -> None:
        with consumer_role(notes) as role:
            execute(f"CREATE ROLE {role} LOGIN REPLICATION")
            execute(f"GRANT SELECT ON {Checkpoint._meta.db_table} TO {role}")
            dsn = psycopg.conninfo.make_conninfo(database_dsn(), user=role)
            process = run_as(notes, dsn, "walsetup")
        assert process.returncode == 1
        assert 'run: ALTER TABLE "public"."testapp_note" REPLICA IDENTITY FULL;' in process.stderr.text

    def test_no_name_can_end_a_comment(self, stream: Stream) -> None:
        name = "p\nDROP TABLE testapp_note; --"
        stream.configure(MODELS=["testapp.Note"], PUBLICATION=name)
        with consumer_role(stream) as role:
            run_script(walsetup("--sql", role=role))
        assert execute("SELECT pubname FROM pg_publication") == [(name,)]
        assert execute("SELECT to_regclass('testapp_note') IS NOT NULL") == [(True,)]


class TestDropping:
    @pytest.fixture(autouse=True)
    def set_up(self, notes: Stream) -> None:
        walsetup()

    def test_drops_slot_and_publication_and_says_what_stays(self, notes: Stream) -> None:
        notes.set_up()
        said = walsetup("--drop", interactive=False)
        assert (notes.slot(), execute("SELECT count(*) FROM pg_publication")) == (None, [(0,)])
        assert 'ALTER TABLE "public"."testapp_note" REPLICA IDENTITY DEFAULT;' in said
        assert f"The checkpoint at {notes.checkpoint.lsn} stays" in said
        assert refused()[0] == 4
        assert notes.consume(accept_gap=True) == []

    def test_starts_over_where_nothing_was_delivered(self, notes: Stream) -> None:
        assert "checkpoint" not in walsetup("--drop", interactive=False)
        assert "has all it needs" in walsetup()

    def test_second_time_there_is_nothing_to_drop(self, notes: Stream) -> None:
        walsetup("--drop", interactive=False)
        assert "Nothing to drop" in walsetup("--drop", interactive=False)

    def test_asks_nobody_where_nobody_is_there(self, notes: Stream) -> None:
        process = run_as(notes, database_dsn(), "walsetup", "--drop")
        assert (process.returncode, process.stderr.text) == (1, "CommandError: Nothing was dropped.\n")
        assert process.stdout.text.endswith("Go on? [y/N] \n")
        assert notes.slot() is not None

    @pytest.mark.parametrize(("answer", "is_dropped"), [("y", True), ("n", False), ("", False), (None, False)])
    def test_asks(self, notes: Stream, monkeypatch: pytest.MonkeyPatch, answer: str | None, is_dropped: bool) -> None:
        def answering(prompt: str) -> str:
            if answer is None:
                raise EOFError
            return answer

        monkeypatch.setattr("builtins.input", answering)
        if is_dropped:
            walsetup("--drop")
        else:
            assert refused("--drop")[0] == 1
        assert (notes.slot() is None) is is_dropped

    def test_slot_in_use_is_3_and_all_stays(self, notes: Stream) -> None:
        with notes.process() as consumer:
            consumer.wait_for_stdout("streaming")
            code, said = refused("--drop", interactive=False)
            assert code == 3
            assert "stop it first" in said
            assert publication(notes).tables
            Note.objects.create(text="still streaming")
            assert consumer.terminate() == 0

    def test_slot_of_somebody_else_stays(self, notes: Stream) -> None:
        walsetup("--drop", interactive=False)
        execute("SELECT pg_create_physical_replication_slot(%s)", [notes.name])
        code, said = refused("--drop", interactive=False)
        assert (code, "none of ours" in said) == (1, True)
        assert notes.slot() is not None


def run_as(stream: Stream, dsn: str, *arguments: str) -> Any:
    return run_manage(*arguments, WALSIGNALS_TEST_DSN=dsn, TEST_WALSIGNALS=json.dumps(stream._settings.WALSIGNALS))


def psql() -> str | None:
    """Find a psql: on the path, or beside the embedded server's own programs."""
    try:
        beside = bin_dir(str(connection.pg_version // 10000))
    except PostgresError:
        return shutil.which("psql")
    return shutil.which("psql") or shutil.which("psql", path=beside)


def run_script(script: str) -> None:
    """Run a script as a superuser: with psql where there is one, else statement by statement, as psql would."""
    if program := psql():
        command = [program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database_dsn(), "-f", "-"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return
    with psycopg.connect(database_dsn(), autocommit=True) as session:
        for statement in script.split(";\n"):
            if any(line and not line.startswith("--") for line in statement.splitlines()):
                session.execute(statement)  # type: ignore[arg-type]

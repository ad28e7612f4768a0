"""``waltail`` as a developer meets it: what it shows, what it leaves behind (nothing), how it ends."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from psycopg.conninfo import make_conninfo

from django_walsignals.provisioning.temporary import sweep
from tests import server
from tests.ledger.models import Effect
from tests.processes import DEADLINE_SECONDS, MANAGE, ROOT, ManagedProcess, database_dsn, environment, manage
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

HEAD = r"\d\d:\d\d:\d\d\.\d{3} "
WHICH = r"  xid \d+ at [0-9A-F]+/[0-9A-F]+"


@contextmanager
def tail(*arguments: str, **env: str) -> Iterator[ManagedProcess]:
    """Run ``waltail`` in a pipe, from when it sees what is committed."""
    with manage("waltail", *arguments, **env) as process:
        process.wait_for_stderr("waltail: watching")
        yield process


def refused(*arguments: str, **env: str) -> ManagedProcess:
    """Run ``waltail`` with what it must refuse: in one line."""
    with manage("waltail", *arguments, **env) as process:
        process.wait()
    assert "Traceback" not in process.stderr.text
    assert process.stdout.text == ""
    return process


def query(statement: str, *parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


def publications() -> list[str]:
    return query("SELECT pubname::text FROM pg_publication ORDER BY 1")


def slots() -> list[str]:
    return query("SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()")


def rows_of(process: ManagedProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stdout.lines]


@pytest.fixture(autouse=True)
def default_identity(stream: Stream) -> None:
    """Undo what earlier tests of this database left."""
    for table in ("auth_group", "auth_user", "ledger_effect", "testapp_note"):
        query(f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT")


@pytest.fixture
def full_identity(stream: Stream) -> Iterator[None]:
    with identity("FULL"):
        yield


@contextmanager
def identity(kind: str) -> Iterator[None]:
    """Give the notes' table another replica identity for a while."""
    query(f"ALTER TABLE testapp_note REPLICA IDENTITY {kind}")
    try:
        yield
    finally:
        query("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")


class TestLines:
    def test_insert_update_and_delete_are_shown_with_their_values(self, full_identity: None) -> None:
        with tail("testapp.Note", "-n", "3") as process:
            note = Note.objects.create(text="first")
            Note.objects.filter(pk=note.pk).update(text="")
            pk = note.pk
            note.delete()
            process.succeed()
        lines = [
            rf"{HEAD}\+ insert testapp\.Note {pk}{WHICH}",
            rf" {{15}}id: {pk}",
            " {15}text: 'first'",
            rf"{HEAD}~ update testapp\.Note {pk}{WHICH}",
            " {15}text: 'first' -> ''",
            rf"{HEAD}- delete testapp\.Note {pk}{WHICH}",
            rf" {{15}}id: {pk}",
            " {15}text: ''",
        ]
        assert re.fullmatch("\n".join(lines) + "\n", process.stdout.text), process

    def test_changes_of_one_transaction_name_it_once(self, stream: Stream) -> None:
        with tail("testapp.note", "-n", "3") as process:
            with transaction.atomic():
                Note.objects.create(text="a")
                Note.objects.create(text="b")
            Note.objects.create(text="c")
            process.succeed()
        assert ["xid" in line for line in process.stdout.lines if "insert" in line] == [True, False, True]

    def test_null_is_no_text_and_no_unknown_value(self, stream: Stream) -> None:
        with tail("ledger.Effect", "-n", "2") as process:
            Effect.objects.create(change_id="NULL", text="?", note_id=None)
            Effect.objects.update(note_id=7)
            process.succeed()
        assert "change_id: 'NULL'\n" in process.stdout.text
        assert "text: '?'\n" in process.stdout.text
        assert "note_id: NULL\n" in process.stdout.text
        assert "note_id: ? -> 7\n" in process.stdout.text

    def test_old_values_that_the_wal_lacks_are_explained_once_a_table(self, stream: Stream) -> None:
        with tail("testapp.*", "-n", "3") as process:
            note = Note.objects.create(text="a")
            Note.objects.update(text="b")
            note.delete()
            process.succeed()
        assert "text: ? -> 'b'" in process.stdout.text
        assert process.stderr.text.count("ALTER TABLE public.testapp_note REPLICA IDENTITY FULL") == 1

    def test_truncate_and_messages(self, stream: Stream) -> None:
        with tail("testapp.Note", "--messages", "-n", "4") as process:
            query("TRUNCATE testapp_note RESTART IDENTITY")
            query("SELECT pg_logical_emit_message(true, 'mine', 'a ' || E'\\x07')")
            query("SELECT pg_logical_emit_message(false, 'mine', '\\xff00'::bytea)")
            Note.objects.create(text="end")
            process.succeed()
        assert "! truncate testapp.Note restart identity" in process.stdout.text
        assert "> message mine  xid " in process.stdout.text
        assert "'a \\x07'" in process.stdout.text
        assert "> message mine  not transactional" in process.stdout.text
        assert "b'\\xff\\x00'" in process.stdout.text

    def test_messages_are_not_shown_unless_asked_for(self, stream: Stream) -> None:
        with tail("testapp.Note", "-n", "1") as process:
            query("SELECT pg_logical_emit_message(true, 'mine', 'a')")
            Note.objects.create(text="end")
            process.succeed()
        assert "mine" not in process.stdout.text

    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_value_can_do_nothing_to_a_terminal(self, stream: Stream, as_json: bool) -> None:
        hostile = "\x1b[2J\x1b]0;title\x07 \r\n\t\x9b31m \u202e\u2028 \x7f"
        with tail("testapp.Note", "-n", "1", *(["--json"] if as_json else [])) as process:
            Note.objects.create(text=hostile)
            process.succeed()
        text = process.stdout.text.replace("\n", "").replace("\x7f", "" if as_json else "\x7f")
        assert [unicodedata.name(char, repr(char)) for char in text if not char.isprintable()] == []
        if as_json:
            assert rows_of(process)[0]["new"]["text"] == hostile

    def test_context_is_beside_the_transaction(self, stream: Stream) -> None:
        from django_walsignals import context

        with tail("testapp.Note", "-n", "1") as process:
            with context(user=5):
                Note.objects.create(text="a")
            process.succeed()
        assert re.search(WHICH + r' \{"user": 5\}\n', process.stdout.text), process


class TestTerminal:
    """In a pseudo-terminal, as nothing else tells a terminal from a pipe."""

    @pytest.mark.parametrize("columns", [40, 80])
    def test_lines_are_cut_to_its_width_and_coloured(self, full_identity: None, columns: int) -> None:
        text = self.output("testapp.Note", "-n", "2", columns=columns)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert "\x1b[32m+ insert\x1b[0m" in text
        shown = [line for line in plain.splitlines() if not line.startswith("waltail")]
        assert max(map(len, shown)) <= columns
        assert "…" in plain
        # What differs is at the end of long texts, and is there to be seen.
        assert re.search(r"text: …x+one.*-> …x+two", plain)

    def test_no_color_is_plain(self, full_identity: None) -> None:
        assert "\x1b" not in self.output("testapp.Note", "-n", "2", "--no-color")

    def test_force_color_colours_a_pipe(self, stream: Stream) -> None:
        with tail("testapp.Note", "-n", "1", "--force-color") as process:
            Note.objects.create(text="x" * 500)
            process.succeed()
        assert "\x1b[32m+ insert" in process.stdout.text

    def test_a_pipe_gets_plain_and_whole_lines(self, stream: Stream) -> None:
        with tail("testapp.Note", "-n", "1") as process:
            Note.objects.create(text="x" * 500)
            process.succeed()
        assert "\x1b" not in process.stdout.text
        assert "x" * 500 in process.stdout.text

    def output(self, *arguments: str, columns: int = 80) -> str:
        """Run it in a terminal of that width, change a long text at its end, and return what the terminal got."""
        reading, writing = pty.openpty()
        env = environment(TERM="xterm-256color", COLUMNS=str(columns), PYTHON_COLORS="")
        command = [sys.executable, MANAGE, "waltail", *arguments]
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=writing, stdout=writing, stderr=subprocess.PIPE, text=True
        )
        os.close(writing)
        try:
            assert process.stderr is not None
            assert "watching" in process.stderr.readline()
            note = Note.objects.create(text="x" * 300 + "one")
            Note.objects.filter(pk=note.pk).update(text="x" * 300 + "two")
            return b"".join(read_to_end(reading)).decode()
        finally:
            process.kill()
            process.communicate()


def read_to_end(terminal: int) -> Iterator[bytes]:
    """Read a terminal until its other side is closed, which Linux reports as an error; fail at a deadline."""
    poll = select.poll()
    poll.register(terminal, select.POLLIN)
    try:
        while poll.poll(DEADLINE_SECONDS * 1000):
            try:
                yield os.read(terminal, 65536)
            except OSError:
                return
        raise AssertionError("it does not end")
    finally:
        os.close(terminal)


class TestJson:
    def test_keys_are_a_contract(self, full_identity: None) -> None:
        with tail("testapp.Note", "--json", "-n", "3") as process:
            note = Note.objects.create(text="a")
            Note.objects.update(text="b")
            pk = note.pk
            note.delete()
            process.succeed()
        rows = rows_of(process)
        common = {"model": "testapp.Note", "table": "public.testapp_note", "pk": pk, "unknown": [], "error": None}
        common |= {"stream": "default", "database": "default", "context": {}}
        before, after = {"id": pk, "text": "a"}, {"id": pk, "text": "b"}
        expected = [
            {"operation": "insert", "old": None, "new": before, "changed": ["id", "text"]},
            {"operation": "update", "old": before, "new": after, "changed": ["text"]},
            {"operation": "delete", "old": after, "new": None, "changed": ["id", "text"]},
        ]
        for row, wanted in zip(rows, expected, strict=True):
            assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+/1", row.pop("id"))
            assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", row.pop("commit_lsn"))
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", row.pop("committed_at"))
            assert isinstance(row.pop("xid"), int)
            assert row == {**common, **wanted}

    def test_unknown_values_are_named_and_left_out(self, stream: Stream) -> None:
        with tail("testapp.Note", "--json", "-n", "2") as process:
            note = Note.objects.create(text="a")
            Note.objects.update(text="b")
            process.succeed()
        row = rows_of(process)[1]
        assert (row["old"], row["new"]) == ({"id": note.pk}, {"id": note.pk, "text": "b"})
        assert (row["changed"], row["unknown"]) == (["text"], ["text"])

    def test_truncate_and_messages(self, stream: Stream) -> None:
        with tail("testapp.Note", "--json", "--messages", "-n", "3") as process:
            query("TRUNCATE testapp_note")
            query("SELECT pg_logical_emit_message(true, 'mine', 'text')")
            query("SELECT pg_logical_emit_message(false, 'mine', '\\xff'::bytea)")
            Note.objects.create(text="makes the server flush what is not transactional")
            process.succeed()
        by_kind = {(row["operation"], row.get("encoding")): row for row in rows_of(process)}
        truncate = by_kind["truncate", None]
        assert (truncate["model"], truncate["cascade"], truncate["restart_identity"]) == ("testapp.Note", False, False)
        assert by_kind["message", "utf-8"]["content"] == "text"
        loose = by_kind["message", "base64"]
        assert (loose["content"], loose["xid"], loose["committed_at"]) == ("/w==", None, None)

    @pytest.mark.parametrize("arguments", [(), ("--json",)])
    def test_a_reader_that_goes_ends_it_quietly(self, stream: Stream, arguments: tuple[str, ...]) -> None:
        pipe = f"{{ {sys.executable} {MANAGE} waltail testapp.Note {' '.join(arguments)}; echo ended $? >&2; }} | head -n 1"
        with ManagedProcess(["sh", "-c", pipe], env=environment()) as shell:
            shell.wait_for_stderr("watching")
            Note.objects.create(text="one")  # and no other, whose writing would fail: nobody has to wait for one
            shell.wait_for_stdout("insert")
            shell.wait_for_stderr("ended 0")
            shell.wait()
        assert shell.stderr.lines[1:] == ["ended 0\n"]
        assert publications() == []


class TestChoice:
    def test_operations(self, full_identity: None) -> None:
        with tail("testapp.Note", "--operations", "UPDATE,truncate", "-n", "2") as process:
            note = Note.objects.create(text="a")
            Note.objects.update(text="b")
            note.delete()
            query("TRUNCATE testapp_note")
            process.succeed()
        assert re.findall("insert|update|delete|truncate", process.stdout.text) == ["update", "truncate"]

    def test_fields_narrow_updates_and_what_is_shown(self, full_identity: None) -> None:
        query("ALTER TABLE auth_group REPLICA IDENTITY FULL")
        with tail("auth.Group", "auth.User", "--fields", "is_active,username", "--json", "-n", "3") as process:
            Group.objects.create(name="has neither field")
            user = User.objects.create(username="u", email="a@example.org")
            User.objects.filter(pk=user.pk).update(email="b@example.org")
            with psycopg.connect(database_dsn()) as session:
                session.execute("ALTER TABLE auth_user REPLICA IDENTITY FULL")
            User.objects.filter(pk=user.pk).update(email="c@example.org")
            User.objects.filter(pk=user.pk).update(is_active=False)
            process.succeed()
        query("ALTER TABLE auth_group REPLICA IDENTITY DEFAULT")
        query("ALTER TABLE auth_user REPLICA IDENTITY DEFAULT")
        inserted, maybe, updated = rows_of(process)
        assert inserted["new"] == {"username": "u", "is_active": True}
        assert maybe["unknown"] == ["is_active", "username"]  # the first update: before FULL nobody can tell
        assert updated["changed"] == ["is_active"]

    def test_excluded_fields_are_nowhere(self, stream: Stream) -> None:
        secrets = {"password": "hunter2"}
        for arguments in ([], ["--json"]):
            with tail("auth.user", *arguments, "-n", "3") as process:
                user = User.objects.create(username="u", **secrets)
                User.objects.update(password="hunter2 again", first_name="f")
                user.delete()
                process.succeed()
            assert "hunter2" not in process.stdout.text + process.stderr.text
            assert "password" not in process.stdout.text

    def test_without_models_it_shows_what_the_stream_publishes(self, stream: Stream) -> None:
        stream.configure(MODELS=["testapp.Note"])
        settings = json.dumps({"default": {"SLOT": stream.name, "MODELS": ["testapp.Note"]}})
        with tail("-n", "1", TEST_WALSIGNALS=settings) as process:
            Group.objects.create(name="not published")
            Note.objects.create(text="a")
            process.succeed()
        assert "watching testapp.Note of database default" in process.stderr.text
        assert "Group" not in process.stdout.text

    def test_without_models_and_receivers_it_shows_every_one(self, stream: Stream) -> None:
        with tail("-n", "2") as process:
            Group.objects.create(name="g")
            Note.objects.create(text="a")
            process.succeed()
        assert "insert auth.Group" in process.stdout.text
        assert "insert testapp.Note" in process.stdout.text
        assert "walsignals." not in process.stderr.text

    def test_a_table_whose_writes_would_fail_is_left_out_and_said(self, stream: Stream) -> None:
        with identity("NOTHING"), tail("testapp.*", "auth.Group", "-n", "1") as process:
            note = Note.objects.create(text="a")
            Note.objects.filter(pk=note.pk).update(text="the application's own update works")
            Group.objects.create(name="g")
            process.succeed()
        assert "waltail: left out: Publishing public.testapp_note (testapp.Note) would make" in process.stderr.text
        assert "testapp" not in process.stdout.text

    def test_a_table_asked_for_whose_writes_would_fail_is_refused(self, stream: Stream) -> None:
        with identity("NOTHING"):
            process = refused("testapp.Note")
        assert process.returncode == 1
        assert "would make the application's UPDATE and DELETE fail" in process.stderr.text
        assert publications() == []

    @pytest.mark.parametrize(
        ("arguments", "returncode", "said"),
        [
            (["testapp.Noet"], 2, "No app has a model 'testapp.Noet': did you mean 'testapp.Note'?"),
            (["note"], 2, "did you mean 'testapp.Note'?"),
            (["tesapp.*"], 2, "did you mean 'testapp.*'?"),
            (["walsignals.Checkpoint"], 1, "can't be published"),
            (["testapp.Note", "--fields", "txt"], 2, "a field 'txt': did you mean 'text'?"),
            (["--operations", "updat"], 2, "'updat' is none of insert, update, delete, truncate"),
            (["-n", "0"], 2, "'0' is not a positive whole number"),
            (["--stream", "defualt"], 1, "There is no stream 'defualt' in WALSIGNALS: did you mean 'default'?"),
            (["--database", "defualt"], 2, "There is no database 'defualt' in DATABASES: did you mean 'default'?"),
            (["--database", "default", "--stream", "default"], 2, "not allowed with argument"),
        ],
    )
    def test_bad_input_gets_one_line(self, stream: Stream, arguments: list[str], returncode: int, said: str) -> None:
        process = refused(*arguments)
        assert process.returncode == returncode
        assert said in process.stderr.text

    def test_another_vendor_is_refused(self, stream: Stream) -> None:
        process = refused("--database", "elsewhere", TEST_SQLITE="1")
        assert process.returncode == 1
        assert "Database 'elsewhere' is sqlite; only PostgreSQL has a WAL" in process.stderr.text

    def test_options_are_checked_in_call_command_too(self, stream: Stream) -> None:
        with pytest.raises(CommandError, match="not a positive") as caught:
            call_command("waltail", max_changes=0)
        assert caught.value.returncode == 2


class TestNothingIsLeft:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_at_once_with_0(self, stream: Stream, number: signal.Signals) -> None:
        with tail("testapp.Note") as process:
            assert publications() != []
            assert slots() != []
            process.signal(number)
            assert process.wait(timeout=5) == 0
        assert "Traceback" not in process.stderr.text
        assert publications() == []
        wait_until(lambda: slots() == [])

    def test_identities_are_as_they_were(self, stream: Stream) -> None:
        with tail("testapp.Note", "-n", "1") as process:
            Note.objects.create(text="a")
            process.succeed()
        assert query("SELECT relreplident FROM pg_class WHERE relname = 'testapp_note'") == ["d"]
        assert query("SELECT count(*) FROM walsignals_checkpoint") == [0]

    def test_no_receiver_of_the_application_runs(self, stream: Stream) -> None:
        with tail("testapp.Note", "-n", "1", TEST_RECEIVERS="tests.effects", EFFECTS_SAY="1") as process:
            Note.objects.create(text="a")
            process.succeed()
        assert "insert testapp.Note" in process.stdout.text
        assert "effect of" not in process.stdout.text
        assert not Effect.objects.exists()

    def test_a_publication_that_is_there_is_used_and_left(self, stream: Stream) -> None:
        with stream.process("--until-lsn", "now") as consumer:
            consumer.succeed()
        before = publications()
        settings = json.dumps({"default": {"SLOT": stream.name, "PUBLICATION": before[0]}})
        with tail("testapp.note", "-n", "1", TEST_WALSIGNALS=settings) as process:
            assert publications() == before
            Note.objects.create(text="a")
            process.succeed()
        assert f"through publication {before[0]}" in process.stderr.text
        assert publications() == before

    def test_a_publication_that_lacks_a_table_is_not_touched(self, stream: Stream) -> None:
        with stream.process("--until-lsn", "now") as consumer:
            consumer.succeed()
        before = publications()
        settings = json.dumps({"default": {"SLOT": stream.name, "PUBLICATION": before[0]}})
        with tail("testapp.note", "auth.group", "-n", "1", TEST_WALSIGNALS=settings) as process:
            assert len(publications()) == 2
            Group.objects.create(name="g")
            process.succeed()
        assert publications() == before

    def test_the_end_of_its_connection_is_an_error_that_leaves_nothing(self, stream: Stream) -> None:
        with tail("testapp.Note") as process:
            query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
            assert process.wait() == 1
        assert "what is committed until you start again is not shown" in process.stderr.text
        assert "Traceback" not in process.stderr.text
        assert publications() == []

    def test_it_works_where_nothing_is_migrated_but_the_models(self, stream: Stream) -> None:
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            session.execute("CREATE DATABASE blank")
            dsn = make_conninfo(database_dsn(), dbname="blank")
            try:
                with psycopg.connect(dsn, autocommit=True) as blank:
                    blank.execute("CREATE TABLE testapp_note (id bigserial PRIMARY KEY, text text)")
                    with tail("-n", "1", **{server.DSN: dsn}) as process:
                        blank.execute("INSERT INTO testapp_note (text) VALUES ('seen')")
                        process.succeed()
            finally:
                session.execute("DROP DATABASE blank WITH (FORCE)")
        assert "text: 'seen'" in process.stdout.text

    def test_a_role_without_create_is_told_what_to_have_run(self, stream: Stream) -> None:
        role = f"{stream.name}_role"
        query(f"CREATE ROLE {role} LOGIN REPLICATION IN ROLE pg_read_all_data")
        try:
            process = refused("testapp.Note", **{server.DSN: make_conninfo(database_dsn(), user=role)})
        finally:
            query(f"DROP ROLE {role}")
        assert process.returncode == 1
        assert "Have the owner of the tables, or a superuser, run: CREATE PUBLICATION" in process.stderr.text

    def test_waiting_for_open_transactions_is_shown_and_ends_with_ctrl_c(self, stream: Stream) -> None:
        with psycopg.connect(database_dsn(), application_name="a long report") as open_one:
            open_one.execute("INSERT INTO testapp_note (text) VALUES ('open')")
            with manage("waltail", "auth.Group") as process:
                process.wait_for_stderr("waltail: waiting for open transactions .*a long report")
                process.signal(signal.SIGINT)
                assert process.wait(timeout=10) == 0
        assert publications() == []


class TestSweeping:
    def test_what_a_killed_one_left_goes_with_the_next_and_a_live_one_stays(self, stream: Stream) -> None:
        with tail("testapp.Note") as live, tail("testapp.Note") as killed:
            both = set(publications())
            assert len(both) == 2
            killed.kill()
            wait_until(lambda: len(slots()) == 1)
            with tail("auth.Group") as third:
                left = set(publications())
                assert len(left & both) == 1
                assert third.terminate() == 0
            Note.objects.create(text="the live one still sees it")
            live.wait_for_stdout("still sees it")
            assert live.terminate() == 0
        assert publications() == []

    def test_one_that_is_still_starting_is_live(self, stream: Stream) -> None:
        with psycopg.connect(database_dsn()) as open_one:
            open_one.execute("INSERT INTO testapp_note (text) VALUES ('the slot waits for it')")
            with manage("waltail", "testapp.Note") as starting:
                starting.wait_for_stderr("waiting for open transactions")
                made = publications()
                assert sweep("default") == []
                assert publications() == made != []
                open_one.commit()
                starting.wait_for_stderr("watching")

    def test_only_names_of_our_own_making_are_looked_at(self, stream: Stream) -> None:
        stale, foreign = "walsignals_tmp_0123456789ab", ["my_tmp_0123456789ab", "walsignals_tmp_mine"]
        for name in (stale, *foreign):
            query(f"CREATE PUBLICATION {name}")
        assert sweep("default") == [stale]
        assert publications() == foreign

    def test_a_temporary_consumer_sweeps_too(self, stream: Stream) -> None:
        query("CREATE PUBLICATION walsignals_tmp_0123456789ab")
        with stream.process("--temporary") as process:
            process.wait_for_stdout("streaming")
            [own] = publications()
            assert own != "walsignals_tmp_0123456789ab"
            assert process.terminate() == 0
        assert publications() == []


def test_in_process_it_writes_where_it_is_told(stream: Stream) -> None:
    """``call_command`` in a thread or a test: no file descriptor, no signals."""
    out, err = StringIO(), StringIO()

    def write() -> None:
        wait_until(lambda: "watching" in err.getvalue())
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("INSERT INTO testapp_note (text) VALUES ('seen')")

    dsn = database_dsn()
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        call_command("waltail", "testapp.Note", max_changes=1, operations=["insert"], stdout=out, stderr=err)
        written.result()
    assert "text: 'seen'\n" in out.getvalue()
    assert "\x1b" not in out.getvalue()

"""``walconsume`` as an operator meets it: what it says, what it exits with, how it stops."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from psycopg.conninfo import make_conninfo

from django_walsignals.models import Checkpoint
from tests import server
from tests.conftest import MakeCluster
from tests.ledger.models import Effect
from tests.processes import ROOT, ManagedProcess, database_dsn, run_manage
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def run(stream: Stream, *arguments: str, **settings: Any) -> Any:
    """Run ``walconsume`` to its end, with more settings for the stream."""
    stream.configure(**settings)
    with stream.process(*arguments) as process:
        process.wait()
        return process


def edited_until(module: Path, code: str, process: ManagedProcess) -> str:
    """Save a module until the reloader, which looks once a second, has seen a difference; return the log."""
    saves = 0

    def save() -> bool:
        nonlocal saves
        saves += 1
        module.write_text(code + "#" * saves)
        return "changed, reloading" in process.stderr.text

    wait_until(save, message=lambda: str(process))
    wait_until(lambda: process.stdout.text.count("streaming") > 1, message=lambda: str(process))
    return process.stderr.text


class TestOutput:
    def test_first_start_says_what_it_made_and_then_streams(self, stream: Stream) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE testapp_note REPLICA IDENTITY DEFAULT")
        with stream.process() as process:
            process.wait_for_stdout("streaming default from")
            assert process.terminate() == 0
        slot, publication = stream.name, f'Pub "{stream.name}"'
        assert re.fullmatch(
            "set REPLICA IDENTITY FULL on public.testapp_note\n"
            f"created publication {publication} of public.testapp_note\n"
            f"created replication slot {slot}\n"
            r"streaming default from [0-9A-F]+/[0-9A-F]+"
            "\nstopped: 0 delivered\n",
            process.stdout.text,
        )
        assert process.stderr.text == ""

    def test_second_start_makes_nothing(self, stream: Stream) -> None:
        run(stream, "--until-lsn", "now")
        again = run(stream, "--until-lsn", "now")
        assert again.stdout.text.startswith("streaming default from")

    @pytest.mark.parametrize(("verbosity", "lines"), [("1", 0), ("2", 1)])
    def test_verbosity_sets_how_much_is_logged_to_stderr(self, stream: Stream, verbosity: str, lines: int) -> None:
        process = run(stream, "--until-lsn", "now", "-v", verbosity)
        assert process.stderr.text.count("INFO django_walsignals") >= lines
        assert ("INFO" in process.stderr.text) is bool(lines)

    def test_waiting_for_open_transactions_is_shown(self, stream: Stream) -> None:
        with psycopg.connect(database_dsn(), application_name="a long report") as open_one:
            open_one.execute("SELECT pg_current_xact_id()")
            with stream.process() as process:
                line = process.wait_for_stdout("waiting for open transactions to end before the slot can start: .*")
                assert f"pid {open_one.info.backend_pid}" in line[0]
                assert "a long report" in line[0]
                open_one.commit()
                process.wait_for_stdout("streaming default from")


class TestOptions:
    def test_until_lsn_delivers_what_was_committed_and_exits_0(self, stream: Stream) -> None:
        run(stream, "--until-lsn", "now")
        Note.objects.bulk_create(Note(text="a") for _ in range(2500))
        process = run(stream, "--until-lsn", "now")
        assert process.returncode == 0
        assert process.stdout.text.endswith("stopped: 2500 delivered\n")
        assert Effect.objects.count() == 2500

    def test_until_lsn_takes_a_position(self, stream: Stream) -> None:
        run(stream, "--until-lsn", "now")
        Note.objects.create(text="before")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_flush_lsn()::text")
            (position,) = cursor.fetchone()
        assert run(stream, "--until-lsn", position).returncode == 0
        assert Effect.objects.get().text == "before"

    def test_max_changes_ends_in_the_middle_of_a_transaction(self, stream: Stream) -> None:
        run(stream, "--until-lsn", "now")
        Note.objects.bulk_create(Note(text="a") for _ in range(30))
        assert run(stream, "--max-changes", "7").returncode == 0
        assert Effect.objects.count() == 7

    def test_temporary_leaves_nothing_behind(self, stream: Stream) -> None:
        with stream.process("--temporary", "--max-changes", "1") as process:
            process.wait_for_stdout("streaming default from")
            Note.objects.create(text="seen")
            process.succeed()
        assert Effect.objects.get().text == "seen"
        assert not Checkpoint.objects.exists()
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE %s", [f"{stream.name}%"])
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT count(*) FROM pg_publication")
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT relreplident FROM pg_class WHERE relname = 'testapp_note'")
            assert cursor.fetchone() in {("d",), ("f",)}

    def test_no_setup_creates_nothing(self, stream: Stream) -> None:
        process = run(stream, "--no-setup")
        assert process.returncode == 1
        assert "--no-setup creates nothing. Have this run: " in process.stderr.text
        assert "CREATE PUBLICATION" in process.stderr.text
        assert stream.slot() is None

    def test_reload_needs_debug(self, stream: Stream) -> None:
        assert "needs DEBUG" in run(stream, "--reload").stderr.text

    def test_reload_starts_again_when_code_changes(self, stream: Stream, tmp_path: Path) -> None:
        code = (
            "from django_walsignals import on_change\n"
            "@on_change('testapp.Note')\n"
            "def say(change): print('heard', {!r}, flush=True)\n"
        )
        module = tmp_path / "reloaded_receivers.py"
        module.write_text(code.format("by the old code"))
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        with stream.process("--reload", receivers="reloaded_receivers", PYTHONPATH=path, TEST_DEBUG="1") as process:
            process.wait_for_stdout("streaming")
            Note.objects.create(text="a")
            process.wait_for_stdout("heard by the old code")
            restarted = edited_until(module, code.format("by code that is new"), process)
            assert "reloaded_receivers.py changed, reloading" in restarted
            Note.objects.create(text="b")
            process.wait_for_stdout("heard by code that is new")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--until-lsn", "soon"), "'soon' is not an LSN"),
            (("--max-changes", "0"), "'0' is not a positive whole number"),
            (("--max-changes", "many"), "'many' is not a positive whole number"),
            (("--unknown",), "unrecognized arguments"),
        ],
    )
    def test_wrong_usage_exits_2(self, stream: Stream, arguments: tuple[str, ...], said: str) -> None:
        process = run(stream, *arguments)
        assert process.returncode == 2
        assert said in process.stderr.text


class TestStopping:
    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    def test_first_signal_ends_an_idle_consumer_at_once(self, stream: Stream, signum: signal.Signals) -> None:
        with stream.process() as process:
            process.wait_for_stdout("streaming")
            process.signal(signum)
            assert process.wait(timeout=3) == 0
        assert process.stdout.text.endswith("stopped: 0 delivered\n")

    def test_first_signal_lets_the_batch_in_hand_finish(self, stream: Stream) -> None:
        run(stream, "--until-lsn", "now")
        Note.objects.bulk_create(Note(text=str(number)) for number in range(20))
        stream.configure(BATCH_SIZE=10)
        with stream.process(EFFECTS_SECONDS_EACH="0.05", EFFECTS_SAY="1") as process:
            process.wait_for_stdout("effect of 1$")
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
        assert Effect.objects.count() == 10

    def test_second_signal_stops_at_once_and_rolls_back(self, stream: Stream) -> None:
        run(stream, "--until-lsn", "now")
        Note.objects.create(text="slow")
        with stream.process(EFFECTS_SECONDS_EACH="600", EFFECTS_SAY="1") as process:
            process.wait_for_stdout("effect of slow")
            process.signal(signal.SIGINT)
            process.signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 1
        assert "Stopped at once; the batch in hand comes again" in process.stderr.text
        assert not Effect.objects.exists()
        run(stream, "--until-lsn", "now")
        assert Effect.objects.get().text == "slow"


class TestBadInput:
    def test_slot_in_use_exits_3(self, stream: Stream) -> None:
        with stream.process() as first:
            first.wait_for_stdout("streaming")
            second = run(stream, "--no-wait")
        assert second.returncode == 3
        assert f"Replication slot '{stream.name}' is in use by another consumer (pid" in second.stderr.text
        assert "Traceback" not in second.stderr.text

    @pytest.mark.parametrize("slot", ["Walsignals", 'a"b', "with space", "x" * 64])
    def test_name_that_no_slot_can_have_exits_1(self, stream: Stream, slot: str) -> None:
        process = run_manage("walconsume", TEST_WALSIGNALS=json.dumps({"default": {"SLOT": slot}}))
        assert process.returncode == 1
        assert "can't name a replication slot" in process.stderr.text
        assert "Traceback" not in process.stderr.text

    def test_publication_with_quotes_and_capitals_is_used_as_it_is(self, stream: Stream) -> None:
        name = 'Ünïcode "quoted" Name'
        run(stream, "--until-lsn", "now", PUBLICATION=name)
        Note.objects.create(text="a")
        assert run(stream, "--until-lsn", "now", PUBLICATION=name).returncode == 0
        assert Effect.objects.count() == 1

    @pytest.mark.parametrize(
        ("models", "said"),
        [
            (["testapp.Nought"], "MODELS names 'testapp.Nought', which no app has: did you mean 'testapp.Note'?"),
            (["nowhere.Note"], "MODELS names 'nowhere.Note', which no app has"),
            (["Note"], "MODELS can't be ['Note']"),
            (["walsignals.Checkpoint"], "walsignals.Checkpoint can't be published"),
        ],
    )
    def test_unknown_label_in_models_exits_1(self, stream: Stream, models: list[str], said: str) -> None:
        process = run(stream, MODELS=models)
        assert process.returncode == 1
        assert said in process.stderr.text
        assert "Traceback" not in process.stderr.text

    def test_unknown_stream_exits_1(self, stream: Stream) -> None:
        process = run(stream, "defualt")
        assert process.returncode == 1
        assert "There is no stream 'defualt' in WALSIGNALS: did you mean 'default'?" in process.stderr.text

    def test_unknown_setting_exits_1(self, stream: Stream) -> None:
        process = run(stream, SLOTS="a")
        assert process.returncode == 1
        assert "unknown key 'SLOTS': did you mean 'SLOT'?" in process.stderr.text

    def test_nothing_to_publish_exits_1(self, stream: Stream) -> None:
        with pytest.raises(
            CommandError, match=r"Nothing is to be published: no receiver .* names a model as its sender"
        ):
            call_command("walconsume")

    def test_other_engine_exits_1(self, stream: Stream) -> None:
        stream.configure(DATABASE="elsewhere")
        with stream.process(TEST_SQLITE="1") as process:
            assert process.wait() == 1
        assert "whose engine is sqlite" in process.stderr.text
        assert "Only PostgreSQL has a WAL to read" in process.stderr.text
        assert "Traceback" not in process.stderr.text

    def test_unreachable_server_exits_1(self, stream: Stream) -> None:
        dsn = make_conninfo(host="127.0.0.1", port=1, user="nobody", dbname="nothing")
        with stream.process(**{server.DSN: dsn}) as process:
            assert process.wait() == 1
        assert "is out of reach" in process.stderr.text
        assert "Traceback" not in process.stderr.text

    def test_missing_migrations_exit_1(self, stream: Stream) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE walsignals_checkpoint RENAME TO hidden")
        try:
            process = run(stream)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE hidden RENAME TO walsignals_checkpoint")
        assert process.returncode == 1
        assert "There is no table walsignals_checkpoint yet. Run: manage.py migrate" in process.stderr.text
        assert stream.slot() is None

    @pytest.mark.parametrize(
        "command", ["walconsume", "walsetup", "walsetup --check", "walsetup --sql", "walsetup --drop"]
    )
    def test_an_older_table_exits_1(self, stream: Stream, command: str) -> None:
        stream.listen(Note)
        stream.set_up()
        name, *options = command.split()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE walsignals_checkpoint RENAME last_error_at TO hidden")
        try:
            with pytest.raises(CommandError) as failure:
                call_command(name, *options, stdout=stream.output)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE walsignals_checkpoint RENAME hidden TO last_error_at")
        said = "Table walsignals_checkpoint has no column last_error_at yet. Run: manage.py migrate"
        assert (str(failure.value), failure.value.returncode) == (said, 1)
        assert stream.slot() is not None

    def test_role_without_replication_exits_1(self, stream: Stream) -> None:
        role = f"{stream.name}_role"
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data")
        try:
            with stream.process(**{server.DSN: make_conninfo(database_dsn(), user=role)}) as process:
                assert process.wait() == 1
        finally:
            with connection.cursor() as cursor:
                cursor.execute(f"DROP ROLE {role}")
        assert f"as role {role}" in process.stderr.text
        assert "The role needs the REPLICATION attribute" in process.stderr.text
        assert "Traceback" not in process.stderr.text

    def test_wal_level_replica_exits_1_and_says_what_to_run(self, stream: Stream, make_cluster: MakeCluster) -> None:
        private = make_cluster(wal_level="replica")
        dsn = private.dsn()
        run_manage("migrate", **{server.DSN: dsn}).succeed()
        with stream.process(**{server.DSN: dsn}) as process:
            assert process.wait() == 1
        assert "SET wal_level = 'logical'" in process.stderr.text
        assert "Traceback" not in process.stderr.text


def test_long_idle_consumer_keeps_its_position_at_a_bounded_rate(stream: Stream) -> None:
    """Other tables' WAL is let go of, and the checkpoint is not written for every keepalive."""
    with stream.process() as process:
        process.wait_for_stdout("streaming")
        first = stream.checkpoint
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE unpublished AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
            cursor.execute("SELECT pg_current_wal_flush_lsn()")
            cursor.execute("DROP TABLE unpublished")
        moved = wait_until(lambda: stream.checkpoint if stream.checkpoint.lsn - first.lsn > 4_000_000 else None)
        wait_until(lambda: (slot := stream.slot()) and slot.confirmed_flush and slot.confirmed_flush >= moved.lsn)
        assert process.terminate() == 0

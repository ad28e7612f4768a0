"""``walstatus`` as an operator and a probe meet it."""

import json
import re
import signal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from django_walsignals.models import Checkpoint
from tests.commands.test_walreplay import make
from tests.processes import manage, run_manage
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: What a monitoring system may rely on: adding is fine, taking away is not.
KEYS = {
    "stream",
    "state",
    "problem",
    "database",
    "slot",
    "active",
    "consumer_pid",
    "consumer_host",
    "started_at",
    "heartbeat_at",
    "batch_seconds",
    "checkpoint",
    "committed_at",
    "flushed",
    "lag_bytes",
    "lag_seconds",
    "retained_bytes",
    "safe_wal_bytes",
    "wal_status",
    "inactive_since",
    "dead_letters",
    "last_error",
    "last_error_at",
    "read_at",
}


def status(*arguments: str, **options: Any) -> str:
    output = StringIO()
    call_command("walstatus", *arguments, stdout=output, **options)
    return output.getvalue()


def as_json(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(status("--json", *arguments))
    return found


@pytest.fixture
def stopped(stream: Stream) -> Stream:
    """Give a stream of notes that nobody consumes, with a change before it."""
    stream.listen(Note)
    stream.set_up()
    Note.objects.create(text="waits")
    return stream


class TestOutput:
    def test_a_block_says_all_there_is(self, stopped: Stream) -> None:
        make(1)
        Checkpoint.objects.update(last_error="it \x1b[2Jbroke", last_error_at="2026-01-01T00:00Z")
        text = status()
        assert re.match(r"default +stopped\n", text)
        for pattern in (
            r"problem +Nobody consumes it, and its slot keeps all log\. Run: manage\.py walconsume default",
            r"consumer +none.*; the last one was pid \d+ on \S+",
            rf"checkpoint +{stopped.checkpoint.lsn}",
            r"lag +[\d.]+ k?B, [\d.]+ s",
            r"WAL kept +[\d.]+ k?B; no limit \(max_slot_wal_keep_size is -1\): it may fill the disk",
            r"dead letters +1",
            r"last error +\d+ d( \d+ h)? ago: it \?\[2Jbroke",
        ):
            assert re.search(pattern, text), (pattern, text)
        assert "\x1b" not in text

    def test_a_running_consumer_is_named(self, stopped: Stream) -> None:
        with stopped.process() as process:
            process.wait_for_stdout("streaming")
            text = status()
        assert f"pid {process.pid} on " in text
        assert "last heard" in text and "problem" not in text

    def test_json_has_its_keys_and_plain_values(self, stopped: Stream) -> None:
        (found,) = as_json()
        assert found.keys() == KEYS
        assert found["stream"] == "default" and found["state"] == "stopped" and found["active"] is False
        assert found["checkpoint"] == str(stopped.checkpoint.lsn)
        assert isinstance(found["lag_bytes"], int) and isinstance(found["lag_seconds"], float)
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", found["read_at"])

    def test_every_stream_or_those_named(self, stopped: Stream, settings: Any) -> None:
        settings.WALSIGNALS = {**settings.WALSIGNALS, "audit": {}}
        assert [found["stream"] for found in as_json()] == ["default", "audit"]
        assert [(found["stream"], found["state"]) for found in as_json("audit")] == [("audit", "not_set_up")]

    def test_colour_only_where_it_is_wanted(self, stopped: Stream) -> None:
        assert "\x1b[" in status(force_color=True)
        assert "\x1b" not in status(no_color=True)
        assert "stopped" in status(force_color=True)


class TestProbe:
    def test_a_slot_without_a_consumer_is_over_before_it_fills_a_disk(self, stopped: Stream) -> None:
        assert "stopped" in status(max_lag=["100MB", "1h"])
        write_log(200_000)
        for limit, said in (
            ("100kB", r"default \(stopped\): \d+ kB of log behind, over 100kB"),
            ("0s", "behind, over 0s"),
        ):
            output = StringIO()
            with pytest.raises(CommandError, match=said) as failure:
                call_command("walstatus", max_lag=[limit], stdout=output)
            assert failure.value.returncode == 1
            assert "stopped" in output.getvalue()

    def test_a_missing_slot_is_over_any_limit(self, stopped: Stream) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_drop_replication_slot(%s)", [stopped.name])
        with pytest.raises(CommandError, match=r"default: slot missing: .* is gone.*--accept-gap"):
            status(max_lag=["1TB"])

    def test_a_consumer_that_keeps_up_passes_however_long_nothing_happened(self, stopped: Stream) -> None:
        with stopped.process() as process:
            process.wait_for_stdout("streaming")
            wait_until(lambda: as_json()[0]["lag_seconds"] == 0, message=status)
            Checkpoint.objects.update(committed_at="2026-01-01T00:00Z")
            assert status("--max-lag", "0.5s", "--max-lag", "64KiB")

    def test_as_a_process(self, stopped: Stream) -> None:
        env = {"TEST_WALSIGNALS": json.dumps(stopped._settings.WALSIGNALS)}
        assert run_manage("walstatus", "--max-lag", "1GB", **env).returncode == 0
        over = run_manage("walstatus", "--json", "--max-lag", "1B", **env)
        assert over.returncode == 1
        assert json.loads(over.stdout.text)[0]["state"] == "stopped"
        assert over.stderr.text.count("\n") == 1 and "over 1B" in over.stderr.text


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["defualt"], 1, "CommandError: There is no stream 'defualt' in WALSIGNALS: did you mean 'default'?"),
            (["--max-lag", "10M"], 2, "argument --max-lag: '10M' is neither a size such as 10MB or 64KiB nor a time"),
            (["--max-lag", "-1s"], 2, "argument --max-lag: expected one argument"),
            (["--watch", "soon"], 2, "argument --watch: 'soon' is not a number of seconds"),
            (["--watch", "0"], 2, "argument --watch: '0' is not a positive number of seconds"),
            (["--watch", "1", "--max-lag", "1s"], 2, "it does not go with --watch"),
        ],
    )
    def test_one_line_and_the_exit_code(self, db: None, arguments: list[str], code: int, said: str) -> None:
        process = run_manage("walstatus", *arguments)
        assert process.returncode == code, process
        lines = [line for line in process.stderr.text.splitlines() if said in line]
        assert len(lines) == 1, process
        assert "Traceback" not in process.stderr.text

    def test_options_given_to_call_command_are_checked_too(self, db: None) -> None:
        for options in ({"max_lag": ["ten"]}, {"watch": "soon"}):
            with pytest.raises(CommandError) as failure:
                call_command("walstatus", **options)
            assert failure.value.returncode == 2

    def test_a_server_out_of_reach_is_shown_and_fails_a_probe(self, db: None) -> None:
        dsn = {"WALSIGNALS_TEST_DSN": "host=127.0.0.1 port=1 user=nobody dbname=none"}
        shown = run_manage("walstatus", **dsn)
        assert shown.returncode == 0
        assert re.search(r"default +unreachable\n +problem .*refused", shown.stdout.text), shown
        probed = run_manage("walstatus", "--max-lag", "1h", **dsn)
        assert probed.returncode == 1
        assert "default: unreachable" in probed.stderr.text and "Traceback" not in probed.stderr.text


class TestWatch:
    @pytest.mark.parametrize("is_json", [False, True])
    def test_it_looks_again_and_ends_with_ctrl_c(self, stopped: Stream, is_json: bool) -> None:
        env = {"TEST_WALSIGNALS": json.dumps(stopped._settings.WALSIGNALS)}
        with manage("walstatus", "--watch", "0.1", *(["--json"] if is_json else []), **env) as process:
            process.wait_for_stdout("stopped")
            consumed = len(process.stdout.lines)
            stopped.consume()
            wait_until(lambda: len(process.stdout.lines) > consumed + 2, message=lambda: str(process))
            process.signal(signal.SIGINT)
            assert process.wait() == 0, process
        assert process.stderr.text == ""
        if is_json:
            assert all(json.loads(line)[0]["stream"] == "default" for line in process.stdout.lines)


def write_log(size: int) -> None:
    """Write so many bytes of log that no publication has anything to do with."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', %s))", [size])

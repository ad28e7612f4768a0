"""The status of a stream: read from the server's views and the checkpoint, without a write while nothing happens."""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError
from django.db import connection, connections
from django.utils import timezone

from django_walsignals.exceptions import ConfigurationError
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.activity import ServerActivity, SlotActivity
from django_walsignals.replication.catalogue import read_flushed_lsn
from django_walsignals.status import State, StreamStatus, read_status, read_statuses, reading
from tests.commands.test_walreplay import make
from tests.conftest import MakeCluster
from tests.faults.private import Private
from tests.ledger.models import Effect
from tests.processes import database_dsn
from tests.server import database
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: Fast heartbeats: four fit into it.
HEARTBEATS = {"REPLICATION_OPTIONS": {"options": "-c wal_sender_timeout=2s"}}


@pytest.fixture
def notes(stream: Stream) -> Stream:
    """Give a stream of notes that is set up, and consumed by nobody."""
    stream.listen(Note)
    stream.set_up()
    return stream


def execute(query: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall() if cursor.description else None


def flushed() -> LSN:
    with connection.cursor() as cursor:
        return read_flushed_lsn(cursor)


def next_transaction() -> str:
    """Give the number of the next transaction that writes."""
    ((number,),) = execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    return str(number)


def wait_for(state: State, **about: Any) -> StreamStatus:
    """Wait until the stream is in a state."""
    found = [read_status()]

    def is_it() -> bool:
        found.append(read_status())
        return found[-1].state is state

    wait_until(is_it, message=lambda: f"{found[-1]}")
    return found[-1]


class TestConsumer:
    def test_it_is_named_with_its_process_and_host(self, notes: Stream) -> None:
        with notes.process() as process:
            process.wait_for_stdout("streaming")
            status = wait_for(State.STREAMING)
            assert status.active
            assert (status.consumer_pid, status.consumer_host) == (process.pid, socket.gethostname())
            assert status.started_at and status.read_at
            assert timedelta(0) <= status.read_at - status.started_at < timedelta(minutes=1)
            assert status.lag_seconds == 0 and not status.problem
        assert process.pid == read_status().consumer_pid

    def test_an_idle_stream_has_a_heartbeat_and_writes_nothing(self, notes: Stream) -> None:
        notes.configure(**HEARTBEATS)
        with notes.process() as process:
            process.wait_for_stdout("streaming")
            first = wait_for(State.STREAMING)
            before, log_end, updated_at = next_transaction(), flushed(), notes.checkpoint.updated_at
            beats: set[datetime | None] = {first.heartbeat_at}
            wait_until(lambda: beats.add(read_status().heartbeat_at) or len(beats) >= 5, message=lambda: str(beats))
            assert next_transaction() == before, "somebody wrote"
            assert flushed() - log_end < 1024, "more than the server's own snapshot, which it may write any time"
            assert notes.checkpoint.updated_at == updated_at

    def test_a_stuck_receiver_shows_as_a_batch_in_hand_and_as_lag(self, notes: Stream) -> None:
        notes.configure(**HEARTBEATS)
        with notes.process(EFFECTS_PAUSE_ON="stuck") as process:
            process.wait_for_stdout("streaming")
            Checkpoint.objects.update(committed_at=timezone.now() - timedelta(hours=8))
            Note.objects.create(text="stuck")
            status = wait_until(lambda: (found := read_status()).batch_seconds and found, message=str)
            assert status.active
            assert status.lag_seconds == pytest.approx(status.batch_seconds)
            assert status.lag_seconds < 60, "a quiet night is not lag"
            later = wait_until(lambda: (found := read_status()).lag_seconds > status.lag_seconds + 0.5 and found)
            assert later.batch_seconds > status.batch_seconds

    def test_a_receiver_that_is_stuck_before_its_first_query_shows_as_lag(self, notes: Stream, tmp_path: Path) -> None:
        notes.configure(**HEARTBEATS)
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with notes.process(receivers="tests.metrics.watched", WATCHED_PIPE=str(pipe)) as process:
            process.wait_for_stdout("streaming")
            Note.objects.create(text="hang")
            status = wait_for(State.BEHIND)
            assert status.batch_seconds is None and status.lag_bytes < 65_536
            pipe.write_text("go on")
            wait_for(State.STREAMING)

    def test_it_knows_when_the_last_commit_applied_was_made(self, notes: Stream) -> None:
        started = timezone.now()
        Note.objects.create()
        assert notes.consume()
        committed_at = read_status().committed_at
        assert committed_at is not None and started <= committed_at <= timezone.now()

    def test_log_of_others_moves_the_time_too(self, notes: Stream) -> None:
        Checkpoint.objects.update(committed_at="2026-01-01T00:00Z")
        with notes.process() as process:
            process.wait_for_stdout("streaming")
            started = timezone.now()
            execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 200000))")
            wait_until(lambda: (read_status().committed_at or started) > started, message=lambda: str(read_status()))
            assert read_status().lag_seconds == 0


class TestWithoutConsumer:
    def test_a_stopped_stream_falls_behind_in_bytes_and_in_time(self, notes: Stream) -> None:
        first = read_status()
        assert first.state is State.STOPPED and not first.active
        assert "walconsume default" in first.problem
        execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
        second = read_status()
        assert second.lag_bytes >= first.lag_bytes + 100_000
        assert second.retained_bytes >= second.lag_bytes
        assert wait_until(lambda: read_status().lag_seconds > second.lag_seconds)

    def test_a_stream_that_was_up_to_date_ages_from_its_end_on(self, notes: Stream) -> None:
        with notes.process() as process:
            Note.objects.create(text="the last one")
            wait_until(Effect.objects.exists, message="nothing was delivered")
            Checkpoint.objects.update(committed_at=timezone.now() - timedelta(hours=8))
            assert process.terminate() == 0
        execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
        assert read_status().lag_seconds < 60

    def test_a_stream_that_ends_before_it_is_up_to_date_keeps_its_age(self, notes: Stream) -> None:
        for text in ("first", "second", "third"):
            Note.objects.create(text=text)
        (first,) = notes.consume(max_changes=1)
        assert read_status().committed_at == first.transaction.committed_at

    def test_a_batch_that_was_given_up_does_not_count_as_up_to_date(self, notes: Stream) -> None:
        Note.objects.create(text="poison")
        with notes.process(EFFECTS_RAISE_ON="poison", EFFECTS_SAY="1") as process:
            Checkpoint.objects.update(committed_at=timezone.now() - timedelta(hours=8))
            process.wait_for_stderr("attempt 1 of 5")
            assert process.terminate() == 0
        assert read_status().lag_seconds > 3600

    def test_a_killed_consumer_is_gone_from_the_status(self, notes: Stream) -> None:
        with notes.process() as process:
            process.wait_for_stdout("streaming")
            wait_for(State.STREAMING)
            process.kill()
            wait_for(State.STOPPED)

    def test_a_slot_that_is_gone(self, notes: Stream) -> None:
        execute("SELECT pg_drop_replication_slot(%s)", notes.name)
        status = read_status()
        assert status.state is State.SLOT_MISSING and status.state.is_broken
        assert "--accept-gap" in status.problem
        assert status.retained_bytes is None and status.lag_bytes is not None

    def test_a_slot_that_somebody_moved(self, notes: Stream) -> None:
        Note.objects.create()
        execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", notes.name)
        assert read_status().state is State.GAP

    def test_a_checkpoint_ahead_of_the_log(self, notes: Stream) -> None:
        Checkpoint.objects.update(lsn=LSN.parse("FFFF/0"))
        status = read_status()
        assert status.state is State.GAP
        assert status.lag_bytes == 0

    def test_a_stream_that_was_never_started(self, stream: Stream) -> None:
        status = read_status()
        assert (status.state, status.checkpoint, status.lag_bytes, status.lag_seconds) == (
            State.NOT_SET_UP,
            None,
            None,
            None,
        )

    def test_a_slot_that_was_made_and_never_used_has_a_lag(self, stream: Stream) -> None:
        execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", stream.name)
        execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
        status = read_status()
        assert status.state is State.STOPPED
        assert status.lag_bytes is not None and status.lag_bytes >= 100_000

    def test_dead_letters_are_those_of_the_stream(self, notes: Stream) -> None:
        make(1)
        make(2, stream="other")
        assert read_status().dead_letters == 1


class TestLastError:
    def test_a_stopped_receiver_is_named_without_values(self, notes: Stream) -> None:
        notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
        Note.objects.create(text="secret")
        with notes.process(receivers="tests.leaky") as process:
            assert process.wait() == 1
        assert "secret" in process.stderr.text, "the log may say it"
        status = read_status()
        assert status.state is State.FAILING
        assert status.last_error.startswith("receiver tests.leaky.leak raised ValueError on change ")
        assert "secret" not in str(status.as_json())

    def test_a_value_that_a_constraint_names_is_left_out(self, notes: Stream) -> None:
        notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
        Note.objects.create(text="secret")
        with notes.process(receivers="tests.leaky", LEAK="constraint") as process:
            assert process.wait() == 1
        assert read_status().last_error.startswith("receiver tests.leaky.leak raised ")
        assert "secret" not in read_status().last_error

    def test_a_gap_is_kept(self, notes: Stream) -> None:
        execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", notes.name)
        with pytest.raises(CommandError, match="has a gap"):
            notes.consume()
        assert "has a gap" in read_status().last_error

    def test_an_outage_is_kept_and_over_at_the_next_session(self, notes: Stream) -> None:
        with notes.process() as process:
            process.wait_for_stdout("streaming")
            wait_for(State.STREAMING)
            execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", notes.name
            )
            wait_until(lambda: read_status().last_error, message=lambda: str(process))
            status = wait_for(State.STREAMING)
            assert status.last_error_at and status.started_at
            assert status.last_error_at < status.started_at
            assert process.terminate() == 0
        assert read_status().state is State.STOPPED

    def test_another_consumer_that_is_refused_is_no_error(self, notes: Stream) -> None:
        with notes.process() as process:
            process.wait_for_stdout("streaming")
            with notes.process("--no-wait") as second:
                assert second.wait() == 3
            assert read_status().last_error == ""


class TestServers:
    def test_headroom_and_a_lost_slot(self, stream: Stream, make_cluster: MakeCluster) -> None:
        stream.listen(Note)
        private = Private(make_cluster(max_slot_wal_keep_size="16MB", min_wal_size="32MB", max_wal_size="32MB"), stream)
        with private.consumer("--until-lsn", "now") as consumer:
            assert consumer.wait() == 0, consumer
        with reading_from(private.cluster.dsn()):
            first = read_status()
            assert first.state is State.STOPPED
            assert first.safe_wal_bytes is not None and 0 < first.safe_wal_bytes <= 64_000_000
            private.execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 1000000))")
            second = read_status()
            assert second.safe_wal_bytes < first.safe_wal_bytes - 900_000
            for _ in range(6):
                private.execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'filler', 'x')")
                private.execute("CHECKPOINT")
            lost = read_status()
            assert lost.state is State.SLOT_LOST and "--accept-gap" in lost.problem

    def test_a_server_that_is_down_is_a_state_and_so_is_its_return(
        self, stream: Stream, make_cluster: MakeCluster
    ) -> None:
        private = Private(make_cluster(), stream)
        with reading_from(private.cluster.dsn()):
            assert read_status().state is State.NOT_SET_UP
            private.cluster.stop("fast")
            for _ in range(2):
                status = read_status()
                assert status.state is State.UNREACHABLE and status.problem
                assert (status.lag_bytes, status.read_at, status.dead_letters) == (None, None, None)
            private.cluster.start()
            wait_until(lambda: read_status().state is State.NOT_SET_UP)

    def test_a_role_that_sees_little_is_told_what_it_can_not_see(self, notes: Stream) -> None:
        execute("CREATE ROLE watcher LOGIN")
        try:
            execute("GRANT SELECT ON walsignals_checkpoint, walsignals_deadletter TO watcher")
            with notes.process() as process:
                process.wait_for_stdout("streaming")
                with reading_from(psycopg.conninfo.make_conninfo(database_dsn(), user="watcher")):
                    status = read_status()
            assert status.state is State.STREAMING and status.active
            assert status.heartbeat_at is None and status.batch_seconds is None
            assert status.lag_bytes is not None and status.consumer_pid == process.pid
        finally:
            execute("DROP OWNED BY watcher; DROP ROLE watcher")


def test_a_database_that_was_not_migrated_says_so(stream: Stream, make_cluster: MakeCluster) -> None:
    with reading_from(make_cluster().dsn()):
        status = read_status()
    assert status.state is State.NOT_SET_UP
    assert status.problem.endswith("Run: manage.py migrate")


def test_every_configured_stream_is_read(stream: Stream, settings: Any) -> None:
    settings.WALSIGNALS = {**settings.WALSIGNALS, "audit": {}}
    assert [status.stream for status in read_statuses()] == ["default", "audit"]
    with pytest.raises(ConfigurationError, match="did you mean 'audit'"):
        read_status("audti")


@pytest.mark.django_db
def test_reading_does_no_harm_to_a_transaction(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr("django_walsignals.replication.activity._SLOT", "SELECT wrong, %s")
    Note.objects.create(text="kept")
    assert read_status().state in (State.UNREACHABLE, State.NOT_SET_UP)
    assert Note.objects.get().text == "kept"


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def lag_seconds(
    *,
    size: int,
    committed: float,
    active: bool = True,
    batch: float | None = None,
    updated: float = 0.0,
    busy: bool = False,
) -> float | None:
    """Judge a stream's age from how many seconds ago things happened."""

    def ago(seconds: float) -> datetime:
        return NOW - timedelta(seconds=seconds)

    slot = SlotActivity(7 if active else None, LSN(1), LSN(1), "reserved", None, "", None, None, has_batch=busy)
    checkpoint = Checkpoint(lsn=LSN(1000), committed_at=ago(committed), updated_at=ago(updated))
    in_hand = None if batch is None else (batch, ago(batch))
    server = ServerActivity(NOW, LSN(1000 + size), slot)
    return reading._lag_seconds(server, reading._Kept(checkpoint, in_hand, 0), size)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"size": 0, "committed": 900, "active": False}, 0),
        ({"size": 1, "committed": 900, "active": False}, 900),
        ({"size": 65_535, "committed": 900}, 0),
        ({"size": 65_536, "committed": 900}, 900),
        ({"size": 10, "committed": 900, "batch": 3, "updated": 800}, 3),
        ({"size": 10**9, "committed": 900, "batch": 3, "updated": 3}, 900),
        ({"size": 10**9, "committed": 900, "batch": 3, "updated": 800}, 3),
        ({"size": 10**9, "committed": -5}, 0),
        ({"size": 10, "committed": 900, "busy": True}, 900),
        ({"size": 10, "committed": 900, "busy": True, "batch": 3, "updated": 800}, 3),
    ],
    ids=[
        "stopped, nothing before it",
        "stopped, something before it",
        "up to date but for an idle position",
        "behind",
        "one batch in hand",
        "one batch of many in hand",
        "a large batch in hand after a quiet night",
        "a clock that goes backwards",
        "a batch in hand before its first query",
        "a batch in hand after its first query",
    ],
)
def test_how_old_the_oldest_change_can_be(facts: dict[str, Any], expected: float) -> None:
    assert lag_seconds(**facts) == expected


class reading_from:  # noqa: N801  # a context manager
    """Point Django's connection at another server for a while."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __enter__(self) -> None:
        self._kept = connections["default"]
        changed = {**self._kept.settings_dict, **database(self._dsn)}
        connections["default"] = type(self._kept)(changed, "default")

    def __exit__(self, *_: object) -> None:
        connections["default"].close()
        connections["default"] = self._kept

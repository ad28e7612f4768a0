"""What Prometheus gets from a consumer that works, fails, stands by and loses its server."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from django_walsignals.models import DeadLetter
from tests.conftest import MakeCluster
from tests.faults.private import Private
from tests.metrics.scraping import OPENMETRICS, RECEIVERS, Target, consumer
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

NOTE = "testapp.Note"


def wait_for(target: Target, name: str, value: float, **labels: str) -> None:
    wait_until(
        lambda: target.scrape().values(name, **labels) == [value],
        message=lambda: f"{name} {labels}: {target.scrape().values(name, **labels)} {target.process}",
    )


def write_everything() -> None:
    """Have an insert, an update, a delete, a message, a truncate."""
    note = Note.objects.create(text="a")
    Note.objects.filter(pk=note.pk).update(text="wanted")
    note.delete()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_logical_emit_message(true, 'shop', 'hello')")
        cursor.execute("TRUNCATE testapp_note")


class TestWork:
    def test_what_is_done_is_counted(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            before = target.scrape()
            assert before.values("walsignals_changes_total") == []
            assert before.value("walsignals_batches_total", stream="default") == 0
            write_everything()
            wait_for(target, "walsignals_changes_total", 1, model=NOTE, operation="truncate")
            samples = target.scrape()
            for operation in ("insert", "update", "delete"):
                assert samples.value("walsignals_changes_total", model=NOTE, operation=operation) == 1
            assert samples.value("walsignals_changes_total", model="", operation="message") == 1
            batches = samples.value("walsignals_batches_total")
            assert 1 <= batches <= 5
            assert samples.value("walsignals_batch_seconds_count") == batches
            assert samples.value("walsignals_batch_seconds_bucket", le="+Inf") == batches
            assert samples.value("walsignals_batch_seconds_sum") > 0
            assert time.time() - samples.value("walsignals_last_delivery_timestamp_seconds") < 60
            assert samples.value("walsignals_without_progress_seconds") == 0
            assert samples.state() == "streaming"
            assert samples.value("walsignals_stream_state", state="streaming") == 1
            assert samples.value("process_resident_memory_bytes") > 10e6

    def test_receivers_are_measured_each_by_itself(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            write_everything()
            wait_for(target, "walsignals_receiver_seconds_count", 1, receiver=f"{RECEIVERS}.truncated")
            samples = target.scrape()
            calls = "walsignals_receiver_seconds_count"
            assert samples.value(calls, receiver=f"{RECEIVERS}.note_changed") == 3
            assert samples.value(calls, receiver=f"{RECEIVERS}.told") == 1
            assert samples.value(calls, receiver=f"{RECEIVERS}.picky") == 2  # its filter turned one down
            assert samples.value("walsignals_receiver_seconds_sum", receiver=f"{RECEIVERS}.note_changed") > 0

    def test_failures_and_dead_letters_are_counted(self, stream: Stream) -> None:
        stream.configure(MAX_ATTEMPTS=2)
        receiver = f"{RECEIVERS}.note_changed"
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            Note.objects.create(text="good")
            wait_for(target, "walsignals_receiver_failures_total", 0, receiver=receiver)
            assert target.scrape().value("walsignals_dead_letters_total", receiver=receiver) == 0
            Note.objects.create(text="bad")
            wait_for(target, "walsignals_dead_letters_total", 1, receiver=receiver)
            samples = target.scrape()
            assert samples.value("walsignals_receiver_failures_total", receiver=receiver) == 3  # the batch's, and two
            assert samples.value("walsignals_batches_rolled_back_total") == 1
            wait_for(target, "walsignals_changes_total", 2, model=NOTE, operation="insert")
            assert samples.value("walsignals_dead_letters_pending") == 1
            DeadLetter.objects.all().delete()
            assert target.scrape().value("walsignals_dead_letters_pending") == 0

    def test_lag_is_seen_while_a_receiver_takes_its_time(self, stream: Stream, pipe: str) -> None:
        with consumer(stream, WATCHED_PIPE=pipe) as target:
            target.process.wait_for_stdout("streaming")
            Note.objects.create(text="hang")
            wait_until(lambda: target.scrape().value("walsignals_without_progress_seconds") > 0)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 300000))")
            samples = target.scrape()
            assert samples.value("walsignals_lag_bytes") > 300_000
            assert samples.value("walsignals_retained_wal_bytes") > 300_000
            assert samples.value("walsignals_lag_seconds") > 0
            release(pipe)
            wait_for(target, "walsignals_lag_seconds", 0)
            wait_until(lambda: target.scrape().value("walsignals_lag_bytes") < 65_536 * 2)

    def test_every_metric_is_accepted_by_both_formats(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            write_everything()
            wait_for(target, "walsignals_changes_total", 1, model=NOTE, operation="truncate")
            plain, open_metrics = target.scrape(), target.scrape(OPENMETRICS)
            assert {name for name in plain.names if name.startswith("walsignals")} == {
                name for name in open_metrics.names if name.startswith("walsignals")
            }

    def test_a_temporary_stream_has_no_status(self, stream: Stream) -> None:
        with consumer(stream, "--temporary") as target:
            target.process.wait_for_stdout("streaming")
            write_everything()
            wait_for(target, "walsignals_changes_total", 1, model=NOTE, operation="truncate")
            assert not {"walsignals_up", "walsignals_lag_bytes"} & target.scrape().names


class TestHeadroom:
    def test_limit_of_wal_is_shown_where_there_is_one(self, stream: Stream, make_cluster: MakeCluster) -> None:
        private = Private(make_cluster(max_slot_wal_keep_size="200MB"), stream)
        with consumer(stream, **private.env) as target:
            target.process.wait_for_stdout("streaming")
            room = target.scrape().value("walsignals_safe_wal_bytes")
            assert 0 < room <= 300e6
            private.execute("SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 2000000))")
            wait_until(lambda: target.scrape().value("walsignals_safe_wal_bytes") < room)

    def test_without_a_limit_there_is_no_number(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            assert target.scrape().values("walsignals_safe_wal_bytes") == []


class TestOutage:
    def test_restart_of_the_server_is_counted_and_survived(self, stream: Stream, make_cluster: MakeCluster) -> None:
        private = Private(make_cluster(), stream)
        with consumer(stream, **private.env) as target:
            target.process.wait_for_stdout("streaming")
            private.write(3)
            wait_for(target, "walsignals_changes_total", 3, model=NOTE, operation="insert")
            private.cluster.stop("fast")
            wait_until(lambda: target.scrape().state() == "reconnecting")
            down = target.scrape()
            assert down.value("walsignals_up") == 0
            assert down.values("walsignals_lag_bytes") == down.values("walsignals_stream_state") == []
            assert down.value("walsignals_changes_total", model=NOTE, operation="insert") == 3
            assert down.value("walsignals_connection_failures_total") >= 1
            assert down.value("walsignals_reconnects_total") == 0
            assert target.probe("/healthz")[0] == 200
            assert target.probe("/readyz")[0] == 503
            private.cluster.start()
            wait_for(target, "walsignals_reconnects_total", 1)
            private.write(2)
            wait_for(target, "walsignals_changes_total", 5, model=NOTE, operation="insert")
            assert target.scrape().value("walsignals_up") == 1
            assert target.probe("/readyz")[0] == 200

    @pytest.mark.parametrize(("texts", "done"), [(["bad"], []), (["good", "bad"], [1])], ids=["nothing", "a part"])
    def test_of_a_batch_that_was_cut_short_what_is_done_is_counted(
        self, stream: Stream, texts: list[str], done: list[float]
    ) -> None:
        stream.configure(MAX_ATTEMPTS=100)
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            Note.objects.bulk_create([Note(text=text) for text in texts])
            failures = "walsignals_receiver_failures_total"
            wait_until(lambda: any(value > 2 for value in target.scrape().values(failures)))
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s)", [stream.checkpoint.backend_pid])
            wait_for(target, "walsignals_reconnects_total", 1)
            samples = target.scrape()
            assert samples.values("walsignals_changes_total", model=NOTE, operation="insert") == done
            assert samples.value("walsignals_batches_total") == sum(done)

    def test_a_standby_is_ready_and_says_what_it_is(self, stream: Stream) -> None:
        with consumer(stream) as first, consumer(stream) as second:
            first.process.wait_for_stdout("streaming")
            second.process.wait_for_stdout("standing by|streaming")
            wait_until(lambda: {first.scrape().state(), second.scrape().state()} == {"streaming", "standing_by"})
            standby, other = sorted((first, second), key=lambda target: target.scrape().state())
            status, report = standby.probe("/readyz")
            assert status == 200
            assert report["state"] == "standing_by"
            assert standby.scrape().values("walsignals_lag_bytes") != []
            assert other.process.terminate() == 0
            wait_until(lambda: standby.scrape().state() == "streaming")
            assert standby.scrape().value("walsignals_reconnects_total") == 0


class TestScrapesDoNoHarm:
    def test_no_connection_is_left_behind(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            before = sessions()
            threads = [threading.Thread(target=target.scrape) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            wait_until(lambda: sessions() == before, message=lambda: f"{sessions()} sessions, {before} before")

    def test_a_locked_table_holds_up_neither_scrape_nor_probe(self, stream: Stream) -> None:
        with consumer(stream) as target, psycopg.connect(database_dsn()) as session:
            target.process.wait_for_stdout("streaming")
            assert target.scrape().value("walsignals_up") == 1
            session.execute(f"LOCK {DeadLetter._meta.db_table} IN ACCESS EXCLUSIVE MODE")
            start = time.monotonic()
            scraping = threading.Thread(target=target.scrape)
            scraping.start()
            wait_until(lambda: waiting_for_a_lock() > 0)
            assert target.probe("/healthz")[0] == 200
            assert waiting_for_a_lock() > 0  # the scrape still is where it was
            scraping.join()
            assert target.scrape().value("walsignals_up") == 0
            assert time.monotonic() - start < 9
            Note.objects.create(text="a")
            wait_for(target, "walsignals_changes_total", 1, model=NOTE, operation="insert")
            session.rollback()
            wait_for(target, "walsignals_up", 1)

    def test_a_client_that_hangs_up_leaves_no_traceback(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", target.port)) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert target.scrape().value("walsignals_up") == 1
            assert target.process.terminate() == 0
            assert target.process.stderr.text == ""

    @pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux shows the signals of threads")
    def test_signals_are_the_main_thread_s(self, stream: Stream) -> None:
        """One that another thread took would not end a receiver's sleep."""
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            target.scrape()
            pid = target.process.pid
            blocked = {
                int(task.name): signal.SIGTERM in blocked_signals(task / "status")
                for task in Path(f"/proc/{pid}/task").iterdir()
            }
            assert not blocked.pop(pid)
            assert len(blocked) >= 2
            assert all(blocked.values())

    def test_stopping_is_as_quick_as_ever(self, stream: Stream) -> None:
        with consumer(stream) as target:
            target.process.wait_for_stdout("streaming")
            target.scrape()
            start = time.monotonic()
            target.process.signal(signal.SIGTERM)
            target.process.wait_for_stdout("stopped")
            assert time.monotonic() - start < 1
            assert target.process.wait() == 0


def blocked_signals(status: Path) -> set[int]:
    """Read the signals that a thread does not take."""
    (mask,) = [int(line.split()[1], 16) for line in status.read_text().splitlines() if line.startswith("SigBlk:")]
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone()[0]


def sessions() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return cursor.fetchone()[0]


def release(pipe: str) -> None:
    """Let a receiver go on."""
    descriptor = os.open(pipe, os.O_WRONLY)
    os.close(descriptor)

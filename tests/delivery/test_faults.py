"""What happens to the server and to the stream when one of them goes away, on servers of the tests' own."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from example_project.postgres import PostgresCluster
from tests import server
from tests.conftest import MakeCluster
from tests.processes import ManagedProcess, database_dsn, run_manage
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


class Private:
    """A migrated server of its own, and consumers on it."""

    def __init__(self, cluster: PostgresCluster, stream: Stream) -> None:
        self.cluster = cluster
        self._stream = stream
        run_manage("migrate", "--run-syncdb", **self.env).succeed()

    @property
    def env(self) -> dict[str, str]:
        return {server.DSN: self.cluster.dsn()}

    def execute(self, sql: str) -> Any:
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as session:
            cursor = session.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def consumer(self, *arguments: str, **env: str) -> ManagedProcess:
        return self._stream.process(*arguments, **self.env, **env)


@pytest.fixture
def private(make_cluster: MakeCluster, stream: Stream) -> Iterator[Private]:
    stream.configure(MODELS=["testapp.Note"])
    return Private(make_cluster(), stream)


def stop_seconds(private: Private) -> float:
    """Stop the server fast, and say how long it took."""
    start = time.monotonic()
    private.cluster.stop("fast")
    return time.monotonic() - start


def test_fast_shutdown_is_not_held_up_by_an_idle_consumer(private: Private) -> None:
    with private.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        private.execute(
            "CREATE TABLE other AS SELECT generate_series(1, 10000)"
        )  # a position that is not confirmed yet
        assert stop_seconds(private) < 5
        assert consumer.wait() == 1
    assert "Traceback" not in consumer.stderr.text


def test_fast_shutdown_is_not_held_up_by_a_receiver_at_work(private: Private) -> None:
    with private.consumer(EFFECTS_SECONDS_EACH="600", EFFECTS_SAY="1") as consumer:
        consumer.wait_for_stdout("streaming")
        private.execute("INSERT INTO testapp_note (text) VALUES ('slow')")
        consumer.wait_for_stdout("effect of slow")
        assert stop_seconds(private) < 5
    private.cluster.start()
    with private.consumer("--until-lsn", "now") as again:
        again.succeed()
    assert private.execute("SELECT text FROM ledger_effect") == [("slow",)]


def test_crash_of_the_server_loses_and_repeats_nothing(private: Private) -> None:
    with private.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        private.execute("INSERT INTO testapp_note (text) SELECT n::text FROM generate_series(1, 1000) n")
        wait_until(lambda: private.execute("SELECT count(*) FROM ledger_effect") == [(1000,)])
        private.cluster.stop("immediate")
        assert consumer.wait() == 1
    private.cluster.start()
    private.execute("INSERT INTO testapp_note (text) SELECT n::text FROM generate_series(1, 1000) n")
    with private.consumer("--until-lsn", "now") as again:
        again.succeed()
    assert private.execute("SELECT count(*), count(DISTINCT change_id) FROM ledger_effect") == [(2000, 2000)]


def test_server_that_would_wait_for_us_is_let_go_of(private: Private) -> None:
    private.execute("ALTER SYSTEM SET synchronous_standby_names = '\"django-walsignals\"'")
    with private.consumer("--until-lsn", "now") as first:
        first.succeed()
    private.execute("SELECT pg_reload_conf()")
    wait_until(lambda: private.execute("SHOW synchronous_standby_names") != [("",)])
    with private.consumer() as consumer:
        assert consumer.wait() == 1
    assert "synchronous_standby_names names this consumer" in consumer.stderr.text


def test_walsender_that_is_terminated_ends_the_consumer_and_nothing_is_lost(stream: Stream) -> None:
    stream.listen(Note)
    with stream.process() as consumer:
        consumer.wait_for_stdout("streaming")
        terminate = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s"
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            session.execute(terminate, [stream.name])
        assert consumer.wait() == 1
    assert "terminating connection due to administrator command" in consumer.stderr.text
    Note.objects.create(text="after")
    assert [change.instance.text for change in stream.consume()] == ["after"]


def test_database_connection_that_is_terminated_while_idle_ends_the_consumer(stream: Stream) -> None:
    with stream.process(PGAPPNAME=stream.name) as consumer:
        consumer.wait_for_stdout("streaming")
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            assert session.execute(terminate, [stream.name]).fetchall() == [(True,)]
        assert consumer.wait() == 1
    assert "database connection has died" in consumer.stderr.text


def test_publication_dropped_while_streaming_stops_the_stream(stream: Stream) -> None:
    """PostgreSQL 18 skips the changes with a warning, earlier ones fail: both are a gap to us."""
    with stream.process() as consumer:
        consumer.wait_for_stdout("streaming")
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            session.execute(f'DROP PUBLICATION "Pub ""{stream.name}"""')
            session.execute("INSERT INTO testapp_note (text) VALUES ('lost')")
        assert consumer.wait() == 4
    assert "Traceback" not in consumer.stderr.text


def test_receiver_slower_than_the_servers_patience_keeps_its_connection(stream: Stream) -> None:
    stream.configure(REPLICATION_OPTIONS={"options": "-c wal_sender_timeout=1000"})
    with stream.process("--max-changes", "1", EFFECTS_SECONDS_EACH="3.5") as consumer:
        consumer.wait_for_stdout("streaming")
        Note.objects.create(text="slow")
        consumer.succeed()
    assert consumer.stdout.text.endswith("stopped: 1 delivered\n")
    assert stream.slot().confirmed_flush == stream.checkpoint.lsn  # type: ignore[union-attr]

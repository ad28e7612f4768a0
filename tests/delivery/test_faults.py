"""What happens to the server and to the stream when one of them goes away: the consumer waits it out and goes on."""

import psycopg
import pytest

from tests.conftest import MakeCluster
from tests.faults.private import Private, wait_for_sessions
from tests.ledger.models import Effect
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def private(make_cluster: MakeCluster, stream: Stream) -> Private:
    stream.configure(MODELS=["testapp.Note"])
    return Private(make_cluster(), stream)


def test_fast_shutdown_is_not_held_up_by_an_idle_consumer(private: Private) -> None:
    with private.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        private.execute(
            "CREATE TABLE other AS SELECT generate_series(1, 10000)"
        )  # a position that is not confirmed yet
        assert private.stop_seconds() < 5
        consumer.wait_for_stderr("Outage")
        private.cluster.start()
        private.write(10)
        private.wait_for_effects(10, consumer)
        assert consumer.terminate() == 0
    assert "Traceback" not in consumer.stderr.text
    assert consumer.stderr.text.count("Outage") == 1, "an outage is said once"


def test_fast_shutdown_is_not_held_up_by_a_receiver_at_work(private: Private) -> None:
    with private.consumer(EFFECTS_SECONDS_EACH="600", EFFECTS_SAY="1") as consumer:
        consumer.wait_for_stdout("streaming")
        private.write(1, "slow")
        consumer.wait_for_stdout("effect of slow")
        assert private.stop_seconds() < 5
    private.cluster.start()
    private.consumer("--until-lsn", "now").succeed()
    assert private.execute("SELECT text FROM ledger_effect") == [("slow",)]


def test_crash_of_the_server_loses_and_repeats_nothing(private: Private) -> None:
    with private.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        private.execute("INSERT INTO testapp_note (text) SELECT n::text FROM generate_series(1, 1000) n")
        private.wait_for_effects(1000, consumer)
        private.cluster.stop("immediate")
        consumer.wait_for_stderr("Outage")
        private.cluster.start()
        private.execute("INSERT INTO testapp_note (text) SELECT n::text FROM generate_series(1, 1000) n")
        private.wait_for_effects(2000, consumer)
        assert consumer.terminate() == 0


def test_server_that_would_wait_for_us_is_let_go_of(private: Private) -> None:
    private.execute("ALTER SYSTEM SET synchronous_standby_names = '\"django-walsignals\"'")
    with private.consumer("--until-lsn", "now") as first:
        first.succeed()
    private.execute("SELECT pg_reload_conf()")
    wait_until(lambda: private.execute("SHOW synchronous_standby_names") != [("",)])
    with private.consumer() as consumer:
        assert consumer.wait() == 1
    assert "synchronous_standby_names names this consumer" in consumer.stderr.text


def test_walsender_that_is_terminated_is_replaced_and_nothing_is_lost(stream: Stream) -> None:
    stream.listen(Note)
    with stream.process() as consumer:
        consumer.wait_for_stdout("streaming")
        terminate = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s"
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            session.execute(terminate, [stream.name])
        wait_for_sessions(consumer, 2)
        Note.objects.create(text="after")
        wait_until(Effect.objects.exists)
        assert consumer.terminate() == 0
    assert "terminating connection due to administrator command" in consumer.stderr.text
    assert Effect.objects.get().text == "after"


def test_database_connection_that_is_terminated_while_idle_is_replaced(stream: Stream) -> None:
    with stream.process(PGAPPNAME=stream.name) as consumer:
        consumer.wait_for_stdout("streaming")
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            assert session.execute(terminate, [stream.name]).fetchall() == [(True,)]
        wait_for_sessions(consumer, 2)
        Note.objects.create(text="after")
        wait_until(Effect.objects.exists)
        assert consumer.terminate() == 0
    assert "Back after 1 attempt" in consumer.stderr.text
    assert Effect.objects.get().text == "after"


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

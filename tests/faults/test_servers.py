"""A server of the test's own crashes, stops, loses its log, or hands over to another one."""

import sys
from collections.abc import Iterator

import pytest

from example_project.binaries import bin_dir
from example_project.postgres import PostgresCluster
from tests import server
from tests.conftest import MakeCluster
from tests.faults.private import Private, wait_for_sessions
from tests.streams import Stream
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_crashes_while_consuming_lose_and_repeat_nothing(private: Private) -> None:
    with private.consumer(EFFECTS_SECONDS_EACH="0.002") as consumer:
        consumer.wait_for_stdout("streaming")
        for crash in range(1, 3):
            private.execute("INSERT INTO testapp_note (text) SELECT n::text FROM generate_series(1, 1500) n")
            wait_until(lambda crash=crash: private.effects()[0] > 1500 * crash - 1000, message=lambda: str(consumer))
            private.cluster.stop("immediate")
            private.cluster.start()
        private.wait_for_effects(3000, consumer)
        assert consumer.terminate() == 0


def test_fast_shutdown_with_a_poison_change_pending(private: Private, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that stops waits until all it sent is confirmed, and the change can't be: we must let go."""
    private.stream.configure(MODELS=["testapp.Note"], MAX_ATTEMPTS=1000)
    with private.consumer(EFFECTS_RAISE_ON="poison") as consumer:
        consumer.wait_for_stdout("streaming")
        private.write(1, "poison")
        consumer.wait_for_stderr("attempt 3 of 1000")
        took = private.stop_seconds()
        consumer.wait_for_stderr("Outage")
        private.cluster.start()
        wait_for_sessions(consumer, 2)
        took_again = private.stop_seconds()
    with capsys.disabled():
        sys.stdout.write(f"\nfast shutdown with a poison change pending: {took:.1f} s, {took_again:.1f} s\n")
    assert max(took, took_again) < 5
    private.cluster.start()
    assert private.effects() == (0, 0)
    private.consumer("--until-lsn", "now").succeed()
    assert private.effects() == (1, 1)


def test_worker_and_standby_both_outlive_restarts(private: Private) -> None:
    with private.consumer() as first:
        first.wait_for_stdout("streaming")
        with private.consumer() as second:
            second.wait_for_stdout("standing by")
            for restart in range(1, 4):
                private.cluster.stop("fast" if restart % 2 else "immediate")
                private.cluster.start()
                private.write(10)
                private.wait_for_effects(10 * restart, first)
            assert (first.returncode, second.returncode) == (None, None), f"{first}\n{second}"
            assert {first.terminate(), second.terminate()} == {0}


def test_role_that_commits_asynchronously_loses_nothing_in_a_crash(make_cluster: MakeCluster, stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"])
    private = Private(make_cluster(wal_writer_delay="10s", wal_writer_flush_after="1GB"), stream)
    private.execute("ALTER ROLE postgres SET synchronous_commit = off")
    with private.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        with_flush = (
            "SET LOCAL synchronous_commit = on; INSERT INTO testapp_note (text) SELECT 'a' FROM generate_series(1, 50)"
        )
        private.execute(f"BEGIN; {with_flush}; COMMIT")
        wait_until(lambda: private.effects()[0] == 50)
        private.cluster.stop("immediate")
        consumer.kill()
    private.cluster.start()
    private.consumer("--until-lsn", "now").succeed()
    assert private.effects() == (50, 50)


def test_slot_that_the_server_invalidated_is_a_gap_with_its_reason(make_cluster: MakeCluster, stream: Stream) -> None:
    stream.configure(MODELS=["testapp.Note"])
    private = Private(make_cluster(max_slot_wal_keep_size="1MB", max_wal_size="64MB", min_wal_size="32MB"), stream)
    private.consumer("--until-lsn", "now").succeed()
    private.write(1, "lost")

    def is_lost() -> bool:
        private.execute("INSERT INTO testapp_note (text) SELECT 'lost' FROM generate_series(1, 100)")
        private.execute("SELECT pg_switch_wal()")
        private.execute("CHECKPOINT")
        return private.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]

    wait_until(is_lost, timeout=30)
    with private.consumer() as consumer:
        assert consumer.wait() == 4
    assert "has invalidated its replication slot" in consumer.stderr.text
    assert "wal_removed" in consumer.stderr.text or "lost" in consumer.stderr.text
    assert "--accept-gap" in consumer.stderr.text
    assert private.effects() == (0, 0)
    private.consumer("--until-lsn", "now", "--accept-gap").succeed()
    private.write(3)
    private.consumer("--until-lsn", "now").succeed()
    assert private.effects() == (3, 3)


@pytest.fixture
def replica(private: Private) -> Iterator[PostgresCluster]:
    """Give a standby server of the private one, made by ``pg_basebackup``, that keeps its slots in step."""
    programs = bin_dir(private.cluster.config.version)
    if not (programs / "pg_basebackup").exists():
        pytest.skip(f"no pg_basebackup in {programs}")
    settings = {"hot_standby_feedback": "on"}
    if private.cluster.config.version >= "17":
        settings["sync_replication_slots"] = "on"
    made = server.private_cluster(server.temporary_home(), **settings)
    made._prepare_folders()
    options = ["-d", private.cluster.dsn(), "-D", str(made.data), "-R", "-C", "-S", "replica", "-c", "fast"]
    result = made._run("pg_basebackup", *options)
    assert result.returncode == 0, result.stderr
    yield made
    made.destroy()


def test_failover_to_a_server_that_has_the_slot_goes_on_where_it_was(
    private: Private, replica: PostgresCluster
) -> None:
    if private.cluster.config.version < "17":
        pytest.skip("PostgreSQL 17 was the first to copy logical slots to standbys")
    with private.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        replica.start()
        promoted = _as_private(replica, private)

        def is_synced() -> bool:
            private.write(1)
            private.execute("SELECT pg_log_standby_snapshot()")
            find = "SELECT 1 FROM pg_replication_slots WHERE synced AND NOT temporary AND slot_name = %s"
            return bool(promoted.execute(find, private.stream.name))

        wait_until(is_synced, timeout=30, message=lambda: replica.log.read_text()[-2000:])
        assert consumer.terminate() == 0
    private.write(20, "written before the failover")
    written = private.execute("SELECT count(*) FROM testapp_note")[0][0]
    flushed = private.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    wait_until(lambda: promoted.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", flushed) == [(True,)])
    private.cluster.stop("immediate")
    promoted.execute("SELECT pg_promote()")
    promoted.write(20, "written after the failover")
    with promoted.consumer("--until-lsn", "now") as consumer:
        consumer.succeed()
    assert promoted.effects() == (written + 20, written + 20)
    assert promoted.execute("SELECT timeline FROM walsignals_checkpoint") == [(2,)]


def test_failover_to_a_server_without_the_slot_is_a_gap(private: Private, replica: PostgresCluster) -> None:
    private.consumer("--until-lsn", "now").succeed()
    private.write(5)
    if replica.config.version >= "17":
        private.execute("SELECT pg_drop_replication_slot(%s)", private.stream.name)
    flushed = private.execute("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    replica.start()
    promoted = _as_private(replica, private)
    wait_until(lambda: promoted.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", flushed) == [(True,)])
    private.cluster.stop("immediate")
    promoted.execute("SELECT pg_promote()")
    with promoted.consumer() as consumer:
        assert consumer.wait() == 4
    assert "is gone" in consumer.stderr.text
    assert promoted.effects() == (0, 0)


def _as_private(cluster: PostgresCluster, original: Private) -> Private:
    """Reach a copy of a server as one reaches the original."""
    made = object.__new__(Private)
    made.cluster, made.stream = cluster, original.stream
    return made

"""Sessions that the server ends, receivers that take long or write back, and stopping in the middle of it."""

import os
import signal
import time

import pytest

from tests.faults.conftest import Notes
from tests.faults.private import wait_for_sessions
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def test_walsender_terminated_while_a_receiver_runs(notes: Notes) -> None:
    with notes.consumer(EFFECTS_SAY="1", EFFECTS_SECONDS_EACH="1") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("a")
        consumer.wait_for_stdout("effect of a")
        notes.terminate_walsender()
        wait_for_sessions(consumer, 2)
        notes.write("b")
        notes.wait_for_effects(["a", "b"], consumer)
        assert consumer.terminate() == 0


def test_walsender_cancelled(notes: Notes) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        notes.execute("SELECT pg_cancel_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", notes.name)
        wait_for_sessions(consumer, 2)
        notes.write("a")
        notes.wait_for_effects(["a"], consumer)
        assert consumer.terminate() == 0


def test_frozen_walsender_is_given_up_and_its_slot_taken_back_when_it_lets_go(notes: Notes) -> None:
    """As with a lost route, the server's kernel acknowledges what its process never reads."""
    notes.configure(REPLICATION_OPTIONS={"options": "-c wal_sender_timeout=2000"})
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        slot = notes.stream.slot()
        assert slot is not None and slot.active_pid is not None
        try:
            os.kill(slot.active_pid, signal.SIGSTOP)
        except PermissionError:
            pytest.skip("the server's processes belong to somebody else")
        try:
            consumer.wait_for_stderr("Outage")
            consumer.wait_for_stdout("standing by")
        finally:
            os.kill(slot.active_pid, signal.SIGCONT)
        notes.write("a")
        notes.wait_for_effects(["a"], consumer)
        assert consumer.terminate() == 0


def test_database_session_terminated_while_a_receiver_runs(notes: Notes) -> None:
    with notes.consumer(EFFECTS_SAY="1", EFFECTS_SECONDS_EACH="1") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("a")
        consumer.wait_for_stdout("effect of a")
        notes.terminate_database_sessions()
        wait_for_sessions(consumer, 2)
        notes.wait_for_effects(["a"], consumer)
        notes.write("b")
        notes.wait_for_effects(["a", "b"], consumer)
        assert consumer.terminate() == 0
    assert consumer.stdout.text.count("effect of a") == 2, "it was not taken again: the test showed nothing"


def test_receiver_of_ten_seconds_keeps_a_connection_whose_server_waits_two(notes: Notes) -> None:
    notes.configure(REPLICATION_OPTIONS={"options": "-c wal_sender_timeout=2000"})
    with notes.consumer(EFFECTS_SECONDS_EACH="10", EFFECTS_SAY="1") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("slow")
        notes.wait_for_effects(["slow"], consumer)
        assert consumer.terminate() == 0
    assert consumer.stdout.text.count("streaming") == 1
    assert consumer.stdout.text.count("effect of slow") == 1


def test_backoff_between_attempts_keeps_the_connection(notes: Notes) -> None:
    """Eight attempts take some ten seconds at the least."""
    notes.configure(REPLICATION_OPTIONS={"options": "-c wal_sender_timeout=2000"}, MAX_ATTEMPTS=7)
    with notes.consumer(EFFECTS_RAISE_ON="poison") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("poison", "after")
        notes.wait_for_effects(["after"], consumer)
        assert consumer.terminate() == 0
    assert consumer.stdout.text.count("streaming") == 1
    assert "1 dead letter\n" in consumer.stdout.text


def test_receiver_that_writes_to_its_own_table_is_called_once_more_and_no_oftener(notes: Notes) -> None:
    with notes.consumer(EFFECTS_WRITE_ON="start") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("start")
        wanted = ["start", "written by a receiver"]
        notes.wait_for_effects(wanted, consumer)
        notes.write("end")
        notes.wait_for_effects([*wanted, "end"], consumer)
        assert consumer.terminate() == 0


def test_sigterm_in_a_receiver_finishes_the_batch(notes: Notes) -> None:
    with notes.consumer(EFFECTS_SECONDS_EACH="1", EFFECTS_SAY="1") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("a")
        consumer.wait_for_stdout("effect of a")
        assert consumer.terminate(timeout=10) == 0
    assert notes.effects() == ["a"]
    slot = notes.stream.slot()
    assert slot is not None
    assert slot.confirmed_flush == notes.stream.checkpoint.lsn


def test_second_sigterm_in_a_receiver_stops_at_once_and_the_batch_comes_again(notes: Notes) -> None:
    with notes.consumer(EFFECTS_SECONDS_EACH="60", EFFECTS_SAY="1") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("a")
        consumer.wait_for_stdout("effect of a")
        consumer.signal(signal.SIGINT)  # the kernel keeps one signal of a kind at a time
        assert consumer.terminate(timeout=5) == 1
    assert notes.effects() == []
    notes.consumer("--until-lsn", "now").succeed()
    assert notes.effects() == ["a"]


def test_sigterm_between_two_attempts_leaves_the_change_to_the_next_start(notes: Notes) -> None:
    notes.configure(MAX_ATTEMPTS=1000)
    with notes.consumer(EFFECTS_RAISE_ON="a") as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("a")
        consumer.wait_for_stderr(r"attempt 4 of 1000")
        assert consumer.terminate(timeout=5) == 0
    assert notes.effects() == []
    notes.consumer("--until-lsn", "now").succeed()
    assert notes.effects() == ["a"]


def test_sigterm_while_standing_by_ends_at_once(notes: Notes) -> None:
    with notes.consumer() as worker:
        worker.wait_for_stdout("streaming")
        with notes.consumer() as standby:
            standby.wait_for_stdout("standing by")
            assert standby.terminate(timeout=5) == 0
        assert worker.returncode is None


def test_sigterm_while_idle_ends_within_a_second_or_so(notes: Notes) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        start = time.monotonic()
        assert consumer.terminate() == 0
        assert time.monotonic() - start < 3
    assert not notes.is_streaming()


def test_checkpoint_that_cannot_be_written_for_a_while_is_not_passed(notes: Notes) -> None:
    """As on a full disk: SQLSTATE 53100 from the write of the checkpoint, until there is room again."""
    notes.execute("""
        CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$
    """)
    notes.execute(
        "CREATE TRIGGER full_disk BEFORE UPDATE ON walsignals_checkpoint FOR EACH ROW EXECUTE FUNCTION no_room()"
    )
    try:
        before = notes.stream.slot()
        with notes.consumer() as consumer:
            consumer.wait_for_stdout("streaming")
            notes.write("a")
            consumer.wait_for_stderr("No space left")
            wait_for_sessions(consumer, 3)
            during = notes.stream.slot()
            assert notes.effects() == []
            notes.execute("DROP TRIGGER full_disk ON walsignals_checkpoint")
            notes.write("b")
            notes.wait_for_effects(["a", "b"], consumer)
            assert consumer.terminate() == 0
    finally:
        notes.execute("DROP FUNCTION no_room CASCADE")
    assert before is not None
    assert during is not None
    assert during.confirmed_flush == before.confirmed_flush, "the server was told of what was not committed"


def test_slot_dropped_while_streaming_stops_the_stream(notes: Notes) -> None:
    with notes.consumer() as consumer:
        consumer.wait_for_stdout("streaming")
        notes.write("a")
        notes.wait_for_effects(["a"], consumer)

        def drop() -> bool:
            """Be quicker than the consumer, which takes its slot back."""
            statement = (
                "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
                f"WHERE slot_name = '{notes.name}' AND active; PERFORM pg_drop_replication_slot('{notes.name}'); "
                "EXCEPTION WHEN object_in_use THEN NULL; END $$"
            )
            notes.execute(statement)
            return notes.stream.slot() is None

        wait_until(drop)
        notes.write("lost")
        assert consumer.wait() == 4
    assert "is gone" in consumer.stderr.text
    assert notes.stream.slot() is None, "it was made anew in silence"
    assert notes.effects() == ["a"]

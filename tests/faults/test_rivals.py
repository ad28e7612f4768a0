"""Two consumers of one stream: one works, the other stands by, and never do both act."""

import os
import signal
import sys
import time

import pytest

from tests.faults.conftest import Notes
from tests.faults.private import wait_for_sessions
from tests.processes import ManagedProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: How soon a standby takes over, in seconds, on a machine that does nothing else.
TAKE_OVER = 1.0

#: What a loaded machine may add.
PATIENCE = 2.0


def two(notes: Notes) -> tuple[ManagedProcess, ManagedProcess]:
    """Start two consumers at once; return the one that works, and the other."""
    both = (notes.consumer(), notes.consumer())
    (standby,) = wait_until(lambda: [each for each in both if "standing by" in each.stdout.text])
    (worker,) = {*both} - {standby}
    worker.wait_for_stdout("streaming")
    return worker, standby


def test_standby_takes_over_within_a_second_of_the_others_death(
    notes: Notes, capsys: pytest.CaptureFixture[str]
) -> None:
    worker, standby = two(notes)
    with worker, standby:
        notes.write("a")
        notes.wait_for_effects(["a"], worker)
        start = time.monotonic()
        worker.signal(signal.SIGKILL)
        standby.wait_for_stdout("streaming")
        took = time.monotonic() - start
        notes.write("b")
        notes.wait_for_effects(["a", "b"], standby)
        assert standby.terminate() == 0
    with capsys.disabled():
        sys.stdout.write(f"\ntake-over after SIGKILL: {took:.2f} s\n")
    assert took < TAKE_OVER + PATIENCE


def test_standby_takes_over_from_one_killed_in_a_receiver(notes: Notes) -> None:
    with notes.consumer(EFFECTS_KILL_ON="deadly") as worker:
        worker.wait_for_stdout("streaming")
        with notes.consumer() as standby:
            standby.wait_for_stdout("standing by")
            notes.write("a", "deadly", "b")
            assert worker.wait() == -signal.SIGKILL
            notes.wait_for_effects(["a", "deadly", "b"], standby)
            assert standby.terminate() == 0


def test_consumer_that_was_paused_is_fenced_when_it_wakes_up(notes: Notes) -> None:
    """A stops in its receiver, its walsender goes, B does the change, and A wakes up with its batch still in hand."""
    with notes.consumer(EFFECTS_PAUSE_ON="a") as paused:
        paused.wait_for_stdout("streaming")
        notes.write("a")
        wait_until(lambda: _is_stopped(paused.pid))
        notes.terminate_walsender()
        with notes.consumer("--until-lsn", "now") as rival:
            rival.succeed()
        assert notes.effects() == ["a"]
        os.kill(paused.pid, signal.SIGCONT)
        paused.wait_for_stderr("Outage")
        wait_for_sessions(paused, 2)
        notes.write("b")
        notes.wait_for_effects(["a", "b"], paused)
        assert paused.terminate() == 0


def test_no_wait_leaves_the_stream_to_the_one_that_has_it(notes: Notes) -> None:
    with notes.consumer() as worker:
        worker.wait_for_stdout("streaming")
        with notes.consumer("--no-wait") as second:
            assert second.wait() == 3
        notes.write("a")
        notes.wait_for_effects(["a"], worker)


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # procfs
        return stat.read().rpartition(")")[2].split()[0] == "T"

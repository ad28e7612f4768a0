"""The consumer dies by SIGKILL at each moment of a batch's life; the next one loses and repeats nothing."""

import signal

import pytest

from tests.faults.conftest import Notes

pytestmark = pytest.mark.integration

TEXTS = [str(number) for number in range(10)]


def test_kill_before_dispatch(notes: Notes) -> None:
    check_killed(notes, EFFECTS_KILL_AT="before dispatch")
    assert notes.effects() == []
    check_next_one_finishes(notes)


def test_kill_in_the_middle_of_a_batch(notes: Notes) -> None:
    check_killed(notes, EFFECTS_KILL_ON="5")
    assert len(notes.effects()) < 6
    check_next_one_finishes(notes)


def test_kill_after_the_receivers_and_before_the_commit(notes: Notes) -> None:
    check_killed(notes, EFFECTS_KILL_AT="before commit")
    assert notes.effects() == []
    check_next_one_finishes(notes)


def test_kill_after_the_commit_and_before_the_feedback(notes: Notes) -> None:
    before = notes.stream.slot()
    check_killed(notes, EFFECTS_KILL_AT="before feedback")
    after = notes.stream.slot()
    assert before is not None
    assert after is not None
    assert after.confirmed_flush == before.confirmed_flush, "the server was told: the test showed nothing"
    assert notes.effects(), "nothing was committed: the test showed nothing"
    check_next_one_finishes(notes)


def test_kill_at_each_moment_of_the_same_batch_one_after_the_other(notes: Notes) -> None:
    check_killed(notes, EFFECTS_KILL_AT="before dispatch")
    for env in ({"EFFECTS_KILL_ON": "9"}, {"EFFECTS_KILL_AT": "before commit"}, {"EFFECTS_KILL_AT": "before feedback"}):
        with notes.consumer(**env) as consumer:
            assert consumer.wait() == -signal.SIGKILL
    check_next_one_finishes(notes)


def check_killed(notes: Notes, **env: str) -> None:
    notes.write(*TEXTS)
    with notes.consumer(**env) as consumer:
        assert consumer.wait() == -signal.SIGKILL


def check_next_one_finishes(notes: Notes) -> None:
    notes.consumer("--until-lsn", "now").succeed()
    assert notes.effects() == TEXTS

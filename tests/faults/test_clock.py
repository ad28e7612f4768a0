"""Clocks and silence: what the consumer tells its server, and when, with clocks that a test moves."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import pytest

from django_walsignals.delivery.feedback import IN_HAND_AFTER, Feedback
from django_walsignals.exceptions import ConnectionLost
from django_walsignals.protocol.frames import StandbyStatus, to_wire_time
from django_walsignals.protocol.lsn import LSN

#: The server's wal_sender_timeout, in seconds: a status is due after a fourth of it.
TIMEOUT = 40.0


class Clock:
    """Shows the time that a test has set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Line:
    """Stands in for the replication connection, and keeps what was sent."""

    def __init__(self) -> None:
        self.lock = nullcontext()
        self.sent: list[StandbyStatus] = []

    def send_status(self, status: StandbyStatus) -> None:
        self.sent.append(status)


Made = tuple[Feedback, Line, Clock, Clock]


@pytest.fixture
def made() -> Made:
    line, clock, wall = Line(), Clock(100.0), Clock(1_800_000_000.0)
    feedback = Feedback(cast(Any, line), LSN(1000), server_timeout=TIMEOUT, clock=clock, wall_clock=wall)
    return feedback, line, clock, wall


def test_wall_clock_that_is_moved_back_delays_no_status(made: Made) -> None:
    feedback, line, clock, wall = made
    for _ in range(3):
        clock.now += TIMEOUT / 4
        wall.now -= 3600
        assert feedback.seconds_left() == 0
        feedback.send_if_due()
    assert [status.flush for status in line.sent] == [1000, 1000, 1000]
    assert line.sent[-1].sent_at == to_wire_time(wall.now)


def test_wall_clock_before_the_year_2000_does_no_harm(made: Made) -> None:
    feedback, line, _, wall = made
    wall.now = 0.0
    feedback.confirm(LSN(2000))
    assert StandbyStatus.to_bytes(line.sent[0])


def test_position_never_goes_back(made: Made) -> None:
    feedback, line, *_ = made
    feedback.confirm(LSN(2000))
    with pytest.raises(ValueError, match="after"):
        feedback.confirm(LSN(1999))
    feedback.send()
    assert [status.flush for status in line.sent] == [2000, 2000]


def test_a_batch_that_takes_long_is_spoken_of_and_moves_nothing(made: Made) -> None:
    feedback, line, clock, _ = made
    feedback.take(LSN(3000))
    feedback.send()
    clock.now += IN_HAND_AFTER
    feedback.send()
    feedback.confirm(LSN(3000))
    clock.now += TIMEOUT
    feedback.send()
    assert [status.write for status in line.sent] == [1000, 3000, 3000, 3000]
    assert [status.flush for status in line.sent] == [1000, 1000, 3000, 3000]


def test_silent_server_is_asked_and_then_given_up(made: Made) -> None:
    feedback, line, clock, _ = made
    _pass(clock, TIMEOUT * 0.4, feedback.refuse_silence)
    assert line.sent == []
    _pass(clock, TIMEOUT * 0.2, feedback.refuse_silence)
    assert [status.reply_requested for status in line.sent] == [True], "it is asked once"
    with pytest.raises(ConnectionLost, match=r"silent for 1\d\d s"):
        _pass(clock, TIMEOUT * 3, feedback.refuse_silence)


def test_server_that_answers_is_not_given_up(made: Made) -> None:
    feedback, line, clock, _ = made

    for asked in range(1, 20):
        _pass(clock, TIMEOUT * 2, feedback.refuse_silence)
        feedback.hear()
        assert len(line.sent) == asked


def test_long_receiver_is_not_taken_for_a_silent_server(made: Made) -> None:
    """Nothing is read meanwhile: only what is asked and left without an answer counts."""
    feedback, line, clock, _ = made
    clock.now += TIMEOUT * 100
    feedback.refuse_silence()
    assert len(line.sent) == 1
    feedback.hear()
    clock.now += TIMEOUT * 0.4
    feedback.refuse_silence()
    assert len(line.sent) == 1


def _pass(clock: Clock, seconds: float, each_second: Callable[[], None]) -> None:
    for _ in range(round(seconds)):
        clock.now += 1
        each_second()

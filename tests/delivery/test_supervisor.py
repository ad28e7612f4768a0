"""How an outage is waited out, and what is said of it; the sessions themselves are tested against a server."""

import logging
from typing import Any

import pytest

from django_walsignals.conf import get_stream
from django_walsignals.delivery.backoff import Backoff
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.delivery.supervisor import Orders, Supervisor
from django_walsignals.exceptions import ConnectionLost


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Keep the times that a supervisor waits, and wait none."""
    seconds: list[float] = []
    monkeypatch.setattr(Supervisor, "_pause", lambda self, time: seconds.append(time))
    return seconds


def test_a_long_outage_is_said_once_and_waited_out_longer_each_time(
    waited: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the session before it had been a long one, which makes a new outage of its end, and of that alone."""
    reconnect = Backoff(first=1.0, cap=30.0, chance=lambda: 1.0)
    supervisor: Any = Supervisor(get_stream(), StopRequest(), Orders(), reconnect=reconnect, clock=lambda: 3600.0)
    supervisor._session_at = 0.0
    with caplog.at_level(logging.INFO, "django_walsignals"):
        for _ in range(6):
            supervisor._wait_out(ConnectionLost("gone"))
    assert waited == [1, 2, 4, 8, 16, 30]
    assert len(caplog.records) == 1

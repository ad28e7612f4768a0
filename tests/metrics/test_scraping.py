"""A scrape's own connections: impatient, and gone afterwards."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from django_walsignals.conf import get_stream
from django_walsignals.metrics.scraping import CONNECT_TIMEOUT, QUERY_TIMEOUT, StatusReader
from django_walsignals.status import State, StreamStatus
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


def read(reader: StatusReader) -> tuple[StreamStatus | None, bool]:
    """Read in a thread, as a scrape does; say as well whether a connection is left open in it."""

    def read_here() -> tuple[StreamStatus | None, bool]:
        return reader(), any(connections[alias].connection is not None for alias in connections)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(read_here).result()


def test_reads_what_walstatus_reads(stream: Stream) -> None:
    stream.listen(Note)
    stream.set_up()
    status, is_open = read(StatusReader(get_stream()))
    assert status is not None
    assert status.state is State.STOPPED
    assert not is_open


def test_a_server_that_accepts_and_says_nothing_is_given_up(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as patched:
        given: dict[str, Any] = connections.settings["default"]
        patched.setitem(given, "HOST", "127.0.0.1")
        patched.setitem(given, "PORT", str(silent.getsockname()[1]))
        start = time.monotonic()
        status, is_open = read(StatusReader(get_stream()))
        assert time.monotonic() - start < CONNECT_TIMEOUT + QUERY_TIMEOUT
    assert status is None
    assert not is_open


def test_a_pool_is_left_to_the_consumer(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """With psycopg_pool missing, whoever asks for a pool fails."""
    with monkeypatch.context() as patched:
        patched.setitem(connections.settings["default"], "OPTIONS", {"pool": True})
        status, _ = read(StatusReader(get_stream()))
    assert status is not None


def test_the_settings_stay_as_they_were(stream: Stream) -> None:
    before = dict(connections.settings["default"]["OPTIONS"])
    read(StatusReader(get_stream()))
    assert connections.settings["default"]["OPTIONS"] == before

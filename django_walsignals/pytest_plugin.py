"""Fixtures for pytest, beside pytest-django's: ``wal_stream`` and ``wal_changes``.

Loaded by pytest in every project in which this library is installed: so nothing here may import Django or anything
that does, outside a fixture that somebody asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django_walsignals.testing import CapturedChanges, WalStream


@pytest.fixture
def wal_stream(transactional_db: None, _wal_slots: None) -> Iterator[WalStream]:
    """Give a stream of this test's own on the real server: set up before the test, gone after it.

    What the test commits is delivered by ``wal_stream.consume()``, which returns the changes and raises what a receiver
    raises; ``wal_stream.changes`` has them all. It brings ``transactional_db``.
    """
    from django_walsignals.testing import WalStream

    with WalStream() as stream:
        yield stream


@pytest.fixture
def wal_changes(db: None) -> Iterator[CapturedChanges]:
    """Give the list of the test's changes, in a test that never commits: see ``capture_wal_changes``.

    A change that it can't see is an error at the end of the test.
    """
    from django_walsignals.testing import capture_wal_changes

    with capture_wal_changes() as changes:
        yield changes


@pytest.fixture(scope="session")
def _wal_slots(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Drop what a failed test left behind, before the test databases are dropped: a slot in use would hold them up."""
    yield
    from django_walsignals.exceptions import ConfigurationError
    from django_walsignals.testing import drop_stream

    with django_db_blocker.unblock(), suppress(ConfigurationError):  # no PostgreSQL, as the test has said already
        drop_stream()

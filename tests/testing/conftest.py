"""The fixtures of our own plugin, which an installed package would bring by its entry point."""

from typing import Any

import pytest
from django.db import connection

from django_walsignals.pytest_plugin import _wal_slots, wal_changes, wal_stream  # noqa: F401  # fixtures
from tests.testing.models import Coded, Review, Theatre, Venue


@pytest.fixture(autouse=True)
def _no_receivers(no_receivers: None) -> None:
    """Start each test without receivers."""


@pytest.fixture
def tables(db: Any) -> None:
    """Make the tables, in the test's transaction."""
    with connection.schema_editor() as editor:
        for model in (Venue, Theatre, Review, Coded):
            editor.create_model(model)

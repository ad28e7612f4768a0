"""A stream for a test: set up under names of its own, consumed in this process, and gone afterwards.

Consuming runs the real command on the real server until everything committed so far is delivered.
"""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.models import Model
from psycopg import sql

from django_walsignals.changes import Operation, WalChange
from django_walsignals.conf import get_stream
from django_walsignals.models import Checkpoint
from django_walsignals.replication.catalogue import Slot, read_slot
from django_walsignals.signals import WalSignal, post_wal_change, post_wal_truncate, wal_gap, wal_message
from tests.processes import ManagedProcess, manage
from tests.waiting import wait_until


class Stream:
    """One configured stream and what its recorder heard."""

    def __init__(self, settings: Any, name: str) -> None:
        self._settings = settings
        self.name = name
        self.changes: list[WalChange[Any]] = []
        self.output = StringIO()
        self.configure()

    def configure(self, **overrides: Any) -> None:
        """Set the stream's settings."""
        names = {"SLOT": self.name, "PUBLICATION": f'Pub "{self.name}"'}
        self._settings.WALSIGNALS = {"default": {**names, **overrides}}

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint.objects.get(stream="default")

    def listen(self, *senders: type[Model] | str, **filters: Any) -> None:
        """Record the changes of these models, and make them what the stream publishes."""
        for sender in senders:
            post_wal_change.connect(self._record, sender=sender, dispatch_uid=f"recorder {sender}", **filters)

    def set_up(self) -> None:
        """Create publication and slot, so that changes from here on are in the stream."""
        self.consume()

    def consume(self, **options: Any) -> list[WalChange[Any]]:
        """Deliver what is committed; return the changes recorded meanwhile."""
        start = len(self.changes)
        try:
            call_command("walconsume", stdout=self.output, **{"until_lsn": "now", **options})
        finally:
            wait_until(self._slot_is_free, message="the slot is still in use")
        return self.changes[start:]

    def one(self, operation: str | None = None) -> WalChange[Any]:
        """Consume, and return the only change (of this operation)."""
        found = [change for change in self.consume() if operation in (None, change.operation)]
        assert len(found) == 1, found
        return found[0]

    def process(self, *arguments: str, receivers: str = "tests.effects", **env: str) -> ManagedProcess:
        """Start ``walconsume`` for this stream as a process of its own, with the receivers of a module."""
        return manage(
            "walconsume",
            *arguments,
            TEST_WALSIGNALS=json.dumps(self._settings.WALSIGNALS),
            TEST_RECEIVERS=receivers,
            **env,
        )

    def slot(self) -> Slot | None:
        """Read the stream's replication slot."""
        with connections[get_stream().database].cursor() as cursor:
            return read_slot(cursor, get_stream().slot)

    def drop(self) -> None:
        """Remove what the stream had on the server: its slot, whatever this database publishes, and full identities.

        So each test starts from the same tables, whichever ran before it.
        """
        wait_until(self._slot_is_free, message="the slot is still in use")
        with connections["default"].cursor() as cursor:
            query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
            cursor.execute(query, [self.name])
            cursor.execute("SELECT pubname FROM pg_publication")
            for (publication,) in cursor.fetchall():
                cursor.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(publication)))
            cursor.execute("SELECT oid::regclass::text FROM pg_class WHERE relreplident = 'f'")
            for (table,) in cursor.fetchall():
                cursor.execute(f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT")

    def _slot_is_free(self) -> bool:
        """Say whether nobody has the slot; a walsender lives on for a moment after its consumer."""
        with connections["default"].cursor() as cursor:
            slot = read_slot(cursor, self.name)
        return slot is None or slot.active_pid is None

    def _record(self, *, change: WalChange[Any], **kwargs: Any) -> None:
        self.changes.append(change)


@pytest.fixture
def stream(
    settings: Any, transactional_db: None, request: pytest.FixtureRequest, no_receivers: None
) -> Iterator[Stream]:
    """Give a stream of this test's own."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    made = Stream(settings, name)
    yield made
    made.drop()


@pytest.fixture
def no_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without receivers, and forget this test's afterwards."""
    for signal in (post_wal_change, post_wal_truncate, wal_message, wal_gap):
        _isolate(monkeypatch, signal)


def _isolate(monkeypatch: pytest.MonkeyPatch, signal: WalSignal) -> None:
    monkeypatch.setattr(signal, "receivers", [])
    monkeypatch.setattr(signal, "_filters", {})
    monkeypatch.setattr(signal, "_proxies", {})


__all__ = ["Operation", "Stream", "no_receivers", "stream"]

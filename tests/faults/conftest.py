"""What the fault tests share."""

from typing import Any

import psycopg
import pytest

from tests.conftest import MakeCluster
from tests.faults.private import Private
from tests.ledger.models import Effect
from tests.processes import ManagedProcess, database_dsn
from tests.streams import Stream
from tests.waiting import wait_until


class Notes:
    """A stream of notes on the session's server, and what its consumers left behind."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.name = stream.name

    def configure(self, **settings: Any) -> None:
        """Set the stream's settings."""
        self.stream.configure(MODELS=["testapp.Note"], **settings)

    def consumer(self, *arguments: str, **env: str) -> ManagedProcess:
        """Start a consumer whose ordinary database sessions can be told from all others."""
        return self.stream.process(*arguments, **{"PGAPPNAME": self.name, **env})

    def execute(self, sql: str, *parameters: Any) -> Any:
        """Run a statement in a session of its own."""
        with psycopg.connect(database_dsn(), autocommit=True) as session:
            cursor = session.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def terminate_walsender(self) -> None:
        """End the server's side of the stream."""
        terminate = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s"
        assert self.execute(terminate, self.name) == [(True,)]

    def terminate_database_sessions(self) -> None:
        """End the ordinary sessions of the stream's consumers."""
        assert self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", self.name
        )

    def write(self, *texts: str) -> None:
        """Insert notes, in a transaction each."""
        for text in texts:
            self.execute("INSERT INTO testapp_note (text) VALUES (%s)", text)

    def effects(self) -> list[str]:
        """List the texts that receivers were called with, in order."""
        return list(Effect.objects.order_by("pk").values_list("text", flat=True))

    def wait_for_effects(self, wanted: list[str], consumer: ManagedProcess, *, timeout: float = 30) -> None:
        """Wait until so many effects are committed, and check which."""
        wait_until(
            lambda: len(self.effects()) >= len(wanted),
            timeout=timeout,
            message=lambda: f"{self.effects()} {consumer}",
        )
        assert self.effects() == wanted

    def is_streaming(self) -> bool:
        """Say whether somebody has the slot."""
        slot = self.stream.slot()
        return slot is not None and slot.active_pid is not None


@pytest.fixture
def notes(stream: Stream) -> Notes:
    """Give a stream of notes that is set up: what is written from here on is in it."""
    made = Notes(stream)
    made.configure()
    made.consumer("--until-lsn", "now").succeed()
    return made


@pytest.fixture
def private(make_cluster: MakeCluster, stream: Stream) -> Private:
    """Give a server of the test's own."""
    stream.configure(MODELS=["testapp.Note"])
    return Private(make_cluster(), stream)

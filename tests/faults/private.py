"""A server of a test's own, which it may stop, crash and reconfigure, with consumers on it."""

import time
from typing import Any

import psycopg

from example_project.postgres import PostgresCluster
from tests import server
from tests.processes import ManagedProcess, run_manage
from tests.streams import Stream
from tests.waiting import wait_until


class Private:
    """A migrated server, and consumers on it."""

    def __init__(self, cluster: PostgresCluster, stream: Stream) -> None:
        self.cluster = cluster
        self.stream = stream
        run_manage("migrate", "--run-syncdb", "-v", "0", **self.env).succeed()

    @property
    def env(self) -> dict[str, str]:
        """What names this server to a process."""
        return {server.DSN: self.cluster.dsn()}

    def execute(self, sql: str, *parameters: Any) -> Any:
        """Run a statement in a session of its own."""
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as session:
            cursor = session.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def write(self, notes: int, text: str = "") -> None:
        """Insert so many notes, in a transaction each."""
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as session:
            for number in range(notes):
                session.execute("INSERT INTO testapp_note (text) VALUES (%s)", [text or str(number)])

    def consumer(self, *arguments: str, **env: str) -> ManagedProcess:
        """Start a consumer."""
        return self.stream.process(*arguments, **{**self.env, **env})

    def effects(self) -> tuple[int, int]:
        """Count the calls of receivers, and the changes that they were called with."""
        ((calls, changes),) = self.execute("SELECT count(*), count(DISTINCT change_id) FROM ledger_effect")
        return calls, changes

    def wait_for_effects(self, wanted: int, consumer: ManagedProcess) -> None:
        """Wait until so many calls are committed, and check that each is of another change."""
        wait_until(lambda: self.effects()[0] >= wanted, timeout=30, message=lambda: f"{self.effects()} {consumer}")
        assert self.effects() == (wanted, wanted)

    def stop_seconds(self) -> float:
        """Stop the server fast, and say how long it took."""
        start = time.monotonic()
        self.cluster.stop("fast")
        return time.monotonic() - start


def wait_for_sessions(consumer: ManagedProcess, number: int, *, timeout: float = 30) -> None:
    """Wait until a consumer has started to stream so many times."""
    wait_until(
        lambda: consumer.stdout.text.count("streaming") >= number, timeout=timeout, message=lambda: str(consumer)
    )

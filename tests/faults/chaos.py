"""A random workload, and consumers to whom random things happen meanwhile."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.faults.private import Private
from tests.processes import ManagedProcess
from tests.waiting import wait_until


class Writer:
    """Writes at random, outlives the server's crashes, and knows how many changes it committed."""

    def __init__(self, dsn: str, number: int, seed: int, stop: threading.Event) -> None:
        self._dsn = dsn
        self._in_doubt: tuple[int, Counter[str]] | None = None
        self.changes: Counter[str] = Counter()
        self._chance = random.Random(f"{seed} {number}")
        self._stop = stop
        self._keys = iter(range(10_000_000 * (number + 1), 10_000_000 * (number + 2)))
        self._thread = threading.Thread(target=self._run, name=f"writer-{number}")
        self._thread.start()

    def join(self) -> None:
        """Wait for its last transaction."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set() or self._in_doubt:
            try:
                with psycopg.connect(self._dsn, autocommit=True) as session:
                    self._settle(session)
                with psycopg.connect(self._dsn) as session:
                    self._write(session)
            except psycopg.OperationalError:  # the server is down
                time.sleep(0.1)

    def _write(self, session: psycopg.Connection[Any]) -> None:
        while not self._stop.is_set():
            try:
                self._transaction(session)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                session.rollback()
            self._stop.wait(self._chance.uniform(0, 0.03))

    def _settle(self, session: psycopg.Connection[Any]) -> None:
        """Find out what became of a transaction whose COMMIT was sent and not answered."""
        if self._in_doubt:
            number, written = self._in_doubt
            ((status,),) = session.execute("SELECT pg_xact_status(%s::text::xid8)", [number]).fetchall()
            if status == "committed":
                self.changes += written
            self._in_doubt = None

    def _transaction(self, session: psycopg.Connection[Any]) -> None:
        """Write, and count what was written if it was committed."""
        written: Counter[str] = Counter()
        ((number,),) = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
        for _ in range(self._chance.choice((1, 1, 2, 5, 20))):
            written += self._maybe_undone(session)
        if self._chance.random() < 0.1:
            session.rollback()
        else:
            self._in_doubt = (number, written)
            session.commit()
            self._in_doubt = None
            self.changes += written

    def _maybe_undone(self, session: psycopg.Connection[Any]) -> Counter[str]:
        """Do something inside a savepoint, of which one in six is rolled back."""
        session.execute("SAVEPOINT here")
        written = self._do_something(session)
        if self._chance.random() < 1 / 6:
            session.execute("ROLLBACK TO SAVEPOINT here")
            return Counter()
        session.execute("RELEASE SAVEPOINT here")
        return written

    def _do_something(self, session: psycopg.Connection[Any]) -> Counter[str]:
        ((what,),) = [self._chance.choices(("insert", "update", "key", "delete", "truncate"), (40, 25, 15, 20, 0.3))]
        some = "SELECT id FROM testapp_note WHERE id % %s = 0 ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED"
        modulus = self._chance.randrange(1, 50)
        if what == "truncate":
            session.execute("TRUNCATE testapp_note")
            return Counter(truncate=1)
        if what == "insert":
            rows = [(next(self._keys), self._text()) for _ in range(self._chance.randrange(1, 4))]
            session.cursor().executemany("INSERT INTO testapp_note (id, text) VALUES (%s, %s)", rows)
            return Counter(insert=len(rows))
        statement, parameters = {
            "update": ("UPDATE testapp_note SET text = %s WHERE id = ANY(%s)", [self._text()]),
            "key": ("UPDATE testapp_note SET id = id + 500000000 WHERE id < 400000000 AND id = ANY(%s)", []),
            "delete": ("DELETE FROM testapp_note WHERE id = ANY(%s)", []),
        }[what]
        keys = [key for (key,) in session.execute(some.replace("% %s", f"%% {modulus}"), []).fetchall()]
        return Counter({what: session.execute(statement, [*parameters, keys]).rowcount})

    def _text(self) -> str:
        """Make a text; one in ten is so large, and so random, that it is kept outside of its row."""
        size = 5000 if self._chance.random() < 0.1 else 10
        return self._chance.randbytes(size).hex()


class Workload:
    """Writers at work, as long as its block lasts."""

    def __init__(self, dsn: str, writers: int, seed: int) -> None:
        self._stop = threading.Event()
        self._writers = [Writer(dsn, number, seed, self._stop) for number in range(writers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        for writer in self._writers:
            writer.join()

    @property
    def changes(self) -> Counter[str]:
        """What was committed, by kind."""
        return sum((writer.changes for writer in self._writers), Counter())


class Torment:
    """Two consumers of a stream, one of them standing by, and what happens to them."""

    def __init__(self, private: Private, seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self._private = private
        self._slot = private.stream.name
        self._chance = random.Random(f"{seed} torment")
        #: How long the slowest fast shutdown took, in seconds.
        self.slowest_stop = 0.0
        self._ended_by_us: ManagedProcess | None = None
        self._name = f"consumer of {self._slot}"[:60]
        self._bag: list[Callable[[ManagedProcess], None]] = []
        self._faults: list[Callable[[ManagedProcess], None]] = [
            *[self.kill] * 6, *[self.lose_walsender] * 2, *[self.lose_database] * 2, *[self.pause] * 2,
            *[self.ask_to_stop] * 2, self.crash_server, self.restart_server,
        ]  # fmt: skip

    def run(self, seconds: float) -> None:
        """Torment the consumers for a time; none is left."""
        deadline = time.monotonic() + seconds
        consumers = [self._start(), self._start()]
        try:
            while time.monotonic() < deadline:
                time.sleep(self._chance.uniform(0.05, 1.2))
                at = self._chance.randrange(len(consumers))
                self._next_fault()(consumers[at])
                consumers = [each if each.returncode is None else self._replace(each) for each in consumers]
        finally:
            for each in consumers:
                each.kill()

    def _next_fault(self) -> Callable[[ManagedProcess], None]:
        """Draw without putting back, so that each of them happens."""
        if not self._bag:
            self._bag = self._chance.sample(self._faults, len(self._faults))
        return self._bag.pop()

    def kill(self, consumer: ManagedProcess) -> None:
        consumer.kill()
        self._ended_by_us = consumer
        self.happened["SIGKILL"] += 1

    def ask_to_stop(self, consumer: ManagedProcess) -> None:
        consumer.terminate()
        self._ended_by_us = consumer
        self.happened["SIGTERM"] += 1

    def crash_server(self, consumer: ManagedProcess) -> None:
        self._private.cluster.stop("immediate")
        self._private.cluster.start()
        self.happened["server crash"] += 1

    def restart_server(self, consumer: ManagedProcess) -> None:
        self.slowest_stop = max(self.slowest_stop, self._private.stop_seconds())
        self._private.cluster.start()
        self.happened["server restart"] += 1

    def lose_walsender(self, consumer: ManagedProcess) -> None:
        self._terminate("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", self._slot)
        self.happened["walsender terminated"] += 1

    def lose_database(self, consumer: ManagedProcess) -> None:
        self._terminate("SELECT pid FROM pg_stat_activity WHERE application_name = %s", self._name)
        self.happened["database sessions terminated"] += 1

    def pause(self, consumer: ManagedProcess) -> None:
        """Freeze a consumer and take its walsender, so that the other one goes on, and then let it wake up."""
        os.kill(consumer.pid, signal.SIGSTOP)
        self._terminate("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", self._slot)
        time.sleep(self._chance.uniform(0.1, 1.5))
        os.kill(consumer.pid, signal.SIGCONT)
        self.happened["SIGSTOP, and its walsender terminated"] += 1

    def _replace(self, ended: ManagedProcess) -> ManagedProcess:
        """Start another one. By itself only one ends that lost its sessions before it had ever streamed."""
        ended.wait()
        if ended is not self._ended_by_us:
            started = "streaming" in ended.stdout.text or "standing by" in ended.stdout.text
            assert ended.returncode == 1 and not started, ended
            self.happened["ended at its start"] += 1
        return self._start()

    def _start(self) -> ManagedProcess:
        self.happened["starts"] += 1
        return self._private.consumer(receivers="tests.faults.shadow", PGAPPNAME=self._name)

    def _terminate(self, which: str, name: str) -> None:
        self._private.execute(f"SELECT pg_terminate_backend(pid) FROM ({which}) AS found (pid)", name)


def drain(private: Private) -> None:
    """Deliver all that is left, with a consumer that nothing happens to."""
    wait_until(lambda: private.execute("SELECT active FROM pg_replication_slots") == [(False,)])
    with private.consumer("--until-lsn", "now", receivers="tests.faults.shadow") as consumer:
        consumer.succeed(timeout=300)

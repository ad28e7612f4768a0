"""The COPY BOTH connection to a walsender.

https://www.postgresql.org/docs/current/protocol-replication.html

Nothing here waits for the socket, except to connect, to run a command and to end the stream: the caller waits, on
this connection's socket among others, and then takes what is there. libpq forbids two threads inside one connection
at the same time, so whoever shares it takes `lock`.
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg import pq
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed

from django_walsignals.exceptions import ConnectionLost, GapError
from django_walsignals.protocol.frames import Keepalive, StandbyStatus, XLogData, parse_frame
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication import commands
from django_walsignals.replication.errors import translate, translated

#: The warning with which PostgreSQL 18 skips the changes of a publication that was not there at that point of the WAL.
_SKIPPED_PUBLICATION: Final = "55000"

#: An element of synchronous_standby_names, in quotes or not.
_STANDBY_NAME: Final = re.compile(r'"([^"]+)"|([^\s,()"]+)')

#: How long the server may take to answer the end of the stream, in seconds.
_END_TIMEOUT: Final = 2.0


class SystemIdentity(NamedTuple):
    """What the server says of itself: the cluster, and which of its histories this is."""

    system_identifier: str
    timeline: int
    flushed: LSN
    database: str


def waits_for(standbys: str, own: str) -> bool:
    """Say whether a value of synchronous_standby_names makes commits wait for who is called ``own``."""
    names = {quoted or plain.lower() for quoted, plain in _STANDBY_NAME.findall(standbys)}
    return not names.isdisjoint({"*", own, own.lower()})


class ReplicationConnection:
    """One session with a walsender."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.lock = threading.RLock()
        self._connection = connection
        self._pgconn = connection.pgconn
        self._skipped: str | None = None
        connection.add_notice_handler(self._notice)

    @classmethod
    def open(cls, parameters: Mapping[str, Any], *, timezone: str = "UTC") -> Self:
        """Connect; raise `ConnectionLost` where trying again may help, another error where it can't."""
        role = f" as role {parameters['user']}" if parameters.get("user") else ""
        with translated(f"connect to the server for replication{role}"):
            connection = psycopg.connect(autocommit=True, **parameters)
            try:
                connection.execute(commands.pin_session(timezone))
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    def identify_system(self) -> SystemIdentity:
        """Ask the server who it is."""
        row = self.query(commands.IDENTIFY_SYSTEM, "identify the server")
        return SystemIdentity(row["systemid"], int(row["timeline"]), LSN.parse(row["xlogpos"]), row["dbname"])

    def timeline_history(self, timeline: int) -> dict[int, LSN]:
        """Ask where each timeline before this one ended: the lines of its history file."""
        row = self.query(commands.timeline_history(timeline), "read the timeline's history")
        content = row["content"]
        text = bytes(content).decode() if isinstance(content, bytes | memoryview) else str(content)
        lines = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
        return {int(number): LSN.parse(end) for number, end, *_reason in lines}

    def wal_sender_timeout(self) -> float | None:
        """Ask after how many seconds of silence the server lets go; None means never."""
        row = self.query(commands.WAL_SENDER_TIMEOUT, "read a setting")
        return int(row["setting"]) / 1000 or None

    def is_synchronous_standby(self) -> bool:
        """Say whether commits would wait for this connection: synchronous_standby_names has its name, or ``*``."""
        row = self.query(commands.SYNCHRONOUS_STANDBYS, "read a setting")
        return waits_for(row["standbys"], row["own"])

    def take(self, slot: str) -> bool:
        """Lock a stream for as long as this connection lives; False where another consumer has it.

        The slot itself admits one consumer only, but not before it streams; this lock also keeps two from setting up.
        """
        return bool(self.query(commands.take(slot), "lock the stream")["taken"])

    def create_slot(self, slot: str, *, failover: bool) -> LSN:
        """Create a permanent slot; waits until all transactions that are open now have ended."""
        row = self.query(commands.create_slot(slot, failover=failover), f"create the replication slot {slot}")
        return LSN.parse(row["consistent_point"])

    def create_temporary_slot(self, slot: str) -> LSN:
        """Create a slot that lives as long as this connection; return where it starts."""
        row = self.query(commands.create_temporary_slot(slot), f"create the temporary slot {slot}")
        return LSN.parse(row["consistent_point"])

    def query(self, command: SQL | Composed, doing: str) -> dict[str, Any]:
        """Run a command of one row, over the simple protocol."""
        with translated(doing):
            cursor = self._connection.cursor(row_factory=dict_row)
            row: dict[str, Any] | None = cursor.execute(command).fetchone()
        if row is None:
            raise ConnectionLost(f"Could not {doing}: the server sent no row")
        return row

    def start(self, command: Composed, slot: str) -> None:
        """Run START_REPLICATION; from here on only frames go to and fro."""
        with translated(f"stream from replication slot {slot}"):
            self._connection.execute(command)

    def fileno(self) -> int:
        """Name the socket to wait on."""
        with translated("wait for the server"):
            return self._pgconn.socket

    def receive(self) -> XLogData | Keepalive | None:
        """Take the next frame, without waiting; None when there is none.

        Raises `ConnectionLost` when the stream has ended, and what `translate` makes of the error that ended it.
        """
        frame = self._copy_data()
        if frame is None:
            with translated("read from the server"):
                self._pgconn.consume_input()
            frame = self._copy_data()
        if self._skipped is not None:
            raise GapError(self._skipped)
        return None if frame is None else parse_frame(frame)

    def send_status(self, status: StandbyStatus) -> None:
        """Send a standby status update, as far as the socket takes it now."""
        with translated("report to the server"):
            self._pgconn.put_copy_data(status.to_bytes())
            self._pgconn.flush()

    def finish(self, clock: Callable[[], float] = time.monotonic) -> None:
        """End the stream so that the server has all that was sent, if it answers in time, and close."""
        try:
            with translated("end the stream"):
                self._pgconn.put_copy_end()
                self._pgconn.flush()
                self._drain(clock() + _END_TIMEOUT, clock)
        except ConnectionLost:
            pass  # it ended by itself, which is just as good
        finally:
            self.close()

    def close(self) -> None:
        """Close at once."""
        with self.lock:
            self._connection.close()

    def _copy_data(self) -> bytes | None:
        try:
            size, data = self._pgconn.get_copy_data(1)
        except psycopg.Error as exc:
            raise translate(exc, "read from the server") from exc
        if size > 0:
            return bytes(data)
        if size < 0:
            raise self._end_of_stream()
        return None

    def _end_of_stream(self) -> Exception:
        """Say why the stream ended: with an error, or without one, as in a server's shutdown."""
        with translated("read from the server"):
            result = self._pgconn.get_result()
        if result is not None and result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.NONFATAL_ERROR):
            return translate(psycopg.errors.error_from_result(result), "go on streaming")
        return ConnectionLost("The server ended the stream, as it does when it shuts down.")

    def _drain(self, deadline: float, clock: Callable[[], float]) -> None:
        """Throw away what still comes, until the server has ended its side too."""
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN)
        while (remaining := deadline - clock()) > 0:
            size, _ = self._pgconn.get_copy_data(1)
            if size < 0:
                return
            if size == 0:
                poll.poll(remaining * 1000)
                self._pgconn.consume_input()

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate == _SKIPPED_PUBLICATION and diagnostic.severity_nonlocalized == "WARNING":
            detail = diagnostic.message_detail or ""
            self._skipped = (
                f"The server skips changes: {diagnostic.message_primary}. {detail} "
                "The publication was dropped, or made after these changes; they can't be read through it. To go on "
                "without them, run: manage.py walconsume --accept-gap"
            )

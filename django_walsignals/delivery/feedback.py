"""What the server is told, and when: standby status after every commit, on request, and on a timer of its own.

https://www.postgresql.org/docs/current/protocol-replication.html, "Standby status update".

Only `Feedback.confirm` moves the position that the server may forget up to, and it is called after a checkpoint has
been committed and at no other time. The timer runs in a thread, so that a slow receiver does not cost the connection;
that thread also lets go of the server when the ORM's connection dies under a receiver: a server that shuts down waits
for its walsenders, and the receiver could never commit anyway.

A server that is silent is asked for an answer, and given up where none comes: what a frozen proxy or a lost route
swallows may have been acknowledged by some kernel on the way, so that TCP's own timers never run out.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from django_walsignals.exceptions import ConnectionLost, WalSignalsError
from django_walsignals.protocol.frames import StandbyStatus, to_wire_time
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.connection import ReplicationConnection

logger = logging.getLogger(__name__)

#: Seconds between two statuses where the server sets no time-out (wal_sender_timeout = 0).
DEFAULT_INTERVAL: Final = 10.0

#: A server that shuts down asks for a reply again as soon as it has one: answer at most once in so many seconds.
MIN_REPLY_GAP: Final = 0.1

#: A server is asked for an answer after half of its own time-out without a word, and has twice that time-out to give
#: one. Generous: while it decodes some huge transaction of other tables it is deaf for seconds.
ASK_AFTER: Final = 0.5
ANSWER_WITHIN: Final = 2.0

#: A batch that has been in hand for so many seconds is spoken of as received: one that is done sooner is not worth it.
IN_HAND_AFTER: Final = 5.0

#: The other side has gone: Linux says so even while its last words are still unread. Elsewhere only a full hang-up
#: shows.
_PEER_GONE: Final = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class Feedback:
    """The standby's voice. All of it happens under the connection's lock."""

    def __init__(
        self,
        connection: ReplicationConnection,
        confirmed: LSN,
        *,
        server_timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``server_timeout`` is the server's wal_sender_timeout in seconds; four statuses fit into it."""
        self._connection = connection
        self._confirmed = confirmed
        self._interval = server_timeout / 4 if server_timeout else DEFAULT_INTERVAL
        self._clock = clock
        self._wall_clock = wall_clock
        self._sent_at = clock()
        self._due = self._sent_at + self._interval
        self._heard_at = self._sent_at
        self._asked_at: float | None = None
        self._in_hand: tuple[LSN, float] | None = None

    @property
    def confirmed(self) -> LSN:
        """Up to here the server may forget."""
        return self._confirmed

    def seconds_left(self) -> float:
        """Say how long until a status is due; 0 when it is."""
        return max(0.0, self._due - self._clock())

    def take(self, lsn: LSN) -> None:
        """Take note that what there is up to ``lsn`` is in hand, until the next `confirm`.

        The server is told on the timer alone, and shows it to whoever asks why nothing gets done (see ``status``).
        """
        self._in_hand = lsn, self._clock()

    def confirm(self, lsn: LSN) -> None:
        """Tell the server that everything before ``lsn`` is committed; raise ``ValueError`` for a step back."""
        if lsn < self._confirmed:
            raise ValueError(f"confirming {lsn} after {self._confirmed}")
        self._in_hand = None
        if lsn > self._confirmed:
            self._confirmed = lsn
            self.send()

    def request(self) -> None:
        """Take note that the server wants a reply."""
        self._due = min(self._due, self._sent_at + MIN_REPLY_GAP)

    def hear(self) -> None:
        """Take note that something has come from the server."""
        self._heard_at = self._clock()
        self._asked_at = None

    def refuse_silence(self) -> None:
        """Ask a server that has been silent for an answer; raise `ConnectionLost` where none has come in time.

        To be called when all that came has been read.
        """
        now, timeout = self._clock(), 4 * self._interval
        if self._asked_at is None:
            if now - self._heard_at >= ASK_AFTER * timeout:
                self._asked_at = now
                self.send(reply_requested=True)
        elif now - self._asked_at >= ANSWER_WITHIN * timeout:
            raise ConnectionLost(f"The server has been silent for {now - self._heard_at:.0f} s, and gives no answer.")

    def send_if_due(self) -> None:
        """Send a status if it is time."""
        if not self.seconds_left():
            self.send()

    def send(self, *, reply_requested: bool = False) -> None:
        """Send a status now."""
        with self._connection.lock:
            at = self._confirmed
            status = StandbyStatus(self._received(), at, at, to_wire_time(self._wall_clock()), reply_requested)
            self._connection.send_status(status)
            self._sent_at = self._clock()
            self._due = self._sent_at + self._interval

    def _received(self) -> LSN:
        """Say up to where a batch is in hand that takes its time; the server may forget nothing on account of it."""
        in_hand = self._in_hand
        if in_hand is None or self._clock() - in_hand[1] < IN_HAND_AFTER:
            return self._confirmed
        return max(self._confirmed, in_hand[0])


class FeedbackThread:
    """Sends a status whenever one is due, and watches sockets whose end ends the session. A context manager."""

    def __init__(self, feedback: Feedback, connection: ReplicationConnection, watched: Collection[int]) -> None:
        """``watched`` are the file descriptors of the ORM's connections."""
        self._feedback = feedback
        self._connection = connection
        self._watched = frozenset(watched)
        self._stop_reading, self._stop_writing = os.pipe()
        self._thread = threading.Thread(target=self._run, name="walsignals-feedback", daemon=True)

    def __enter__(self) -> FeedbackThread:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.write(self._stop_writing, b"x")
        self._thread.join()
        os.close(self._stop_reading)
        os.close(self._stop_writing)

    def _run(self) -> None:
        # A signal that this thread took would not end a receiver's sleep or query in the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        poll = select.poll()
        poll.register(self._stop_reading, select.POLLIN)
        for descriptor in self._watched:
            poll.register(descriptor, _PEER_GONE)
        try:
            while not (ready := poll.poll(self._feedback.seconds_left() * 1000 + 1)):
                with self._connection.lock:
                    self._feedback.send_if_due()
        except WalSignalsError as exc:
            logger.debug("The feedback thread ends, and the consumer is about to see why: %s", exc)
            return
        if any(descriptor != self._stop_reading for descriptor, _ in ready):
            logger.warning("The database connection has died while a batch was in hand: letting go of the server")
            self._connection.close()

"""The consumer: the only place that orders the stages.

Take in what the socket has, up to a batch; deliver it together with its checkpoint, or, where there was nothing to
deliver, keep the position that the server has come to; only then tell the server; wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from django.db import connections, transaction

from django_walsignals.binding.registry import TableRegistry
from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import waiting
from django_walsignals.delivery.dispatch import deliver
from django_walsignals.delivery.feedback import Feedback, FeedbackThread
from django_walsignals.delivery.intake import OWN_PREFIX, Batch, Intake
from django_walsignals.delivery.position import Progress
from django_walsignals.delivery.routing import Router
from django_walsignals.delivery.session import Session, durable_session, temporary_session
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.protocol.frames import Keepalive
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.catalogue import read_flushed_lsn
from django_walsignals.selection import concrete_models

logger = logging.getLogger(__name__)

#: An idle position is written once it is so many bytes ahead, and at most once in so many seconds: the write is
#: itself WAL, and would otherwise give cause for the next one, for ever.
IDLE_SAVE_BYTES: Final = 64 * 1024
IDLE_SAVE_SECONDS: Final = 1.0

#: Frames taken in at a time, so that a long run of changes that nobody wants does not hold up a status or a signal.
MAX_FRAMES: Final = 10_000

NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end by itself: at a position (or at what is committed `NOW`), or after so many changes."""

    until: LSN | str | None = None
    max_changes: int | None = None


class Consumer:
    """Consume one stream, from the checkpoint on, until stopped or done."""

    def __init__(
        self,
        config: StreamConfig,
        stop: StopRequest,
        *,
        limits: Limits = Limits(),
        report: Callable[[str], None] = logger.info,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``report`` is called with one line when the stream has started."""
        self._config = config
        self._stop = stop
        self._limits = limits
        self._report = report
        self._clock = clock
        self._aliases = {config.database, config.checkpoint_database}
        #: Changes, truncates and messages delivered so far.
        self.delivered = 0

    def run(self, wanted_tables: Collection[str] = (), *, temporary: bool = False) -> None:
        """Consume; return when stopped or done, raise a `WalSignalsError` for anything else.

        ``wanted_tables`` names the tables that the stream is to bring, as ``schema.name``. With ``temporary`` the slot
        ends with this call and no checkpoint is written: what was delivered is known to nobody afterwards.
        """
        waiting.renew(self._aliases)
        opened: AbstractContextManager[Session]
        opened = temporary_session(self._config) if temporary else durable_session(self._config, wanted_tables)
        with opened as session:
            self._begin(session)
            with FeedbackThread(self._feedback, session.connection, self._waiter.orm_sockets):
                self._consume(session)

    def _begin(self, session: Session) -> None:
        """Set up the stages for a session."""
        database = connections[self._config.database]
        self._router = Router(self._config, TableRegistry.load(database, concrete_models()), database)
        self._batch = Batch(self._config.batch_size)
        self._intake = Intake(
            self._router, self._batch, session.position, stream=self._config.alias, using=database.alias
        )
        self._progress = Progress(session.position)
        self._feedback = Feedback(
            session.connection, session.position.lsn, server_timeout=session.server_timeout, clock=self._clock
        )
        self._waiter = waiting.Waiter(session.connection.fileno(), self._stop.fileno(), self._aliases)
        self._saved_at = self._clock()
        self._target = self._resolve_target()
        self._report(f"streaming {self._config.alias} from {session.position}")

    def _consume(self, session: Session) -> None:
        while not self._is_finished():
            self._batch.max_events = self._room()
            is_dry = self._take_in(session)
            if self._batch.events:
                self._deliver(session)
            else:
                self._keep_idle_position(session)
            if is_dry and not self._is_finished():
                self._wait()
        self._keep_idle_position(session, is_last=True)

    def _take_in(self, session: Session) -> bool:
        """Fill the batch with what the socket has; say whether it has run dry."""
        self._router.refresh()
        with session.connection.lock:
            for _ in range(MAX_FRAMES):
                if self._batch.is_full:
                    return False
                frame = session.connection.receive()
                if frame is None:
                    return True
                if isinstance(frame, Keepalive):
                    self._answer(frame)
                else:
                    self._intake.feed(frame.payload)
        return False

    def _answer(self, keepalive: Keepalive) -> None:
        """Take note of how far the server is; it is told nothing but what is committed."""
        self._intake.skip_to(keepalive.wal_end)
        if keepalive.reply_requested:
            self._feedback.request()

    def _deliver(self, session: Session) -> None:
        position = self._intake.position
        self._progress.receive(position)
        deliver(
            self._batch.events,
            session.keeper,
            self._progress.done,
            position,
            using=self._config.checkpoint_database,
        )
        self.delivered += len(self._batch.events)
        self._batch.clear()
        self._finish_position(session)
        waiting.close_obsolete(self._aliases)

    def _keep_idle_position(self, session: Session, *, is_last: bool = False) -> None:
        """Store and confirm a position behind which there was nothing to deliver, at a bounded rate."""
        position, done = self._intake.position, self._progress.done
        is_due = self._clock() - self._saved_at >= IDLE_SAVE_SECONDS and position.lsn - done.lsn >= IDLE_SAVE_BYTES
        if position.lsn > done.lsn and (is_due or is_last):
            self._progress.receive(position)
            session.keeper.save(done, position)
            self._finish_position(session)

    def _finish_position(self, session: Session) -> None:
        """Tell the server, now that what it covers is committed."""
        self._progress.finish(self._progress.received)
        self._saved_at = self._clock()
        with session.connection.lock:
            self._feedback.confirm(self._progress.done.lsn)

    def _wait(self) -> None:
        """Wait for data, a signal, or the next thing to do."""
        seconds = self._feedback.seconds_left()
        if self._intake.position.lsn - self._progress.done.lsn >= IDLE_SAVE_BYTES:
            seconds = min(seconds, IDLE_SAVE_SECONDS)
        self._waiter.wait(seconds)
        self._feedback.send_if_due()

    def _room(self) -> int:
        """Say how many changes the next batch may hold."""
        if self._limits.max_changes is None:
            return self._config.batch_size
        return min(self._config.batch_size, self._limits.max_changes - self.delivered)

    def _is_finished(self) -> bool:
        if self._stop.requested:
            return True
        if self._limits.max_changes is not None and self.delivered >= self._limits.max_changes:
            return True
        return self._target is not None and not self._batch.events and self._intake.position.lsn >= self._target

    def _resolve_target(self) -> LSN | None:
        """Find where to end. For "now" that is the end of a transaction written for it, which the stream brings."""
        until = self._limits.until
        if until is None or isinstance(until, LSN):
            return until
        alias = self._config.database
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = on")
            cursor.execute("SELECT pg_logical_emit_message(true, %s, 'until now')", [OWN_PREFIX])
        with connections[alias].cursor() as cursor:
            return read_flushed_lsn(cursor)

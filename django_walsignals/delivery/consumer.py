"""One session's consumer: the only place that orders the stages.

Take in what the socket has, up to a batch; deliver it together with its checkpoint, or, where there was nothing to
deliver, keep the position that the server has come to; only then tell the server; wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import Error, connections, reset_queries

from django_walsignals.binding.registry import TableRegistry
from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import waiting
from django_walsignals.delivery.careful import CarefulDelivery, Interrupted
from django_walsignals.delivery.feedback import Feedback, FeedbackThread
from django_walsignals.delivery.intake import Batch, Event, Intake
from django_walsignals.delivery.observer import NOBODY, Observer
from django_walsignals.delivery.position import Position, Progress
from django_walsignals.delivery.routing import PUBLIC, Router, Signals
from django_walsignals.delivery.session import Session
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.exceptions import CheckpointMoved, DeliveryError, ReceiverError
from django_walsignals.protocol.frames import Keepalive, to_datetime
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.activity import read_log_end
from django_walsignals.selection import foreign_models

logger = logging.getLogger(__name__)

#: An idle position is written once it is so many bytes ahead, and at most once in so many seconds: the write is itself
#: WAL, and would otherwise give cause for the next one, for ever.
IDLE_SAVE_BYTES: Final = 64 * 1024
IDLE_SAVE_SECONDS: Final = 1.0

#: Frames taken in at a time, so that a long run of changes that nobody wants does not hold up a status or a signal.
MAX_FRAMES: Final = 10_000


@dataclass(slots=True)
class Tally:
    """What is left to do, and what was done: one for all sessions of a consumer."""

    #: End when everything committed before this position is delivered.
    target: LSN | None = None
    #: End after so many changes.
    max_changes: int | None = None
    #: Changes, truncates and messages delivered so far.
    delivered: int = 0

    def room(self, most: int) -> int:
        """Say how many changes the next batch may hold, ``most`` at most."""
        return most if self.max_changes is None else min(most, self.max_changes - self.delivered)


class Consumer:
    """Consume one session of a stream, until it is stopped, done, or the session ends."""

    def __init__(
        self,
        config: StreamConfig,
        session: Session,
        delivery: CarefulDelivery,
        stop: StopRequest,
        tally: Tally,
        *,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = NOBODY,
        signals: Signals = PUBLIC,
    ) -> None:
        database = connections[config.database]
        self._config = config
        self._connection = session.connection
        self._keeper = session.keeper
        self._delivery = delivery
        self._stop = stop
        self._tally = tally
        self._clock = clock
        self._observer = observer
        registry = TableRegistry.load(database, foreign_models())
        self._router = Router(config, registry, database, observer=observer, signals=signals)
        self._batch = Batch(config.batch_size)
        self._intake = Intake(self._router, self._batch, session.position, stream=config.alias, using=database.alias)
        self._progress = Progress(session.position)
        self._feedback = Feedback(
            session.connection, session.position.lsn, server_timeout=session.server_timeout, clock=clock
        )
        self._aliases = {config.database, config.checkpoint_database}
        self._waiter = waiting.Waiter(session.connection.fileno(), stop, self._aliases)
        self._saved_at = clock()
        self._is_asked = False
        self._caught_up_at: datetime | None = None
        self._dry_at: float | None = None

    def run(self) -> None:
        """Consume; return when stopped or done, raise a `WalSignalsError` or a database error for anything else."""
        with FeedbackThread(self._feedback, self._connection, self._waiter.orm_sockets):
            while not self._is_finished():
                self._observer.working()
                self._batch.max_events = self._tally.room(self._config.batch_size)
                is_dry = self._take_in()
                self._dry_at = self._clock() if is_dry else None
                if self._batch.events:
                    self._deliver()
                else:
                    self._keep_idle_position()
                if is_dry and not self._is_finished():
                    self._wait()
            self._keep_idle_position(is_last=True)
            self._note_end()

    def _take_in(self) -> bool:
        """Fill the batch with what the socket has; say whether it has run dry."""
        self._router.refresh()
        with self._connection.lock:
            for number in range(MAX_FRAMES):
                if self._batch.is_full:
                    return False
                frame = self._connection.receive()
                if frame is None:
                    return True
                if not number:
                    self._feedback.hear()
                if isinstance(frame, Keepalive):
                    self._answer(frame)
                else:
                    self._intake.feed(frame.payload)
        return False

    def _answer(self, keepalive: Keepalive) -> None:
        """Take note of how far the server is; it is told nothing but what is committed."""
        self._intake.skip_to(keepalive.wal_end)
        if not (keepalive.reply_requested or self._intake.in_transaction):  # such a one says that the log ends here
            self._caught_up_at = to_datetime(keepalive.sent_at)
        if keepalive.reply_requested:
            self._is_asked = True
            self._feedback.request()

    def _deliver(self) -> None:
        """Deliver the batch: at once if that goes well, and carefully if a receiver does not let it."""
        position = self._intake.position
        self._progress.receive(position)
        self._feedback.take(max(position.lsn, position.commit_lsn))
        started = self._clock()
        try:
            self._delivery.deliver(self._batch.events, self._keeper, self._progress.done, position)
        except CheckpointMoved:
            raise
        except DeliveryError as exc:
            again = "%s; the batch was rolled back, and is taken again one change at a time"
            logger.warning(again, exc, exc_info=exc.__cause__)
            self._observer.batch_rolled_back()
            if isinstance(exc, ReceiverError):
                self._observer.receiver_failed(exc.receiver)
            if not self._deliver_carefully(position, started):
                return  # somebody wants to stop
        self._finish(position)
        self._count(self._batch.events, started)
        self._batch.clear()
        self._waiter.refuse_replaced()
        waiting.close_obsolete(self._aliases)
        if self._connection_logs_queries():
            reset_queries()

    def _deliver_carefully(self, position: Position, started: float) -> bool:
        """Deliver one change at a time; say whether all of the batch is done."""
        done = self._progress.done
        try:
            self._delivery.deliver_carefully(self._batch.events, self._keeper, done, self._progress.finish)
        except BaseException as exc:
            done = self._progress.done
            place = done.commit_lsn, done.ordinal
            self._count([event for event in self._batch.events if event[0].place <= place], started)
            if isinstance(exc, Interrupted):
                return False
            raise
        self._keeper.save(self._progress.done, position)
        return True

    def _count(self, events: Sequence[Event], started: float) -> None:
        """Count what is committed; ``started`` is when its delivery began."""
        self._tally.delivered += len(events)
        if events:
            self._observer.batch_delivered(events, self._clock() - started)

    def _keep_idle_position(self, *, is_last: bool = False) -> None:
        """Store and confirm a position behind which there was nothing to deliver, at a bounded rate."""
        if self._batch.events:  # an interrupted batch: what is left of it comes again
            return
        position, done = self._intake.position, self._progress.done
        is_due = self._is_worth_saving() and self._clock() - self._saved_at >= IDLE_SAVE_SECONDS
        if position.lsn > done.lsn and (is_due or is_last):
            self._progress.receive(position)
            self._keeper.save(done, position, self._caught_up_at)
            self._finish(position)

    def _note_end(self) -> None:
        """Write until when the stream was up to date, where it ended with nothing left to read: its age counts from then.

        It is for `status` alone, so that a database that is going away, or a rival, is no matter.
        """
        if self._dry_at is None:
            return
        done, ago = self._progress.done, timedelta(seconds=self._clock() - self._dry_at)
        with suppress(Error, CheckpointMoved), connections[self._config.database].cursor() as cursor:
            now, end = read_log_end(cursor)
            if not self._batch.events and end - done.lsn < IDLE_SAVE_BYTES:
                self._keeper.save(done, done, now - ago)

    def _is_worth_saving(self) -> bool:
        """Say whether the idle position is far enough ahead, or a server asks for it.

        We report unasked, so a server that asks is one that shuts down and waits until all it sent is confirmed.
        """
        return self._is_asked or self._intake.position.lsn - self._progress.done.lsn >= IDLE_SAVE_BYTES

    def _finish(self, position: Position) -> None:
        """Tell the server, now that what it covers is committed."""
        self._progress.finish(position)
        self._saved_at = self._clock()
        self._is_asked = False
        with self._connection.lock:
            self._feedback.confirm(position.lsn)

    def _wait(self) -> None:
        """Wait for data, a signal, or the next thing to do."""
        self._feedback.refuse_silence()
        seconds = self._feedback.seconds_left()
        if self._is_worth_saving():
            seconds = min(seconds, IDLE_SAVE_SECONDS)
        self._observer.waiting()
        self._waiter.wait(seconds)
        self._feedback.send_if_due()

    def _is_finished(self) -> bool:
        if self._stop.requested:
            return True
        tally = self._tally
        if tally.max_changes is not None and tally.delivered >= tally.max_changes:
            return True
        return tally.target is not None and not self._batch.events and self._intake.position.lsn >= tally.target

    def _connection_logs_queries(self) -> bool:
        return any(connection.queries_logged for connection in connections.all(initialized_only=True))

"""Keep consuming: a session after the other, over outages, failovers and rivals.

Kinds of error, and what is done (anything else is raised, for waiting can't mend it):

    SlotInUse                                   stand by until the slot is free, unless that is not wanted
    ConnectionLost, the ORM's Operational- and  wait, longer each time, and start again from the checkpoint; said once
    InterfaceError, CheckpointMoved             an outage, and once more when it is over

Before the first session has started, or has had to stand by, nothing is tried again: a server that can't be reached
then is more likely a mistake.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final

from django.db import InterfaceError, OperationalError, connections, transaction

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import waiting
from django_walsignals.delivery.backoff import Backoff
from django_walsignals.delivery.careful import CarefulDelivery
from django_walsignals.delivery.consumer import Consumer, Tally
from django_walsignals.delivery.last_error import LastError
from django_walsignals.delivery.observer import NOBODY, Observer
from django_walsignals.delivery.preparing import SetUp
from django_walsignals.delivery.routing import PUBLIC, Signals
from django_walsignals.delivery.session import (
    Publisher,
    Session,
    durable_session,
    slot_is_free,
    temporary_session,
)
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.exceptions import CheckpointMoved, ConnectionLost, SlotInUse
from django_walsignals.metadata import OWN_PREFIX
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.catalogue import read_flushed_lsn

logger = logging.getLogger(__name__)

#: Between two attempts to connect, in seconds: soon at first, since most outages are a restart.
RECONNECT: Final = Backoff(first=0.2, cap=30.0)

#: Between two attempts of a receiver, in seconds: with five attempts a change is given up after one to two seconds.
RETRY: Final = Backoff(first=0.1, cap=10.0)

#: How often a standby looks whether the slot is free, in seconds: it takes over within a second.
STANDBY_INTERVAL: Final = 0.3

#: A session that has lasted so long, in seconds, was no part of the outage before it.
SETTLED_AFTER: Final = 10.0

NOW: Final = "now"

_OUTAGES: Final = (ConnectionLost, CheckpointMoved, OperationalError, InterfaceError)


@dataclass(frozen=True, slots=True)
class Orders:
    """How to consume, and when to end by itself: at a position (or what is committed `NOW`), or after some changes.

    Without ``set_up`` the consumer is temporary: its slot ends with it, and nothing is known of what it delivered.
    ``publisher`` then keeps a publication for as long as the slot; without one there is a publication.
    """

    until: LSN | str | None = None
    max_changes: int | None = None
    set_up: SetUp | None = None
    publisher: Publisher | None = None
    accept_gap: bool = False
    stand_by: bool = True


class Supervisor:
    """Consume one stream until stopped or done."""

    def __init__(
        self,
        config: StreamConfig,
        stop: StopRequest,
        orders: Orders,
        *,
        report: Callable[[str], None] = logger.info,
        reconnect: Backoff = RECONNECT,
        retry: Backoff = RETRY,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = NOBODY,
        signals: Signals = PUBLIC,
    ) -> None:
        """``report`` is called with a line when the stream starts, and when it stands by."""
        self._config = config
        self._stop = stop
        self._orders = orders
        self._report = report
        self._reconnect = reconnect
        self._clock = clock
        self._observer = observer
        self._signals = signals
        self._aliases = {config.database, config.checkpoint_database}
        self._delivery = CarefulDelivery(config, retry, self._pause_at_work, observer=observer)
        self._last_error = LastError(config.alias, config.checkpoint_database)
        self._tally = Tally(max_changes=orders.max_changes)
        self._failures = 0
        self._is_standby = False
        self._has_started = False
        self._session_at: float | None = None
        self._has_stood_by = False
        self._delivered_before = 0

    @property
    def delivered(self) -> int:
        """Changes, truncates and messages delivered so far."""
        return self._tally.delivered

    @property
    def dead_letters(self) -> int:
        """Dead letters written so far."""
        return self._delivery.dead_letters

    def run(self) -> None:
        """Consume; return when stopped or done, raise an error that waiting can't mend."""
        try:
            self._run()
        except SlotInUse:  # nothing is wrong with the stream
            raise
        except Exception as exc:
            self._note(exc)
            self._last_error.write()
            raise

    def _run(self) -> None:
        while not self._stop.requested:
            try:
                self._run_session()
            except SlotInUse as exc:
                if not (self._orders.stand_by or self._has_started):
                    raise
                self._stand_by(exc)
            except _OUTAGES as exc:
                if self._orders.set_up is None or not (self._has_started or self._has_stood_by):
                    raise
                self._wait_out(exc)
            else:
                return

    def _note(self, exc: Exception) -> None:
        """Keep an error where ``walstatus`` shows it, unless the stream is a temporary one, or somebody else's."""
        if self._orders.set_up is not None and not self._is_standby:
            self._last_error.note(exc)

    def _run_session(self) -> None:
        waiting.renew(self._aliases)
        self._last_error.write()
        opened = ExitStack()
        try:
            with self._stop.at_once():
                session = opened.enter_context(self._open())
        except KeyboardInterrupt:
            if self._stop.requested:
                return
            raise
        with opened:
            if not self._has_started:
                self._tally.target = self._resolve_target()
            if self._failures:
                logger.warning("Back after %d attempts", self._failures)
            self._is_standby = False
            self._has_started = True
            self._session_at, self._delivered_before = self._clock(), self._tally.delivered
            self._observer.session_started()
            self._report(f"streaming {self._config.alias} from {session.position}")
            self._consumer(session).run()

    def _consumer(self, session: Session) -> Consumer:
        delivery, stop, tally = self._delivery, self._stop, self._tally
        return Consumer(
            self._config,
            session,
            delivery,
            stop,
            tally,
            clock=self._clock,
            observer=self._observer,
            signals=self._signals,
        )

    def _open(self) -> AbstractContextManager[Session]:
        set_up, is_first = self._orders.set_up, not self._has_started
        if set_up is None:
            return temporary_session(self._config, self._orders.publisher)
        return durable_session(self._config, set_up, is_first=is_first, accept_gap=self._orders.accept_gap and is_first)

    def _stand_by(self, reason: SlotInUse) -> None:
        """Wait until nobody has the slot any more; said once, however often another one is quicker."""
        if not self._is_standby:
            self._report(f"standing by: {reason}")
        self._is_standby = self._has_stood_by = True
        while self._pause(STANDBY_INTERVAL):
            try:
                waiting.renew(self._aliases)
                if slot_is_free(self._config):
                    return
                self._observer.standing_by()
            except _OUTAGES as exc:
                self._wait_out(exc)

    def _wait_out(self, exc: Exception) -> None:
        """Wait for the next attempt; log the first of an outage."""
        if self._is_settled():
            self._failures = 0
        self._session_at = None  # judged once: what fails from here on belongs to the same outage
        self._failures += 1
        self._observer.outage()
        self._note(exc)
        text = " ".join(str(exc).split())
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        logger.log(level, "Outage: %s. Trying again until it is over (attempt %d)", text, self._failures)
        self._pause(self._reconnect.wait_after(self._failures))

    def _is_settled(self) -> bool:
        """Say whether the last session got anywhere, so that its end is a new outage."""
        if self._session_at is None:
            return False
        return self._tally.delivered > self._delivered_before or self._clock() - self._session_at >= SETTLED_AFTER

    def _pause(self, seconds: float) -> bool:
        return waiting.pause(seconds, self._stop, ())

    def _pause_at_work(self, seconds: float) -> bool:
        """Wait between two attempts of a receiver, and notice when a connection dies meanwhile."""
        self._observer.pausing(seconds)
        return waiting.pause(seconds, self._stop, self._aliases)

    def _resolve_target(self) -> LSN | None:
        """Find where to end. For "now" that is the end of a transaction written for it, which the stream brings."""
        until = self._orders.until
        if until is None or isinstance(until, LSN):
            return until
        alias = self._config.database
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = on")
            cursor.execute("SELECT pg_logical_emit_message(true, %s, 'until now')", [OWN_PREFIX])
        with connections[alias].cursor() as cursor:
            return read_flushed_lsn(cursor)

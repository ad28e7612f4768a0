"""What one consumer has done since it started, counted by itself.

Plain Python: prometheus_client's locks cost more than many a receiver.

The consumer's thread alone writes; a scrape's thread reads copies, each made by one call that Python doesn't interrupt.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from django_walsignals.changes import WalChange, WalTruncate
from django_walsignals.delivery.observer import Observer, Send

#: The histograms' upper bounds, in seconds: from a receiver that looks at a field to one that waits for somebody else's
#: server, two a decade.
BOUNDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Phase(StrEnum):
    """What a consumer is at."""

    STARTING = "starting"
    STREAMING = "streaming"
    STANDING_BY = "standing_by"
    RECONNECTING = "reconnecting"


class Histogram:
    """How often something took how long: a count for each of `BOUNDS`, and one for what took longer."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Recorder(Observer):
    """Counts what a consumer tells; everything public is for reading."""

    def __init__(
        self, *, clock: Callable[[], float] = time.perf_counter, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self.phase = Phase.STARTING
        #: By model and operation; no model where it is a message.
        self.changes: Counter[tuple[str, str]] = Counter()
        self.batches = Histogram()
        self.rolled_back = 0
        self.receivers: dict[str, Histogram] = {}
        self.failures: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self.sessions = 0
        self.outages = 0
        #: When the last batch was committed, in seconds since the epoch.
        self.delivered_at: float | None = None
        self._progress_at: float | None = None

    def seconds_without_progress(self) -> float:
        """Say how long the consumer has been at one thing: 0 unless it streams and has something to do.

        Whoever waits for the server, another consumer or the end of an outage can't hurry it by being restarted.
        """
        at = self._progress_at
        return max(0.0, self._clock() - at) if at is not None and self.phase is Phase.STREAMING else 0.0

    def session_started(self) -> None:
        """Take note that the stream has started."""
        self.sessions += 1
        self._progress_at = None
        self.phase = Phase.STREAMING

    def standing_by(self) -> None:
        """Take note that another consumer has the slot; a standby stays one until it has it itself."""
        self.phase = Phase.STANDING_BY

    def outage(self) -> None:
        """Count a session that ended, or could not be opened."""
        self.outages += 1
        self.phase = Phase.RECONNECTING

    def working(self) -> None:
        """Take note of progress."""
        self._progress_at = self._clock()

    def waiting(self) -> None:
        """Take note that nothing is to be done."""
        self._progress_at = None

    def pausing(self, seconds: float) -> None:
        """Take note that progress is to be expected after the pause only."""
        self._progress_at = self._clock() + seconds

    def batch_delivered(self, events: Sequence[tuple[Any, Any]], seconds: float) -> None:
        """Count a batch and its changes."""
        kinds = [(sent.model, sent.operation) if isinstance(sent, WalChange) else _kind_of(sent) for sent, _ in events]
        for (model, operation), number in Counter(kinds).items():
            self.changes["" if model is None else model._meta.label, str(operation)] += number
        self.batches.observe(seconds)
        self.delivered_at = self._wall_clock()

    def batch_rolled_back(self) -> None:
        """Count a batch that is taken again."""
        self.rolled_back += 1

    def receiver_failed(self, receiver: str) -> None:
        """Count a call that raised."""
        self.failures[receiver] += 1

    def dead_letters_written(self, receivers: Sequence[str]) -> None:
        """Count dead letters."""
        self.dead_letters.update(receivers)

    def watched(self, send: Send, receiver: str) -> Send:
        """Measure the calls of a receiver."""
        for counter in (self.failures, self.dead_letters):  # a rate begins at a number, and 0 is one
            counter[receiver] += 0
        clock, observe = self._clock, self.receivers.setdefault(receiver, Histogram()).observe

        def measured(sent: Any) -> Any:
            started = clock()
            try:
                return send(sent)
            finally:
                self._progress_at = ended = clock()
                observe(ended - started)

        return measured


def copied(counts: Mapping[Any, Any]) -> dict[Any, Any]:
    """Copy what another thread may be adding to."""
    return dict(counts)


def _kind_of(sent: Any) -> tuple[Any, str]:
    return (sent.model, "truncate") if isinstance(sent, WalTruncate) else (None, "message")

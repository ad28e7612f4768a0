"""What was received: how many changes of each kind, and how long each took."""

import statistics
import threading
from collections import Counter
from typing import NamedTuple

from example_project.demo.feed import SeenChange

Counts = Counter[tuple[str, str]]
"""Changes by model label and operation."""


class Latency(NamedTuple):
    """Seconds from commit to receiver."""

    p50: float
    p99: float
    max: float


class Ledger:
    """Everything received so far; a change that comes again, as the feed's promise allows, counts once."""

    def __init__(self) -> None:
        self.repeats = 0
        self._counts: Counts = Counter()
        self._ids: set[str] = set()
        self._latencies: list[float] = []
        self._news = threading.Condition()

    def add(self, change: SeenChange) -> None:
        """Book a change."""
        with self._news:
            if change.id in self._ids:
                self.repeats += 1
                return
            self._ids.add(change.id)
            self._counts[change.model, change.operation] += 1
            self._latencies.append(change.latency)
            self._news.notify_all()

    @property
    def received(self) -> Counts:
        """The counts so far."""
        with self._news:
            return self._counts.copy()

    def wait_for(self, written: Counts, timeout: float) -> bool:
        """Wait until as much has been received as was written."""
        with self._news:
            return self._news.wait_for(lambda: self._counts.total() >= written.total(), timeout)

    def latency(self) -> Latency | None:
        """Sum up how long changes took; None if there were too few to say."""
        if len(self._latencies) < 2:
            return None
        percentiles = statistics.quantiles(self._latencies, n=100, method="inclusive")
        return Latency(percentiles[49], percentiles[98], max(self._latencies))

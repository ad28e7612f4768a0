"""The metric families of one stream, made when somebody asks.

Names by https://prometheus.io/docs/practices/naming/: the base unit last, ``_total`` behind what only grows. Labels
have as many values as there are models, operations and receivers, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from django_walsignals import __version__
from django_walsignals.metrics.recorder import BOUNDS, Histogram, Phase, Recorder, copied
from django_walsignals.status import State, StreamStatus

#: A metric's value for each choice of its labels, in the order in which they are declared; the stream's comes by itself.
Values = Mapping[Any, float]

#: What the server knows of a stream: an attribute of its status, and what it is.
_STATUS: Final = {
    "lag_bytes": "WAL that the server has written and the checkpoint has not passed.",
    "lag_seconds": "How long ago the oldest change that has not taken effect may have been committed.",
    "retained_bytes": "WAL that the server keeps for the slot.",
    "safe_wal_bytes": "WAL that may still be written before the slot is lost; absent where there is no limit.",
    "dead_letters": "Dead letters that there are.",
}

#: Where the metric is not called what the attribute is.
_RENAMED: Final = {"retained_bytes": "retained_wal_bytes", "dead_letters": "dead_letters_pending"}

_STATES: Final = [state for state in State if state is not State.UNREACHABLE]

_UP: Final = "Whether the databases told the stream's status to this scrape."


class StreamCollector(Collector):
    """Yields what the recorder counted and, where there is someone to ask, what the server says."""

    def __init__(self, stream: str, recorder: Recorder, read_status: Callable[[], StreamStatus | None] | None) -> None:
        """``read_status`` gives None where the databases don't answer; it must not take long."""
        self._stream = stream
        self._recorder = recorder
        self._read_status = read_status

    def describe(self) -> Iterable[Metric]:
        """Name the families, for the registry to see that nobody else has them; asks no server."""
        yield from self._counted()
        yield from self._of_status(None)

    def collect(self) -> Iterable[Metric]:
        """Give the families with their values."""
        yield from self._counted()
        if self._read_status is not None:
            yield from self._of_status(self._read_status())

    def _counted(self) -> Iterator[Metric]:
        recorder = self._recorder
        yield self._gauge("build_info", "The version that runs.", {(__version__,): 1}, "version")
        phases = {(phase.value,): int(phase is recorder.phase) for phase in Phase}
        yield self._gauge("consumer_state", "1 for what the consumer is at, 0 for the rest.", phases, "state")
        what = "Changes that receivers wanted and that took effect; truncates and messages too."
        yield self._counter("changes", what, copied(recorder.changes), "model", "operation")
        yield self._counter("batches", "Batches committed.", {(): sum(recorder.batches.counts)})
        yield self._histogram(
            "batch_seconds", "Time from a batch's first receiver to its commit.", {(): recorder.batches}
        )
        what = "Batches that failed and were taken again one change at a time."
        yield self._counter("batches_rolled_back", what, {(): recorder.rolled_back})
        measured = {(path,): histogram for path, histogram in copied(recorder.receivers).items()}
        yield self._histogram("receiver_seconds", "Time that a receiver's calls took.", measured, "receiver")
        yield from self._failed()
        yield from self._connected()

    def _failed(self) -> Iterator[Metric]:
        recorder = self._recorder
        failures, letters = _by_one(copied(recorder.failures)), _by_one(copied(recorder.dead_letters))
        yield self._counter(
            "receiver_failures", "Calls of a receiver that raised, every attempt.", failures, "receiver"
        )
        yield self._counter("dead_letters", "Dead letters that this process wrote.", letters, "receiver")

    def _connected(self) -> Iterator[Metric]:
        recorder = self._recorder
        reconnects = {(): max(0, recorder.sessions - 1)}
        yield self._counter("reconnects", "Times that the stream started again after an outage.", reconnects)
        what = "Sessions that ended in an outage, and attempts at one that failed."
        yield self._counter("connection_failures", what, {(): recorder.outages})
        at = {} if recorder.delivered_at is None else {(): recorder.delivered_at}
        yield self._gauge("last_delivery_timestamp_seconds", "When the last batch was committed.", at)
        what = "How long the consumer has been at one thing; 0 while it waits."
        yield self._gauge("without_progress_seconds", what, {(): recorder.seconds_without_progress()})

    def _of_status(self, status: StreamStatus | None) -> Iterator[Metric]:
        yield self._gauge("up", _UP, {(): int(status is not None)})
        states = {} if status is None else {(state.value,): int(state is status.state) for state in _STATES}
        yield self._gauge(
            "stream_state", "1 for the stream's state as walstatus has it, 0 for the rest.", states, "state"
        )
        for attribute, what in _STATUS.items():
            value = getattr(status, attribute, None)
            name = _RENAMED.get(attribute, attribute)
            yield self._gauge(name, what, {} if value is None else {(): float(value)})

    def _gauge(self, name: str, what: str, values: Values, *labels: str) -> Metric:
        return self._filled(GaugeMetricFamily(f"walsignals_{name}", what, labels=("stream", *labels)), values)

    def _counter(self, name: str, what: str, values: Values, *labels: str) -> Metric:
        return self._filled(CounterMetricFamily(f"walsignals_{name}", what, labels=("stream", *labels)), values)

    def _filled(self, family: Any, values: Values) -> Metric:
        for key, value in values.items():
            family.add_metric((self._stream, *key), value)
        filled: Metric = family
        return filled

    def _histogram(self, name: str, what: str, values: Mapping[Any, Histogram], *labels: str) -> Metric:
        family = HistogramMetricFamily(f"walsignals_{name}", what, labels=("stream", *labels))
        for key, histogram in values.items():
            bounds = [*map(str, BOUNDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(list(histogram.counts)), strict=True))
            family.add_metric((self._stream, *key), buckets, histogram.sum)
        return family


def _by_one(counts: Mapping[str, int]) -> Values:
    return {(name,): count for name, count in counts.items()}

"""A Prometheus of our own: asks a consumer in another process, and reads the answer as Prometheus would."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from tests.processes import ManagedProcess
from tests.streams import Stream

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
RECEIVERS = "tests.metrics.watched"


class Samples:
    """One scrape's samples."""

    def __init__(self, families: list[Any]) -> None:
        self.families = families
        self._samples = [sample for family in families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self._samples}

    def values(self, name: str, **labels: str) -> list[float]:
        """List the values of a metric that has these labels."""
        return [
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, **labels: str) -> float:
        """Give the only value."""
        (found,) = self.values(name, **labels)
        return found

    def state(self) -> str:
        """Say what the consumer is at."""
        (found,) = [
            sample.labels["state"]
            for sample in self._samples
            if sample.name == "walsignals_consumer_state" and sample.value
        ]
        return found


class Target:
    """A consumer that can be scraped."""

    def __init__(self, process: ManagedProcess) -> None:
        self.process = process
        self.base = process.wait_for_stdout(r"metrics at (http://\S+)/metrics$")[1]

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    def get(self, path: str, accept: str = "text/plain", method: str = "GET") -> tuple[int, str]:
        """Ask for a page; give status and text."""
        request = urllib.request.Request(self.base + path, headers={"Accept": accept}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def scrape(self, accept: str = "text/plain") -> Samples:
        """Scrape it."""
        status, text = self.get("/metrics", accept)
        assert status == 200, text
        parse = openmetrics if accept == OPENMETRICS else parser
        return Samples(list(parse.text_string_to_metric_families(text)))

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """Ask a probe; its answer is one line."""
        status, text = self.get(path)
        assert text.count("\n") == 1
        return status, json.loads(text)


@contextmanager
def consumer(stream: Stream, *arguments: str, **env: str) -> Iterator[Target]:
    """Run a consumer that serves metrics on a port of its own."""
    with stream.process("--metrics-port", "0", *arguments, receivers=RECEIVERS, **env) as process:
        yield Target(process)

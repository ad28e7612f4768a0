"""The metrics' names: by Prometheus's rules, and the same in the dashboard and the alerts."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from django_walsignals.metrics.collector import StreamCollector
from django_walsignals.metrics.recorder import Recorder
from tests.processes import ROOT

DASHBOARD = json.loads((ROOT / "docs/grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((ROOT / "docs/alerts.yml").read_text())

#: Of what any process tells of itself, what the dashboard shows.
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}

#: What the labels of a metric's own may be; each has a bounded number of values.
LABELS = {"stream", "model", "operation", "receiver", "state", "version", "le"}

#: What stands for a unit that is no base unit.
NO_BASE_UNITS = re.compile(r"_(ms|milliseconds|minutes|hours|kb|mb|kilobytes|percent)(_|$)")


def families() -> list[Metric]:
    return list(StreamCollector("default", Recorder(), None).describe())


def sample_names(family: Metric) -> set[str]:
    """Name the time series of a family, as queries do."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
    return {family.name + ending for ending in endings}


KNOWN = {name for family in families() for name in sample_names(family)}


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
class TestNames:
    def test_form(self, family: Metric) -> None:
        assert re.fullmatch(r"walsignals(_[a-z]+)+", family.name)
        assert not NO_BASE_UNITS.search(family.name)

    def test_total_is_what_only_grows(self, family: Metric) -> None:
        assert all(name.endswith("_total") for name in sample_names(family)) is (family.type == "counter")

    def test_unit_comes_last(self, family: Metric) -> None:
        for unit in ("seconds", "bytes"):
            if f"_{unit}" in family.name:
                assert family.name.endswith(f"_{unit}")

    def test_histograms_are_in_seconds(self, family: Metric) -> None:
        assert family.type != "histogram" or family.name.endswith("_seconds")

    def test_is_explained_in_a_sentence(self, family: Metric) -> None:
        assert re.fullmatch(r"[A-Z1].{15,}\.", family.documentation)


def test_no_label_but_those_with_few_values() -> None:
    recorder = Recorder()
    recorder.changes["shop.Order", "insert"] += 1
    recorder.watched(print, "shop.receiver")
    collected = [*StreamCollector("default", recorder, None).collect()]
    labels = {label for family in collected for sample in family.samples for label in sample.labels}
    assert {"stream", "model", "receiver"} <= labels <= LABELS
    assert all("stream" in sample.labels for family in collected for sample in family.samples)


def test_no_two_families_share_a_name() -> None:
    registry = CollectorRegistry()
    registry.register(StreamCollector("default", Recorder(), None))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(StreamCollector("other", Recorder(), None))
    assert generate_latest(registry).count(b"# TYPE walsignals_up ") == 0  # nobody to ask
    assert generate_openmetrics(registry).endswith(b"# EOF\n")


def metrics_in(expression: str) -> set[str]:
    """Name the metrics of a query."""
    without_texts = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:walsignals|process)_[a-z_]+", without_texts))


def panels(found: list[dict[str, Any]] = DASHBOARD["panels"]) -> Iterator[dict[str, Any]]:
    for panel in found:
        yield panel
        yield from panels(panel.get("panels", []))


QUERIES = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


class TestDashboard:
    @pytest.mark.parametrize(("title", "expression"), QUERIES)
    def test_a_panel_asks_for_what_there_is(self, title: str, expression: str) -> None:
        assert metrics_in(expression)
        assert metrics_in(expression) <= KNOWN | OF_PROCESSES

    def test_every_metric_is_shown_somewhere(self) -> None:
        shown = {name for _, expression in QUERIES for name in metrics_in(expression)}
        hidden = {family.name for family in families() if not any(name in shown for name in sample_names(family))}
        assert hidden == {"walsignals_last_delivery_timestamp_seconds", "walsignals_stream_state"}

    def test_whoever_imports_it_chooses_data_source_and_stream(self) -> None:
        variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
        assert variables["datasource"]["type"] == "datasource"
        assert metrics_in(variables["stream"]["definition"]) <= KNOWN
        for panel in panels():
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == "${datasource}"
                for target in panel["targets"]:
                    assert "$stream" in target["expr"]

    def test_panels_have_a_place_and_an_id_each(self) -> None:
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
        assert len(set(places)) == len(places)
        assert len({panel["id"] for panel in panels()}) == len(places)
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


class TestAlerts:
    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
    def test_an_alert_asks_for_what_there_is(self, rule: dict[str, Any]) -> None:
        assert metrics_in(rule["expr"])
        assert metrics_in(rule["expr"]) <= KNOWN
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")

    def test_what_must_not_be_missed_is_there(self) -> None:
        asked = {name for rule in RULES for name in metrics_in(rule["expr"])}
        assert asked >= {
            "walsignals_lag_seconds",
            "walsignals_retained_wal_bytes",
            "walsignals_safe_wal_bytes",
            "walsignals_dead_letters_pending",
            "walsignals_consumer_state",
            "walsignals_build_info",
        }

"""The reference pages name what there is, all of it, and nothing else."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest
from django.core.management import get_commands, load_command_class

from django_walsignals import changes as changes_module
from django_walsignals import conf, exceptions, signals
from django_walsignals.checks.messages import CATALOGUE, PREFIX
from django_walsignals.metrics.collector import StreamCollector
from django_walsignals.metrics.recorder import Phase, Recorder
from django_walsignals.status import State, StreamStatus
from tests.docs.pages import DOCS

OURS = sorted(name for name, app in get_commands().items() if app == "django_walsignals")


def section(page: str, heading: str) -> str:
    """Get what is below a heading, up to the next one of its rank."""
    rank = re.match("#+", heading)
    assert rank
    found = re.search(
        rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(rank[0])}}} |\Z)", text_of(page), re.MULTILINE | re.DOTALL
    )
    assert found, f"{page} has no heading {heading}"
    return found[1]


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


def own_options(command: str) -> Iterator[argparse.Action]:
    """List what a command's parser knows beyond what every command of Django knows."""
    instance = load_command_class("django_walsignals", command)
    parser = instance.create_parser("manage.py", command)
    common = {*instance.base_stealth_options, *DJANGOS}
    return (action for action in parser._actions if action.dest not in common)


DJANGOS = (
    "help",
    "version",
    "verbosity",
    "settings",
    "pythonpath",
    "traceback",
    "no_color",
    "force_color",
    "skip_checks",
)


def test_every_setting_is_described() -> None:
    described = re.findall(r"^### `(\w+)`$", text_of("settings.md"), re.MULTILINE)
    assert sorted(described) == sorted(conf._DEFAULTS)


def test_every_command_is_described() -> None:
    described = re.findall(r"^## (wal\w+)$", text_of("commands.md"), re.MULTILINE)
    assert sorted(described) == OURS


@pytest.mark.parametrize("command", OURS)
def test_every_option_of_a_command_is_described(command: str) -> None:
    rows = re.findall(r"^\| (.+?) \|", section("commands.md", f"## {command}"), re.MULTILINE)[2:]
    described = {word for row in rows for word in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*|^`[a-z]+)", row)}
    there_are = {
        name
        for option in own_options(command)
        for name in (option.option_strings or [f"`{option.metavar or option.dest}", f"`{option.dest}"])
    }
    long = {name for name in there_are if name.startswith("--")}
    assert long <= described
    assert described <= there_are


def test_every_exit_code_is_described() -> None:
    described = {
        int(code) for code in re.findall(r"^\| (\d) \|", section("commands.md", "## Exit codes"), re.MULTILINE)
    }
    raised = {error.exit_code for error in _every(exceptions.WalSignalsError)}
    assert described == {0, 2} | raised


def test_every_check_is_described() -> None:
    described = re.findall(rf"^\| `{re.escape(PREFIX)}(\w+)` \|", text_of("checks.md"), re.MULTILINE)
    assert sorted(described) == sorted(CATALOGUE)


def test_every_metric_is_described_with_its_labels() -> None:
    rows = re.findall(
        r"^\| `(walsignals_\w+)` \|([^|]*)\|", section("monitoring.md", "## Metrics for Prometheus"), re.MULTILINE
    )
    described = {name: sorted(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert described == {name: sorted(labels) for name, labels in _metrics()}


def test_every_state_is_described() -> None:
    described = re.findall(
        r"^\| (`[a-z ]+`(?:, `[a-z ]+`)*) \|", section("monitoring.md", "## walstatus"), re.MULTILINE
    )
    assert sorted(re.findall(r"`([a-z ]+)`", " ".join(described))) == sorted(state.words for state in State)
    assert all(f"`{phase}`" in text_of("monitoring.md") for phase in Phase)


def test_every_key_of_walstatus_json_is_described() -> None:
    keys = StreamStatus(stream="a", state=State.STOPPED, database="b", slot="c").as_json()
    assert [key for key in keys if f"`{key}`" not in section("monitoring.md", "## walstatus")] == []


def test_every_signal_is_described() -> None:
    there_are = {name for name, value in vars(signals).items() if isinstance(value, signals.WalSignal)}
    described = re.findall(r"^\| `(\w+)` \|", section("receivers.md", "## Other signals"), re.MULTILINE)
    assert there_are == {"post_wal_change", *described}


def test_every_attribute_of_a_change_is_described() -> None:
    rows = re.findall(r"^\| (`.+?) \|", text_of("changes.md").partition("## ")[0], re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    public = {name for name in vars(changes_module.WalChange) if not name.startswith("_")}
    assert described == public - {"binding", "rows"}, "those two are for this library's own use"


def test_the_promises_are_those_of_the_readme() -> None:
    promises = section("delivery.md", "## The promises").strip()
    assert promises.startswith("1. **No change is lost.**")
    assert promises in (DOCS.parent / "README.md").read_text()


def _metrics() -> Iterator[tuple[str, list[str]]]:
    """Walk the metrics as they are called in a scrape, with the labels that are not every metric's."""
    for family in StreamCollector("default", Recorder(), lambda: None).describe():
        yield (
            family.name + ("_total" if family.type == "counter" else ""),
            [label for label in family._labelnames if label != "stream"],
        )


def _every(kind: type[exceptions.WalSignalsError]) -> Iterator[type[exceptions.WalSignalsError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _every(below)

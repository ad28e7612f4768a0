"""``manage.py walstatus``: how each stream is doing."""

from __future__ import annotations

import argparse
import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.live import Live

from django_walsignals.conf import stream_aliases
from django_walsignals.exceptions import WalSignalsError
from django_walsignals.management.base import WalCommand
from django_walsignals.status import StreamStatus, read_status
from django_walsignals.status.limits import Limit, complaints
from django_walsignals.status.rendering import render

#: Seconds between two looks of ``--watch``.
WATCH_SECONDS: Final = 2.0

#: Columns where the output is no terminal: whoever searches in it wants a fact in a line.
_PIPE_WIDTH: Final = 1000


class Command(WalCommand):
    """Show the state of the streams, or be a probe."""

    help = (
        "Show for each stream: its state, consumer, checkpoint, lag in bytes and in seconds, the WAL that its slot "
        "keeps and how much more it may, dead letters, and the last error. Exit codes: 0 shown, 1 an error or a stream "
        "over --max-lag, 2 usage."
    )
    #: Whoever is on call asks when something is wrong; a check that fails must not be all there is to see.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "streams", nargs="*", metavar="stream", help="aliases in WALSIGNALS; all of them by default"
        )
        parser.add_argument("--json", action="store_true", help="a list of objects; with --watch a list a line")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=_seconds,
            const=WATCH_SECONDS,
            metavar="SECONDS",
            help=f"look again every so many seconds ({WATCH_SECONDS:g}), until Ctrl-C",
        )
        parser.add_argument(
            "--max-lag",
            action="append",
            type=_limit,
            metavar="10MB|30s",
            help="exit 1 where a stream is further behind, or can't be read; may be given once in bytes and once in time",
        )

    def handle(self, *args: Any, streams: Sequence[str], **options: Any) -> None:
        """Do what the options say."""
        watch, limits = _parsed(options)
        try:
            names = streams or stream_aliases()
            if watch is not None:
                self._watch(names, watch, **options)
                return
            statuses = [read_status(name) for name in names]
            self._show(statuses, **options)
        except WalSignalsError as exc:
            raise CommandError(str(exc), returncode=exc.exit_code) from exc
        except BrokenPipeError:  # the reader has what it wanted
            raise SystemExit(0) from None
        if limits and (over := list(complaints(statuses, limits))):
            raise CommandError("; ".join(over))

    def _show(self, statuses: Sequence[StreamStatus], **options: Any) -> None:
        if options["json"]:
            self.stdout.write(json.dumps([status.as_json() for status in statuses], indent=2))
        else:
            self.stdout.write(self._text(statuses, **options))
        self.stdout.flush()

    def _text(self, statuses: Sequence[StreamStatus], **options: Any) -> str:
        """Lay out as wide as the terminal is, and in its colours where it has and may use them."""
        written = io.StringIO()
        console = self._console(written, **options)
        console.print(render(statuses))
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())

    def _console(self, file: Any, *, no_color: bool, force_color: bool, **_: Any) -> Console:
        is_terminal = self.stdout.isatty()
        in_colour = force_color or (is_terminal and not no_color)
        return Console(
            file=file,
            width=None if is_terminal else _PIPE_WIDTH,
            force_terminal=in_colour,
            no_color=not in_colour,
            highlight=False,
        )

    def _watch(self, names: Sequence[str], seconds: float, **options: Any) -> None:
        looks = _looks(names, seconds)
        try:
            if options["json"]:
                for statuses in looks:
                    self.stdout.write(json.dumps([status.as_json() for status in statuses]))
                    self.stdout.flush()
            elif self.stdout.isatty():
                self._watch_live(looks, **options)
            else:
                for statuses in looks:
                    self._show(statuses, **options)
                    self.stdout.write("")
        except KeyboardInterrupt:
            return

    def _watch_live(self, looks: Iterator[list[StreamStatus]], *, no_color: bool, **_: Any) -> None:
        console = Console(no_color=no_color or None, highlight=False)
        with Live(console=console, auto_refresh=False) as live:
            for statuses in looks:
                live.update(render(statuses), refresh=True)


def _looks(names: Sequence[str], seconds: float) -> Iterator[list[StreamStatus]]:
    """Read again and again."""
    never = threading.Event()
    while True:
        yield [read_status(name) for name in names]
        never.wait(seconds)


def _parsed(options: Mapping[str, Any]) -> tuple[float | None, list[Limit]]:
    """Check the options once more: ``call_command`` hands over what it was given, without parsing it."""
    watch, max_lag = options["watch"], options["max_lag"]
    try:
        seconds = None if watch is None or watch is False else _seconds(watch)
        given = [max_lag] if isinstance(max_lag, str) else max_lag or []
        limits = [limit if isinstance(limit, Limit) else _limit(limit) for limit in given]
    except argparse.ArgumentTypeError as exc:
        raise CommandError(str(exc), returncode=2) from exc
    if seconds is not None and limits:
        raise CommandError("--max-lag is for a probe, which looks once: it does not go with --watch.", returncode=2)
    return seconds, limits


def _seconds(value: Any) -> float:
    """Read the time between two looks."""
    try:
        seconds = WATCH_SECONDS if value is True else float(value)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds") from exc
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive number of seconds")
    return seconds


def _limit(text: str) -> Limit:
    """Read how far behind a stream may be."""
    try:
        return Limit.parse(str(text))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc

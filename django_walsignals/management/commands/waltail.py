"""``manage.py waltail``: show changes as they are committed, and leave nothing behind."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.management.base import WalCommand, command_errors, positive_number
from django_walsignals.provisioning import setup
from django_walsignals.replication.catalogue import Server
from django_walsignals.tail import choosing, watching
from django_walsignals.tail.lines import Lines, make_console
from django_walsignals.tail.objects import Objects
from django_walsignals.tail.output import Output


class Command(WalCommand):
    """Show the changes of models as they are committed, whoever makes them."""

    help = (
        "Show committed row changes as they come, from now on. Needs no set-up and leaves nothing behind: a temporary "
        "replication slot and, where no publication brings these models, a temporary publication. No receiver is "
        "called. Exit codes: 0 stopped or done, 1 error, 2 usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "models",
            nargs="*",
            metavar="model",
            help="such as shop.Order or 'shop.*', in any case; without any, what the stream publishes, else every model",
        )
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--stream", metavar="ALIAS", help="a stream of WALSIGNALS: its database, its EXCLUDE")
        source.add_argument("--database", metavar="ALIAS", help="a database of DATABASES")
        parser.add_argument(
            "--operations", type=_operations, metavar="LIST", help=f"only these: {','.join(watching.OPERATIONS)}"
        )
        parser.add_argument(
            "--fields", type=_names, metavar="LIST", help="only these fields, and of updates those that change one"
        )
        parser.add_argument("--messages", action="store_true", help="logical messages too (pg_logical_emit_message)")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")
        parser.add_argument("-n", "--max-changes", type=positive_number, metavar="N", help="end after N")

    def handle(self, *args: Any, models: Sequence[str], **options: Any) -> None:
        """Show changes until stopped, and map what goes wrong to exit codes."""
        wish = _wish(**options)
        with (
            command_errors("Stopped at once."),
            StopRequest() as stop,
            closing(Output(self.stdout, stop.request)) as output,
        ):
            self._watch(models, wish, stop, output, **options)

    def _watch(
        self,
        labels: Sequence[str],
        wish: watching.Wish,
        stop: StopRequest,
        output: Output,
        *,
        stream: str | None,
        database: str | None,
        **options: Any,
    ) -> None:
        try:
            with stop.at_once():
                config = choosing.base_config(stream, database)
                server = _require(config)
                watched = choosing.choose(config, labels, server, self._say)
        except KeyboardInterrupt:
            return  # nothing was begun
        asked = watching.attnames(watched.models, wish.fields)
        printer: watching.Printer
        if options["json"]:
            printer = Objects(output, config.alias, config.database, asked)
        else:
            colours = {"no_color": options["no_color"], "force_color": options["force_color"]}
            printer = Lines(output, make_console(self.stdout, **colours), self._say, asked)
        signals = watching.private_signals(watched.models, wish, printer)
        watching.watch(watched, server, stop, signals, most=wish.most, report=self._say)

    def _say(self, line: str) -> None:
        """Say what is no change: on stderr, so that a pipe holds changes only."""
        self.stderr.write(f"waltail: {line}", str)  # in no style: it is no error
        self.stderr.flush()


def _require(config: StreamConfig) -> Server:
    """Refuse what can't work, before anything is made."""
    connection = connections[config.database]
    if connection.vendor != "postgresql":
        raise ConfigurationError(f"Database {config.database!r} is {connection.vendor}; only PostgreSQL has a WAL.")
    return setup.require_server(connection)


def _wish(*, operations: Any, fields: Any, messages: bool, max_changes: Any, **options: Any) -> watching.Wish:
    """Read the options once more: ``call_command`` hands over what it was given, without parsing it."""
    try:
        return watching.Wish(
            operations=watching.OPERATIONS if operations is None else _operations(operations),
            fields=() if fields is None else _names(fields),
            messages=messages,
            most=None if max_changes is None else positive_number(str(max_changes)),
        )
    except argparse.ArgumentTypeError as exc:
        raise CommandError(str(exc), returncode=2) from exc


def _names(text: str | Sequence[str]) -> tuple[str, ...]:
    """Read a list of names, with commas between them."""
    given = text.split(",") if isinstance(text, str) else text
    names = tuple(name for name in (part.strip() for part in given) if name)
    if not names:
        raise argparse.ArgumentTypeError("a list is needed, such as: status,total")
    return names


def _operations(text: str | Sequence[str]) -> tuple[str, ...]:
    """Read a list of operations."""
    names = tuple(name.lower() for name in _names(text))
    if unknown := [name for name in names if name not in watching.OPERATIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(watching.OPERATIONS)}")
    return names

"""``manage.py walconsume``: set up what is missing, then stream."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import connections
from django.utils.autoreload import run_with_reloader

from django_walsignals.checks.starting import check_before_start
from django_walsignals.conf import DEFAULT_STREAM, StreamConfig, get_stream
from django_walsignals.delivery.checkpoint import missing_migration
from django_walsignals.delivery.observer import NOBODY
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.delivery.supervisor import NOW, Orders, Supervisor
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.management.base import WalCommand, command_errors, positive_number
from django_walsignals.metrics import DEFAULT_ADDRESS, DEFAULT_HEALTH_TIMEOUT, Endpoint, metrics_server
from django_walsignals.protocol.lsn import LSN
from django_walsignals.provisioning import setup
from django_walsignals.provisioning.temporary import temporary_name, temporary_publication
from django_walsignals.replication.catalogue import Server

#: The highest TCP port there is.
MAX_PORT: Final = 65535

_LEVELS: Final = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.DEBUG}


class Command(WalCommand):
    """Consume a stream of committed changes and call the receivers."""

    help = (
        "Turn committed row changes into signals. Creates the publication, the replica identities and the replication "
        "slot that are missing, then streams until stopped. Exit codes: 0 done, 1 error, 2 usage, 3 slot in use by "
        "another consumer, 4 slot lost or a gap."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("stream", nargs="?", default=DEFAULT_STREAM, help="alias of a stream in WALSIGNALS")
        parser.add_argument("--no-setup", action="store_true", help="create nothing: what is missing is an error")
        parser.add_argument(
            "--until-lsn", type=_position, metavar="now|LSN", help="stop when everything committed before is delivered"
        )
        parser.add_argument("--max-changes", type=positive_number, metavar="N", help="stop after N changes")
        parser.add_argument(
            "--temporary",
            action="store_true",
            help="from now on, on a slot and a publication that go when this ends; no checkpoint",
        )
        parser.add_argument(
            "--accept-gap", action="store_true", help="where changes are missing, go on from what there still is"
        )
        parser.add_argument(
            "--no-wait", action="store_true", help="where another consumer has the slot: exit 3 instead of standing by"
        )
        parser.add_argument("--reload", action="store_true", help="start again when code changes; needs DEBUG")
        _add_metrics_arguments(parser)

    def handle(self, *args: Any, stream: str, reload: bool, verbosity: int, **options: Any) -> None:
        """Run, here or under Django's reloader."""
        _set_up_logging(verbosity)
        options = {**options, **_parsed(options)}
        if not reload:
            self._run(stream, **options)
        elif settings.DEBUG:
            run_with_reloader(self._run_under_reloader, stream, **options)
        else:
            raise CommandError("--reload is for development: it needs DEBUG = True.")

    def _run_under_reloader(self, stream: str, **options: Any) -> None:
        """Say what went wrong and stay: the next change of the code tries again."""
        try:
            self._run(stream, **options)
        except CommandError as exc:
            self.stderr.write(self.style.ERROR(f"CommandError: {exc}"))

    def _run(self, stream: str, **options: Any) -> None:
        with (
            command_errors("Stopped at once; the batch in hand comes again, unless it was just committed."),
            StopRequest() as stop,
        ):
            self._consume(get_stream(stream), stop, **options)

    def _consume(
        self,
        config: StreamConfig,
        stop: StopRequest,
        *,
        no_setup: bool,
        temporary: bool,
        accept_gap: bool,
        no_wait: bool,
        until_lsn: LSN | str | None,
        max_changes: int | None,
        **options: Any,
    ) -> None:
        server = _require(config, temporary=temporary)
        orders = Orders(until_lsn, max_changes, accept_gap=accept_gap, stand_by=not no_wait)
        if temporary:
            config = replace(config, publication=temporary_name())
            publisher = partial(temporary_publication, config, server)
            self._supervise(config, stop, replace(orders, publisher=publisher), **options)
        else:
            if not options["skip_checks"]:
                check_before_start(config)
            set_up = setup.StreamSetUp(config, server, self._report, may_change=not no_setup)
            self._supervise(config, stop, replace(orders, set_up=set_up), **options)

    def _supervise(
        self, config: StreamConfig, stop: StopRequest, orders: Orders, *, endpoint: Endpoint | None, **_: Any
    ) -> None:
        with ExitStack() as stack:
            observer = NOBODY
            if endpoint is not None:
                server = stack.enter_context(metrics_server(config, endpoint, is_temporary=orders.set_up is None))
                self._report(f"metrics at {server.url}")
                observer = server.observer
            supervisor = Supervisor(config, stop, orders, report=self._report, observer=observer)
            supervisor.run()
        self._report(f"stopped: {supervisor.delivered} delivered{_dead_letters(supervisor.dead_letters)}")

    def _report(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _dead_letters(number: int) -> str:
    """Say how many there are, where there are any."""
    noun = "dead letter" if number == 1 else "dead letters"
    return f", {number} {noun}" if number else ""


def _parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options once more: ``call_command`` hands over what it was given, without parsing it."""
    until, most = options["until_lsn"], options["max_changes"]
    try:
        parsed = {
            "until_lsn": until if until is None or isinstance(until, LSN) else _position(str(until)),
            "max_changes": most if most is None else positive_number(str(most)),
            "endpoint": _endpoint(options),
        }
    except argparse.ArgumentTypeError as exc:
        raise CommandError(str(exc), returncode=2) from exc
    if options["temporary"] and (options["accept_gap"] or options["no_setup"]):
        raise CommandError("--temporary goes with neither --accept-gap nor --no-setup.", returncode=2)
    return parsed


def _add_metrics_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="serve Prometheus's metrics at /metrics, and health at /healthz and /readyz; 0 = any free port",
    )
    parser.add_argument(
        "--metrics-address",
        metavar="ADDRESS",
        help=f"the address to serve them on: {DEFAULT_ADDRESS} unless given, in a container 0.0.0.0 or ::",
    )
    parser.add_argument(
        "--metrics-default-registry",
        action="store_true",
        help="serve the metrics in prometheus_client's default registry, too: the application's own",
    )
    parser.add_argument(
        "--health-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long a receiver's call may take until /healthz says that the consumer hangs "
        f"({DEFAULT_HEALTH_TIMEOUT:g} unless given)",
    )


def _endpoint(options: Mapping[str, Any]) -> Endpoint | None:
    """Read where metrics are to be served; None where nobody asked."""
    port, address, seconds = options["metrics_port"], options["metrics_address"], options["health_timeout"]
    is_default = options["metrics_default_registry"]
    if port is None:
        if address is not None or seconds is not None or is_default:
            raise argparse.ArgumentTypeError(
                "--metrics-address, --metrics-default-registry and --health-timeout need --metrics-port."
            )
        return None
    timeout = DEFAULT_HEALTH_TIMEOUT if seconds is None else _seconds(str(seconds))
    return Endpoint(_port(str(port)), address or DEFAULT_ADDRESS, timeout, with_default_registry=is_default)


def _port(text: str) -> int:
    """Read an option's port."""
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 0 to {MAX_PORT}")
    return int(text)


def _seconds(text: str) -> float:
    """Read an option's time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _position(text: str) -> LSN | str:
    """Read an option's position."""
    if text == NOW:
        return NOW
    try:
        return LSN.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{exc}, or 'now'") from exc


def _require(config: StreamConfig, *, temporary: bool) -> Server:
    """Refuse what can't work, before anything is changed."""
    for alias in (config.database, config.checkpoint_database):
        vendor = connections[alias].vendor
        if vendor != "postgresql":
            raise ConfigurationError(
                f"Database {alias!r} is {vendor}. Only PostgreSQL has a WAL to read, and a checkpoint that commits with it."
            )
    server = setup.require_server(connections[config.database])
    if not temporary:
        _require_migrations(config)
    return server


def _require_migrations(config: StreamConfig) -> None:
    if missing := missing_migration(config.checkpoint_database):
        raise ConfigurationError(missing)


def _set_up_logging(verbosity: int) -> None:
    """Log to stderr at the verbosity asked for, unless the project has set up these loggers itself."""
    logger = logging.getLogger("django_walsignals")
    if not logger.hasHandlers():
        logger.setLevel(_LEVELS.get(verbosity, logging.DEBUG))
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)

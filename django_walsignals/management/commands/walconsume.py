"""``manage.py walconsume``: set up what is missing, then stream."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connections
from django.utils.autoreload import run_with_reloader

from django_walsignals.conf import DEFAULT_STREAM, StreamConfig, get_stream
from django_walsignals.delivery.checkpoint import CheckpointStore
from django_walsignals.delivery.session import examine
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.delivery.supervisor import NOW, Orders, Supervisor
from django_walsignals.exceptions import ConfigurationError, WalSignalsError
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.provisioning import setup
from django_walsignals.replication.catalogue import Server

_LEVELS: Final = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.DEBUG}


class Command(BaseCommand):
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
        parser.add_argument("--max-changes", type=_count, metavar="N", help="stop after N changes")
        parser.add_argument(
            "--temporary",
            action="store_true",
            help="leave nothing behind: a slot and a publication that go with this process, from now on, no checkpoint",
        )
        parser.add_argument(
            "--accept-gap", action="store_true", help="where changes are missing, go on from what there still is"
        )
        parser.add_argument(
            "--no-wait", action="store_true", help="where another consumer has the slot: exit 3 instead of standing by"
        )
        parser.add_argument("--reload", action="store_true", help="start again when code changes; needs DEBUG")

    def handle(self, *args: Any, stream: str, reload: bool, verbosity: int, **options: Any) -> None:
        """Run, here or under Django's reloader."""
        _set_up_logging(verbosity)
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
        try:
            with StopRequest() as stop:
                self._consume(get_stream(stream), stop, **options)
        except WalSignalsError as exc:
            raise CommandError(str(exc), returncode=exc.exit_code) from exc
        except OperationalError as exc:
            raise CommandError(f"The database can't be reached: {' '.join(str(exc).split())}") from exc
        except KeyboardInterrupt as exc:
            raise CommandError("Stopped at once; the batch in hand was rolled back and will come again.") from exc

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
        **_: Any,
    ) -> None:
        server = self._require(config, temporary=temporary)
        orders = Orders(until_lsn, max_changes, temporary=temporary, accept_gap=accept_gap, stand_by=not no_wait)
        if temporary:
            config = replace(config, publication=f"{config.publication[:40]}_tmp_{os.getpid()}")
            with setup.temporary_publication(config, server):
                self._supervise(config, stop, orders)
        else:
            tables = self._set_up(config, server, no_setup=no_setup, accept_gap=accept_gap)
            self._supervise(config, stop, replace(orders, wanted_tables=tables))

    def _supervise(self, config: StreamConfig, stop: StopRequest, orders: Orders) -> None:
        supervisor = Supervisor(config, stop, orders, report=self._report)
        supervisor.run()
        dead = f", {supervisor.dead_letters} dead letters" if supervisor.dead_letters else ""
        self._report(f"stopped: {supervisor.delivered} delivered{dead}")

    def _require(self, config: StreamConfig, *, temporary: bool) -> Server:
        connection = connections[config.database]
        if connection.vendor != "postgresql":
            raise ConfigurationError(
                f"Database {config.database!r} is {connection.vendor}; only PostgreSQL has a WAL that can be read."
            )
        server = setup.require_server(connection)
        if not temporary:
            _require_migrations(config)
        return server

    def _set_up(self, config: StreamConfig, server: Server, *, no_setup: bool, accept_gap: bool) -> list[str]:
        """Look for a gap before anything is changed; then create what is missing. Return the tables' names."""
        plan = setup.plan_setup(config, server)
        tables = [str(table) for table in plan.tables]
        if not accept_gap:
            examine(config, tables)
        if not no_setup:
            setup.apply_plan(config, plan, self._report)
            if accept_gap:
                setup.drop_lost_slot(config, self._report)
            if accept_gap or CheckpointStore(config.alias, config.checkpoint_database).load() is None:
                setup.ensure_slot(config, server, self._report)
        return tables

    def _report(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _position(text: str) -> LSN | str:
    """Read an option's position."""
    if text == NOW:
        return NOW
    try:
        return LSN.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{exc}, or 'now'") from exc


def _count(text: str) -> int:
    """Read an option's positive number."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _require_migrations(config: StreamConfig) -> None:
    table = Checkpoint._meta.db_table
    if table not in connections[config.checkpoint_database].introspection.table_names():
        raise ConfigurationError(f"There is no table {table} yet. Run: manage.py migrate")


def _set_up_logging(verbosity: int) -> None:
    """Log to stderr at the verbosity asked for, unless the project has set up these loggers itself."""
    logger = logging.getLogger("django_walsignals")
    logger.setLevel(_LEVELS.get(verbosity, logging.DEBUG))
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)

"""``manage.py walsetup``: what a stream needs on the server: set it up, compare, write it down for a DBA, or drop it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.db import connections
from rich.console import Console
from rich.table import Table
from rich.text import Text

from django_walsignals.conf import DEFAULT_STREAM, StreamConfig, get_stream
from django_walsignals.delivery.checkpoint import missing_migration
from django_walsignals.delivery.gaps import Gap, accept_hint, published_tables
from django_walsignals.delivery.preparing import look_for_gap, read_server_side, set_up_stream
from django_walsignals.exceptions import ConfigurationError, PrivilegeError, SlotInUse
from django_walsignals.management.base import WalCommand, command_errors
from django_walsignals.models import Checkpoint, DeadLetter
from django_walsignals.provisioning import removal, script
from django_walsignals.provisioning.setup import StreamSetUp, require_server, slot_finding
from django_walsignals.provisioning.steps import Finding
from django_walsignals.replication.catalogue import Server

#: What the consumer does to this library's own tables; a dead letter that was replayed goes.
RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    Checkpoint._meta.db_table: ("SELECT", "INSERT", "UPDATE"),
    DeadLetter._meta.db_table: ("SELECT", "INSERT", "UPDATE", "DELETE"),
}

#: Columns where the output is no terminal: whoever searches in it wants a fact in a line.
_PIPE_WIDTH: Final = 1000

_MODES: Final = ("check", "sql", "drop")


class Command(WalCommand):
    """Set up a stream without consuming it."""

    help = (
        "Create or change what a stream needs on the server: its publication, replica identities, its replication slot. "
        "Exit codes: 0 done, 1 error (or, with --check, something differs), 2 usage, 3 slot in use by a consumer, "
        "4 slot lost or a gap."
    )
    #: What is wrong with the settings is said in a line.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("stream", nargs="?", default=DEFAULT_STREAM, help="alias of a stream in WALSIGNALS")
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--check", action="store_true", help="compare, change nothing; exit 1 where something differs"
        )
        what.add_argument("--sql", action="store_true", help="print the statements for a DBA, change nothing")
        what.add_argument("--drop", action="store_true", help="drop the slot and the publication; asks first")
        parser.add_argument("--role", metavar="NAME", help="with --sql: the consumer's role, if not the settings' user")
        parser.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask")

    def handle(self, *args: Any, stream: str, **options: Any) -> None:
        """Do what the options say."""
        _refuse_usage(options)
        with command_errors("Stopped at once; run it again to see what is left to do."):
            self._run(get_stream(stream), **options)

    def _run(self, config: StreamConfig, *, check: bool, sql: bool, drop: bool, **options: Any) -> None:
        server = _require(config)
        if drop:
            self._drop(config, **options)
            return
        survey = _Survey(config, server, may_lack_checkpoint=sql)
        if check:
            self._check(survey, **options)
        elif sql:
            self._print_script(survey, **options)
        else:
            self._apply(survey)

    def _apply(self, survey: _Survey) -> None:
        if not survey.has_tables:
            raise ConfigurationError(missing_migration(survey.config.checkpoint_database))
        if survey.gap is not None:
            raise survey.gap.error()
        if survey.is_good:
            self._remark((*survey.plan.remarks, *survey.plan.notes))
            self.stdout.write(f"Nothing to do: stream {survey.config.alias} has all it needs.")
            return
        try:
            set_up_stream(survey.config, StreamSetUp(survey.config, survey.server, self._done, announce=self._announce))
        except SlotInUse as exc:
            raise SlotInUse(f"{exc} Something is to be changed: stop it first, or let its next start do it.") from exc
        self._remark(survey.plan.notes)
        self.stdout.write(self.style.SUCCESS(f"Stream {survey.config.alias} has all it needs."))

    def _announce(self, statement: str, reason: str) -> None:
        self.stdout.write(f"-- {reason}\n{statement};")

    def _done(self, line: str) -> None:
        self.stdout.write(f"   {line}")
        self.stdout.flush()

    def _remark(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(self.style.WARNING(line))

    def _check(self, survey: _Survey, **options: Any) -> None:
        self.stdout.write(self._table(survey.findings, **options))
        self._remark((*survey.plan.remarks, *survey.plan.notes))
        if survey.gap is not None:
            self._remark([f"Gap: {survey.gap.reason} {accept_hint(survey.config.alias)}"])
        differing = sum(not finding.is_good for finding in survey.findings) + (survey.gap is not None)
        if differing:
            noun = "thing differs" if differing == 1 else "things differ"
            raise CommandError(f"{differing} {noun} from what stream {survey.config.alias} needs.")

    def _table(self, findings: Sequence[Finding], *, no_color: bool, force_color: bool, **_: Any) -> str:
        """Lay out as wide as the terminal is, and in its colours where it has and may use them."""
        table = Table("object", "should be", "is", "state", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for finding in findings:
            state = Text("ok", style="green") if finding.is_good else Text("differs", style="bold red")
            table.add_row(*map(_cell, (finding.item, finding.wanted, finding.found)), state)
        is_terminal = self.stdout.isatty()
        in_colour = force_color or (is_terminal and not no_color)
        written = io.StringIO()
        width = None if is_terminal else _PIPE_WIDTH
        console = Console(file=written, width=width, force_terminal=in_colour, no_color=not in_colour, highlight=False)
        console.print(table)
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())

    def _print_script(self, survey: _Survey, *, role: str | None, **_: Any) -> None:
        config = survey.config
        connection, own_connection = connections[config.database], connections[config.checkpoint_database]
        with suppress(PrivilegeError):  # whoever runs the script will hear
            StreamSetUp(config, survey.server, _nowhere).judge(survey.plan)
        written = script.Script(
            config,
            connection,
            own_connection,
            script.roles_of(config, connection, own_connection, role),
            RIGHTS,
            survey.plan,
            survey.slot,
            has_publication=survey.publication is not None,
            gap="" if survey.gap is None else survey.gap.reason,
        )
        self.stdout.write("\n".join(written.lines()))

    def _drop(self, config: StreamConfig, *, interactive: bool, **_: Any) -> None:
        found = removal.read_removal(config)
        if not found:
            self.stdout.write(
                f"Nothing to drop: there is neither slot {config.slot} nor publication {config.publication}."
            )
            return
        self.stdout.write("This drops:")
        if found.slot is not None:
            self.stdout.write(f"  replication slot {config.slot}: changes not delivered yet are lost")
        if found.publication is not None:
            self.stdout.write(f"  publication {config.publication} of {_tables(len(found.publication.tables))}")
        if interactive and not self._confirmed():
            raise CommandError("Nothing was dropped.")
        removal.remove(config, found, self._done)
        self._say_what_stays(config, found)

    def _confirmed(self) -> bool:
        """Ask; no answer is a no."""
        try:
            return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            self.stdout.write("")  # the prompt has no end of its own
            return False

    def _say_what_stays(self, config: StreamConfig, found: removal.Removal) -> None:
        if found.full:
            self.stdout.write("These tables keep REPLICA IDENTITY FULL. Where nothing else needs it:")
        for table in found.full:
            name = table.identifier.as_string(None)
            self.stdout.write(f"  ALTER TABLE {name} REPLICA IDENTITY DEFAULT;")
        if (checkpoint := _checkpoint(config)) is not None:
            self.stdout.write(
                f"The checkpoint at {checkpoint.lsn} stays, so that a later start refuses the gap (exit code 4). "
                f"{accept_hint(config.alias)}"
            )


class _Survey:
    """What a stream should have and what it has."""

    def __init__(self, config: StreamConfig, server: Server, *, may_lack_checkpoint: bool) -> None:
        """With ``may_lack_checkpoint`` one that the role may not read is as good as none: the script grants that."""
        self.config = config
        self.server = server
        # The slot before the checkpoint: the other way round a consumer at work looks like a gap.
        self.slot, self.publication = read_server_side(config)
        self.has_tables = _has_tables(config)
        checkpoint = None if may_lack_checkpoint and not _may_read_checkpoint(config) else _checkpoint(config)
        self.plan = StreamSetUp(config, server, _nowhere).plan(
            () if checkpoint is None else published_tables(checkpoint)
        )
        self.gap = None if checkpoint is None else self._look_for_gap(checkpoint)
        self.findings = [*self.plan.findings, slot_finding(config, self.slot)]

    @property
    def is_good(self) -> bool:
        """Say whether there is nothing to be done."""
        return not self.plan.steps and all(finding.is_good for finding in self.findings)

    def _look_for_gap(self, checkpoint: Checkpoint) -> Gap | None:
        wanted = [str(table) for table in self.plan.tables]
        return look_for_gap(self.config, checkpoint, self.slot, self.publication, wanted)


def _refuse_usage(options: Mapping[str, Any]) -> None:
    """Check the options once more: ``call_command`` hands over what it was given, without parsing it."""
    if sum(bool(options[mode]) for mode in _MODES) > 1:
        raise CommandError("Only one of --check, --sql and --drop.", returncode=2)
    if options["role"] and not options["sql"]:
        raise CommandError("--role goes with --sql.", returncode=2)


def _require(config: StreamConfig) -> Server:
    for alias in (config.database, config.checkpoint_database):
        vendor = connections[alias].vendor
        if vendor != "postgresql":
            raise ConfigurationError(f"Database {alias!r} is {vendor}: only PostgreSQL has a WAL to read.")
    server = require_server(connections[config.database])
    if _has_tables(config) and (missing := missing_migration(config.checkpoint_database)):  # a part of them is there
        raise ConfigurationError(missing)
    return server


def _tables(number: int) -> str:
    return "1 table" if number == 1 else f"{number} tables"


def _has_tables(config: StreamConfig) -> bool:
    return Checkpoint._meta.db_table in connections[config.checkpoint_database].introspection.table_names()


def _checkpoint(config: StreamConfig) -> Checkpoint | None:
    if not _has_tables(config):
        return None
    return Checkpoint.objects.using(config.checkpoint_database).filter(stream=config.alias).first()


def _may_read_checkpoint(config: StreamConfig) -> bool:
    if not _has_tables(config):
        return False
    connection = connections[config.checkpoint_database]
    table = connection.ops.quote_name(Checkpoint._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_table_privilege(%s, 'SELECT')", [table])
        return bool(cursor.fetchone()[0])


def _cell(text: str) -> Text:
    """Put a text into one line, without what could act on a terminal."""
    return Text("".join(character if character.isprintable() else "?" for character in text))


def _nowhere(line: str) -> None:
    """Report nothing."""

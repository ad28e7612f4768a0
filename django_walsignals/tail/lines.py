"""Changes for people: a line of what happened, and below it a line a field, coloured where that can be seen.

    12:03:04.123 ~ update shop.Order 42  xid 7421 at 0/1A2B3C8 {"user": 5}
                   status: 'new' -> 'paid'

What the transaction is stands beside its first change. Colour says nothing that the words do not. In a terminal a line
is cut to its width; a pipe gets all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from io import StringIO
from typing import Any, Final, NamedTuple

from django.utils import timezone
from rich.console import Console
from rich.text import Text

from django_walsignals.changes import UNKNOWN, FieldDiff, Operation, Table, WalChange, WalTruncate
from django_walsignals.delivery.routing import ReceivedMessage
from django_walsignals.tail.output import Output
from django_walsignals.tail.values import NULL, UNKNOWN_SIGN, as_json, cut, printable, shown, shown_pair
from django_walsignals.transactions import Transaction


class Sort(NamedTuple):
    """How something that happened is announced."""

    sign: str
    word: str
    style: str


_SORTS: Final = {
    Operation.INSERT: Sort("+", "insert", "green"),
    Operation.UPDATE: Sort("~", "update", "yellow"),
    Operation.DELETE: Sort("-", "delete", "red"),
}
_TRUNCATE: Final = Sort("!", "truncate", "bold red")
_MESSAGE: Final = Sort(">", "message", "cyan")

#: Under the operation's word: behind the time (12 characters), the sign, and a space behind each.
_INDENT: Final = " " * 15
_NO_TIME: Final = " " * 12

#: A value is given so many characters at least, however narrow the terminal and long the field's name.
_LEAST_ROOM: Final = 16


class Lines:
    """Write each change as a line and its fields."""

    def __init__(
        self, output: Output, console: Console, note: Callable[[str], None], fields: Collection[str] = ()
    ) -> None:
        """``note`` is called once a table whose old values the WAL lacks. ``fields``: the attnames to show, if not all."""
        self._output = output
        self._console = console
        self._note = note
        self._fields = frozenset(fields)
        self._noted: set[Table] = set()
        self._last: Transaction | None = None

    def change(self, change: WalChange[Any]) -> None:
        """Write an inserted, updated or deleted row."""
        sort, label = _SORTS[change.operation], change.model._meta.label
        try:
            diff, pk = dict(change.diff), shown(change.pk)
        except Exception as exc:  # noqa: BLE001  # a field's own code: whatever it raises, the change is shown
            error = f"could not be decoded: {type(exc).__name__}: {printable(str(exc))}"
            self._write(self._head(sort, label, change.transaction), Text(_INDENT + error, "red"))
            return
        wanted = [name for name in diff if not self._fields or name in self._fields]
        fields = [self._field(change.operation, name, diff[name]) for name in wanted]
        self._write(self._head(sort, f"{label} {pk}", change.transaction), *fields)
        if change.operation is not Operation.INSERT:
            self._note_unknown(change.table, diff)

    def truncate(self, truncate: WalTruncate) -> None:
        """Write an emptied table."""
        options = [" cascade"] * truncate.cascade + [" restart identity"] * truncate.restart_identity
        self._write(self._head(_TRUNCATE, truncate.model._meta.label + ",".join(options), truncate.transaction))

    def message(self, message: ReceivedMessage) -> None:
        """Write a logical message; one that is not transactional has no time."""
        try:
            content = shown(message.content.decode())
        except UnicodeDecodeError:
            content = shown(message.content)
        self._write(self._head(_MESSAGE, printable(message.prefix), message.transaction), Text(_INDENT + content))

    def _head(self, sort: Sort, what: str, transaction: Transaction | None) -> Text:
        """Say what happened to what, and beside the first change of a transaction which one that is."""
        time = _NO_TIME if transaction is None else _time_of(transaction)
        line = Text.assemble((time, "dim"), " ", (f"{sort.sign} {sort.word}", sort.style), " ", (what, "bold"))
        if transaction is None:
            line.append("  not transactional", "dim")
        elif transaction is not self._last:
            context = f" {as_json(dict(transaction.context))}" if transaction.context else ""
            line.append(f"  xid {transaction.xid} at {transaction.commit_lsn}{context}", "dim")
        self._last = transaction
        return line

    def _field(self, operation: Operation, name: str, values: FieldDiff) -> Text:
        line = Text.assemble(_INDENT, (name, "bold"), ": ")
        room = self._room(len(line))
        if operation is Operation.UPDATE:
            old, new = shown_pair(*values, None if room is None else room - len(" -> "))
            return line.append_text(Text.assemble(_styled(old, "red"), (" -> ", "dim"), _styled(new, "green")))
        value = values.new if operation is Operation.INSERT else values.old
        return line.append_text(Text.assemble(_styled(cut(shown(value), room), "")))

    def _room(self, used: int) -> int | None:
        """Say how many characters are left on a line; None for any number."""
        return max(self._console.width - used, _LEAST_ROOM) if self._console.is_terminal else None

    def _write(self, *lines: Text) -> None:
        """Write lines that belong together in one go."""
        if self._console.is_terminal:
            for line in lines:
                line.truncate(self._console.width, overflow="ellipsis")
        text = Text("\n").join(lines)
        self._output.write(f"{text.plain}\n" if self._console.color_system is None else self._coloured(text))

    def _coloured(self, text: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(text, soft_wrap=True, highlight=False)
        return captured.get()

    def _note_unknown(self, table: Table, diff: dict[str, FieldDiff]) -> None:
        """Say once a table why old values are not known, and what would make them known."""
        if table not in self._noted and any(_lacking(diff)):
            self._noted.add(table)
            self._note(
                f"the WAL has of old rows of {table} the key only ({UNKNOWN_SIGN} is not known); "
                f"ALTER TABLE {table} REPLICA IDENTITY FULL shows all of them"
            )


def _lacking(diff: dict[str, FieldDiff]) -> Iterator[bool]:
    return (values.old is UNKNOWN for values in diff.values())


def _styled(text: str, style: str) -> tuple[str, str]:
    """Tell NULL and the sign for an unknown value from a text by their style too."""
    return text, "italic dim" if text in (NULL, UNKNOWN_SIGN) else style


def _time_of(transaction: Transaction) -> str:
    """Write when a transaction was committed, in the current time zone."""
    return f"{timezone.localtime(transaction.committed_at):%H:%M:%S.%f}"[: len(_NO_TIME)]


def make_console(stream: Any, *, no_color: bool, force_color: bool) -> Console:
    """Make a console that renders for a stream: in colour where it is a terminal, or as told (NO_COLOR tells too).

    It writes nothing itself: what it renders is captured.
    """
    is_plain = no_color or bool(os.environ.get("NO_COLOR"))
    if force_color:
        return Console(file=StringIO(), color_system="standard", force_terminal=True, no_color=False)
    return Console(file=StringIO(), color_system=None if is_plain else "auto", force_terminal=stream.isatty())

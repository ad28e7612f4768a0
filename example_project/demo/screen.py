"""What the demo shows: a line for each thing that happens, and a table at the end. Signs as well as colours tell."""

from email.header import decode_header, make_header
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from example_project.demo.feed import SeenChange
from example_project.demo.ledger import Counts, Ledger

SIGNS = {"insert": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
LONGEST_VALUE = 40
MAIL_START = "Content-Type: "
MAIL_END = "-" * 79


class Screen:
    """The terminal, or whatever stands in for it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._in_mail = False

    def action(self, title: str) -> None:
        """Show what the traffic is about to do."""
        self._line(f"\n> {title}", "bold")

    def change(self, change: SeenChange) -> None:
        """Show a change as it arrives."""
        sign, colour = SIGNS[change.operation]
        line = Text(f"{sign} {change.operation} {change.model} {change.pk}", style=f"bold {colour}")
        line.append(f"  {change.latency * 1000:.0f} ms ", style="dim")
        for name, (old, new) in change.diff.items():
            line.append(f" {name} ", style="dim")
            line.append_text(_difference(change.operation, old, new))
        self._console.print(line, soft_wrap=True)

    def consumer_line(self, line: str) -> None:
        """Show what walconsume says; of the mails that Django's console backend prints there, the subject."""
        self._in_mail = self._in_mail or line.startswith(MAIL_START)
        if not self._in_mail:
            self._line(f"  walconsume: {line}", "dim")
        elif line.startswith("Subject: "):
            subject = make_header(decode_header(line.removeprefix("Subject: ")))
            self._line(f"  mail: {subject}", "cyan")
        if line.startswith(MAIL_END):
            self._in_mail = False

    def failure(self, problem: Exception) -> None:
        """Show why the demo cannot go on."""
        self._line(str(problem), "bold red")

    def summary(self, ledger: Ledger, *, written: Counts, stock: tuple[int, int]) -> int:
        """Show the sums; return 0 if what was received equals what was written, else 1."""
        received = ledger.received
        self._console.print()
        self._console.print(_comparison(written, received))
        if latency := ledger.latency():
            p50, p99, most = (f"{seconds * 1000:.0f} ms" for seconds in latency)
            self._line(f"Commit to receiver: p50 {p50}, p99 {p99}, max {most}. Repeats: {ledger.repeats}.")
        self._line(f"Stock: {stock[0]} by the products, {stock[1]} by the receiver that keeps the total.")
        return self._verdict(+written == +received and stock[0] == stock[1])

    def _verdict(self, equal: bool) -> int:
        if equal:
            self._line("Everything written has been received.", "bold green")
            return 0
        self._line("What was received differs from what was written.", "bold red")
        return 1

    def _line(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)


def _difference(operation: str, old: Any, new: Any) -> Text:
    if operation == "insert":
        return Text(_short(new), style="green")
    if operation == "delete":
        return Text(_short(old), style="red strike")
    return Text.assemble((_short(old), "red strike"), " -> ", (_short(new), "green"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _comparison(written: Counts, received: Counts) -> Table:
    table = Table("model", "operation", title="Written, by PostgreSQL's own count, and received")
    for heading in ("written", "received", "difference"):
        table.add_column(heading, justify="right")
    for key in sorted(+written | +received):
        table.add_row(*key, *_numbers(written[key], received[key]))
    table.add_section()
    table.add_row("all", "", *_numbers(written.total(), received.total()), style="bold")
    return table


def _numbers(written: int, received: int) -> tuple[str, str, Text]:
    difference = received - written
    return str(written), str(received), Text(f"{difference:+}", "bold red") if difference else Text("0", "dim")

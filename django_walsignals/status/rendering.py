"""A stream's status as a terminal shows it: one block a stream, so that it fits wherever it is read.

Colour only repeats what a word says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from django_walsignals.status.stream import State, StreamStatus
from django_walsignals.status.wording import facts

_STYLES: Final = {State.STREAMING: "bold green", State.BEHIND: "bold yellow", State.STOPPED: "bold yellow"}
_BROKEN_STYLE: Final = "bold red"


def render(statuses: Sequence[StreamStatus]) -> Table:
    """Lay out the status of some streams."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, status in enumerate(statuses):
        if number:
            table.add_row()
        style = _STYLES.get(status.state, _BROKEN_STYLE)
        table.add_row(Text(status.stream, style="bold"), Text(status.state.words, style=style))
        for label, value in facts(status):
            table.add_row(Text(f"  {label}"), Text(_printable(value)))
    return table


def _printable(text: str) -> str:
    """Leave out what could act on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)

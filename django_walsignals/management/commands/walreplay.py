"""``manage.py walreplay``: run the receivers of dead letters again, or discard the letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet

from django_walsignals.delivery import replay
from django_walsignals.management.base import WalCommand, command_errors
from django_walsignals.models import DeadLetter

#: The columns of the table, and how wide a text may be there; the JSON has all of it.
_COLUMNS: Final = ("ID", "STREAM", "CHANGE", "MODEL", "PK", "WHAT", "RECEIVER", "ATTEMPTS", "LAST FAILED", "ERROR")
_WIDEST: Final = 60

_JSON_FIELDS: Final = (
    "id",
    "stream",
    "change_id",
    "kind",
    "model",
    "pk_text",
    "operation",
    "receiver",
    "error",
    "traceback",
    "attempts",
    "first_failed_at",
    "last_failed_at",
)


class Command(WalCommand):
    """Replay dead letters, list them, or discard them."""

    help = (
        "Run the receivers of dead letters again: just the receiver that failed, with its effects in the database "
        "exactly once. A letter ends when its receiver succeeds. Exit codes: 0 done, 1 an error or a letter that is "
        "still there, 2 usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("ids", nargs="*", type=int, metavar="id", help="dead letters by id, as --list shows them")
        parser.add_argument("--all", action="store_true", help="all dead letters")
        parser.add_argument("--model", metavar="shop.Order", help="those of a model")
        parser.add_argument("--receiver", metavar="PATH", help="those of a receiver, by its dotted path")
        parser.add_argument("--stream", metavar="ALIAS", help="those of a stream")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--list", action="store_true", help="show them, and change nothing")
        what.add_argument("--json", action="store_true", help="as --list, with all there is to know, in JSON")
        what.add_argument("--discard", action="store_true", help="delete them for ever instead; asks first")
        parser.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the options say."""
        selection = _selection(**options)
        with command_errors("Stopped at once; the letter in hand is as it was."):
            found = selection.letters()
            if options["list"] or options["json"]:
                self._list(found, as_json=options["json"])
            elif options["discard"]:
                self._discard(found, interactive=options["interactive"])
            else:
                self._replay(found)

    def _replay(self, found: Sequence[QuerySet[DeadLetter]]) -> None:
        results = []
        for rows in found:
            for result in replay.replay(rows):
                self.stdout.write(str(result))
                results.append(result)
        replayed = sum(result.outcome is replay.Outcome.REPLAYED for result in results)
        kept = sum(result.is_kept for result in results)
        if kept:
            raise CommandError(f"{replayed} replayed; still there: {kept} of {len(results)}.")
        self.stdout.write(f"{replayed} replayed" if results else "There are no such dead letters.")

    def _discard(self, found: Sequence[QuerySet[DeadLetter]], *, interactive: bool) -> None:
        count = sum(rows.count() for rows in found)
        if not count:
            self.stdout.write("There are no such dead letters.")
            return
        if interactive and not _confirm(count):
            raise CommandError("Nothing was discarded.")
        discarded = sum(replay.discard(rows) for rows in found)
        self.stdout.write(f"{discarded} discarded")

    def _list(self, found: Sequence[QuerySet[DeadLetter]], *, as_json: bool) -> None:
        if as_json:
            rows = [row for letters in found for row in letters.values(*_JSON_FIELDS)]
            self.stdout.write(json.dumps(rows, cls=DjangoJSONEncoder, indent=2))
            return
        table = [_row(letter) for letters in found for letter in letters.defer("payload", "traceback").iterator()]
        if not table:
            self.stdout.write("There are no such dead letters.")
            return
        for line in _aligned([_COLUMNS, *table]):
            self.stdout.write(line)
        self.stdout.write("Later changes of the same rows have been delivered meanwhile.")


def _selection(
    *,
    ids: Sequence[int],
    model: str | None,
    receiver: str | None,
    stream: str | None,
    **options: Any,
) -> replay.Selection:
    """Read which letters are meant; refuse a call that means none, or some and all of them."""
    if ids and options["all"]:
        raise CommandError("Name ids or --all, not both.", returncode=2)
    is_told = any((ids, options["all"], model, receiver, stream))
    if not is_told and not options["list"] and not options["json"]:
        raise CommandError(
            "Nothing is selected: name ids, --model, --receiver, --stream, or --all; --list shows what there is.",
            returncode=2,
        )
    return replay.Selection(tuple(ids), model, receiver, stream)


def _confirm(count: int) -> bool:
    """Ask; no answer is a no."""
    try:
        answer = input(f"Discard {count} dead letter{'s' if count > 1 else ''} for ever? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _row(letter: DeadLetter) -> tuple[str, ...]:
    what = letter.operation or letter.kind
    last_failed = f"{letter.last_failed_at:%Y-%m-%d %H:%M:%S}"
    texts = letter.model, letter.pk_text, what, letter.receiver, letter.attempts, last_failed, letter.error
    return tuple(_short(str(text)) for text in (letter.pk, letter.stream, letter.change_id, *texts))


def _short(text: str) -> str:
    """Put a text into one line, without what could act on a terminal."""
    line = text.partition("\n")[0]
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]

"""What the commands have in common: an output or a database that fails is said in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import DatabaseError, OperationalError

from django_walsignals.exceptions import WalSignalsError

_UNDEFINED_TABLE: Final = "42P01"
_INSUFFICIENT_PRIVILEGE: Final = "42501"


class _Stdout(OutputWrapper):
    """Standard output that remembers how it failed, so that no other error is taken for that."""

    failure: OSError | None = None

    def write(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]  # Django's, which returns nothing
        try:
            super().write(*args, **kwargs)
        except OSError as exc:
            self.failure = exc
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as exc:
            self.failure = exc
            raise


class WalCommand(BaseCommand):
    """A command whose output may be a pipe that somebody closes, or a disk that is full."""

    def __init__(self, stdout: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(stdout, *args, **kwargs)
        self.stdout = _Stdout(stdout or sys.stdout)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run, and end with one line where what was said did not get out."""
        if options.get("stdout") is None and sys.stdout is None:
            raise CommandError("Standard output is closed: there is nowhere to write to.")
        try:
            output = super().execute(*args, **options)
            self.stdout.flush()
        except OSError as exc:
            if exc is not getattr(self.stdout, "failure", None):
                raise
            _discard_rest()
            raise CommandError(f"Can't write to standard output: {exc.strerror}.") from exc
        return output


@contextmanager
def command_errors(stopped: str) -> Iterator[None]:
    """Turn what is expected to go wrong into a ``CommandError`` with its exit code; ``stopped`` is said of Ctrl-C."""
    try:
        yield
    except WalSignalsError as exc:
        raise CommandError(str(exc), returncode=exc.exit_code) from exc
    except DatabaseError as exc:
        raise database_error(exc) from exc
    except KeyboardInterrupt as exc:
        raise CommandError(stopped) from exc


def positive_number(text: str) -> int:
    """Read an option's positive whole number."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def database_error(exc: DatabaseError) -> CommandError:
    """Say in one line what the database said, and what to do where that is known."""
    sqlstate = getattr(exc.__cause__, "sqlstate", None)
    first = str(exc).partition("\n")[0]
    if sqlstate == _UNDEFINED_TABLE:
        return CommandError(f"The database refused: {first}. Run: manage.py migrate")
    if sqlstate == _INSUFFICIENT_PRIVILEGE:
        return CommandError(f"The database refused: {first}. Run as a role that may: manage.py walsetup --sql")
    unreachable = isinstance(exc, OperationalError) and sqlstate is None
    return CommandError(f"The database {'is out of reach' if unreachable else 'refused'}: {' '.join(str(exc).split())}")


def _discard_rest() -> None:
    """Let Python's own flush at exit go nowhere, where it would fail and change the exit code."""
    with suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

"""The last error of a stream, kept beside its checkpoint for whoever looks after it.

Written as well as can be and never at a cost: where the database is out of reach that is at the start of the next
session. It says what kind of error it was and where, never what a row holds: not a traceback, not what a receiver or a
constraint has to say of values.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Final

from django.db import Error, InterfaceError, OperationalError, connections, transaction
from django.db.models.functions import Now

from django_walsignals.exceptions import DeliveryError, ReceiverError, WalSignalsError
from django_walsignals.models import Checkpoint

logger = logging.getLogger(__name__)

#: Characters kept of an error.
LONGEST: Final = 1000


class LastError:
    """What went wrong last, until it is written."""

    def __init__(self, stream: str, using: str) -> None:
        self._stream = stream
        self._using = using
        self._pending: tuple[str, float] | None = None

    def note(self, exc: Exception) -> None:
        """Remember an error that ended a session."""
        self._pending = describe(exc), time.monotonic()

    def write(self) -> None:
        """Write what is remembered, on a connection that should be open; a database error is no matter."""
        if self._pending is None:
            return
        text, at = self._pending
        try:
            rows = Checkpoint.objects.using(self._using).filter(stream=self._stream)
            ago = timedelta(seconds=time.monotonic() - at)
            with transaction.atomic(using=self._using), connections[self._using].cursor() as cursor:
                cursor.execute("SET LOCAL synchronous_commit = off")  # a standby that is away may be the very error
                rows.update(last_error=text, last_error_at=Now() - ago)  # by the database's clock, as all times there
        except Error as exc:
            logger.debug("The last error can't be written now: %s", exc)
        else:
            self._pending = None


def describe(exc: Exception) -> str:
    """Say in one line what an error is, without what may be a row's values."""
    cause = type(exc.__cause__).__name__
    match exc:
        case ReceiverError():
            text = f"receiver {exc.receiver} raised {cause} on change {exc.change_id}"
        case DeliveryError() if exc.__cause__ is not None:
            text = f"{str(exc).partition(':')[0]}: {cause}"
        case WalSignalsError() | OperationalError() | InterfaceError():
            text = str(exc).partition("\n")[0]
        case _:
            text = f"{type(exc).__name__}{_sqlstate_of(exc)}"
    return " ".join(text.split())[:LONGEST]


def _sqlstate_of(exc: Exception) -> str:
    sqlstate = getattr(exc.__cause__, "sqlstate", None)
    return f" (SQLSTATE {sqlstate})" if sqlstate else ""

"""Receivers for a consumer that tests kill: every change of a note leaves a row in the checkpoint's database.

What goes wrong is chosen in the environment, and put in by replacing a method: in the consumer's own process.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from django_walsignals import WalChange, on_change
from django_walsignals.delivery.careful import CarefulDelivery
from django_walsignals.delivery.checkpoint import CheckpointStore
from django_walsignals.delivery.feedback import Feedback
from tests.ledger.models import Effect
from tests.testapp.models import Note

#: Kill this very process with SIGKILL when a note of this text arrives, after its effect was written.
KILL_ON = os.environ.get("EFFECTS_KILL_ON")

#: Where to kill it, at the first batch: "before dispatch", "before commit" or "before feedback".
KILL_AT = os.environ.get("EFFECTS_KILL_AT")

#: Stop this process with SIGSTOP when a note of this text arrives, after its effect was written: once.
PAUSE_ON = os.environ.get("EFFECTS_PAUSE_ON")

#: Raise for a note of this text, always.
RAISE_ON = os.environ.get("EFFECTS_RAISE_ON")

#: For a note of this text, write one more to the very table that the stream publishes.
WRITE_ON = os.environ.get("EFFECTS_WRITE_ON")

#: Print a line for each change, which a test can wait for.
SAY = bool(os.environ.get("EFFECTS_SAY"))

#: How long a change takes, in seconds.
SECONDS_EACH = float(os.environ.get("EFFECTS_SECONDS_EACH", "0"))

_called = 0


@on_change(Note)
def count(change: WalChange[Note]) -> None:
    global _called  # noqa: PLW0603  # one process, one count
    _called += 1
    text = change.instance.text
    Effect.objects.create(change_id=change.id, operation=change.operation, note_id=change.pk, text=text)
    if SAY:
        sys.stdout.write(f"effect of {text}\n")
    if SECONDS_EACH:
        time.sleep(SECONDS_EACH)
    if RAISE_ON and text == RAISE_ON:
        raise LookupError("poison")
    if WRITE_ON and text == WRITE_ON:
        Note.objects.create(text="written by a receiver")
    if KILL_ON and text == KILL_ON:
        _send(signal.SIGKILL)
    if PAUSE_ON and text == PAUSE_ON:
        _send(signal.SIGSTOP)


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def _kill_around(owner: type, name: str, *, after: bool, when: Callable[..., bool]) -> None:
    """Replace a method by one that kills the process before or after it, the first time that ``when`` says so."""
    original: Any = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        deadline_has_come = when(*args)
        if deadline_has_come and not after:
            _send(signal.SIGKILL)
        result = original(*args, **kwargs)
        if deadline_has_come:
            _send(signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def _was_called(*_: Any) -> bool:
    return _called > 0


if KILL_AT == "before dispatch":
    _kill_around(CarefulDelivery, "deliver", after=False, when=lambda self, events, *_: bool(events))
elif KILL_AT == "before commit":
    _kill_around(CheckpointStore, "move", after=True, when=_was_called)
elif KILL_AT == "before feedback":
    _kill_around(Feedback, "confirm", after=False, when=_was_called)
elif KILL_AT:
    raise ValueError(KILL_AT)

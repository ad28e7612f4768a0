"""Receivers for a consumer that tests kill: every change of a note leaves a row in the checkpoint's database."""

import os
import signal
import sys
import time

from django_walsignals import WalChange, on_change
from tests.ledger.models import Effect
from tests.testapp.models import Note

#: Kill this very process with SIGKILL when a note of this text arrives, after its effect was written.
KILL_ON = os.environ.get("EFFECTS_KILL_ON")

#: Print a line for each change, which a test can wait for.
SAY = bool(os.environ.get("EFFECTS_SAY"))

#: How long a change takes, in seconds.
SECONDS_EACH = float(os.environ.get("EFFECTS_SECONDS_EACH", "0"))


@on_change(Note)
def count(change: WalChange[Note]) -> None:
    Effect.objects.create(change_id=change.id, operation=change.operation, note_id=change.pk, text=change.instance.text)
    if SAY:
        sys.stdout.write(f"effect of {change.instance.text}\n")
    if SECONDS_EACH:
        time.sleep(SECONDS_EACH)
    if KILL_ON and change.instance.text == KILL_ON:
        os.kill(os.getpid(), signal.SIGKILL)

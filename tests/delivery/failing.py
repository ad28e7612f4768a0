"""Receivers for a consumer in a process of its own: one change fails, the others leave an effect."""

from django_walsignals import WalChange, on_change
from tests.ledger.models import Effect
from tests.testapp.models import Note


@on_change(Note)
def receive(change: WalChange[Note]) -> None:
    if change.instance.text == "bad":
        raise LookupError("a bad one")
    Effect.objects.create(change_id=change.id, note_id=change.pk, text=change.instance.text)

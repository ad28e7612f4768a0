"""Connecting to the signals themselves."""

from typing import Any

from django.dispatch import receiver

from django_walsignals import WalChange, post_wal_change, post_wal_truncate, wal_message
from tests.testapp.models import Note


def heard(sender: type[Note], instance: Note, change: WalChange[Note], **kwargs: Any) -> None: ...


post_wal_change.connect(heard, sender=Note, operations=["update"], fields=["text"], stream="default")
post_wal_change.connect(heard, sender="testapp.Note", when=lambda change: bool(change.pk), dispatch_uid="one")
post_wal_truncate.connect(heard)
wal_message.disconnect(heard, sender=None)


@receiver(post_wal_change, sender=Note, operations=["update"], fields=["text"])
def decorated(sender: type[Note], instance: Note, change: WalChange[Note], **kwargs: Any) -> None: ...


@receiver([post_wal_change, post_wal_truncate], sender="testapp.Note")
async def decorated_async(sender: type[Note], **kwargs: Any) -> None: ...


post_wal_change.connect(heard, sender=Note, operations=["upsert"])  # type: ignore[list-item]
post_wal_change.connect(heard, sender=Note, when=lambda: True)  # type: ignore[arg-type, misc]
post_wal_change.connect(heard, sender=7)  # type: ignore[arg-type]

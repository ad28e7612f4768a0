"""Receivers for a consumer that is watched in a process of its own."""

import atexit
import os
import sys
import threading
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from django_walsignals import WalChange, on_change, post_wal_truncate, wal_message
from tests.testapp.models import Note

#: A named pipe that a note "hang" waits for: it hangs until somebody writes.
PIPE = os.environ.get("WATCHED_PIPE")

#: Have it look as if prometheus-client were not installed.
if os.environ.get("WATCHED_WITHOUT_CLIENT"):
    sys.modules["prometheus_client"] = None  # type: ignore[assignment]

#: Count with prometheus_client's own means, as an application may.
if os.environ.get("WATCHED_COUNTS"):
    from prometheus_client import Counter

    Counter("shop_orders", "Of the application's own.").inc()

#: Say at the end what was imported and started for metrics.
if os.environ.get("WATCHED_SAYS"):

    @atexit.register
    def say() -> None:
        sys.stdout.write(f"prometheus_client: {'prometheus_client' in sys.modules}\n")


@on_change(Note)
def note_changed(change: WalChange[Note]) -> None:
    text = change.instance.text
    if text == "bad":
        raise LookupError("a bad one")
    if text == "hang" and PIPE:
        Path(PIPE).read_text()
    if text == "threads":
        sys.stdout.write(f"threads: {sorted(thread.name for thread in threading.enumerate())}\n")


@on_change(Note, when=lambda change: change.instance.text == "wanted")
def picky(change: WalChange[Note]) -> None: ...


@receiver(post_wal_truncate, sender=Note)
def truncated(**kwargs: Any) -> None: ...


@receiver(wal_message)
def told(**kwargs: Any) -> None: ...

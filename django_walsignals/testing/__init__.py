"""For the tests of projects that use this library, and for its own.

    make_change(instance, old=...)   a `WalChange` without a database
    send_change(change)              to the connected receivers that want it
    capture_wal_changes()            in a ``TestCase``, where nothing is ever committed: from the ORM's signals
    consume_pending()                in a ``TransactionTestCase``: what was committed, through the real pipeline
    set_up_stream(), drop_stream()   the slot and publication that `consume_pending` reads

The fixtures of pytest, ``wal_stream`` and ``wal_changes``, are in ``django_walsignals.pytest_plugin``.
"""

from __future__ import annotations

from django_walsignals.testing.capture import CapturedChanges, UnseenChanges, capture_wal_changes
from django_walsignals.testing.consuming import consume_pending, drop_stream, set_up_stream
from django_walsignals.testing.making import make_change, make_transaction
from django_walsignals.testing.sending import Call, send_change
from django_walsignals.testing.streams import WalStream

__all__ = [
    "Call",
    "CapturedChanges",
    "UnseenChanges",
    "WalStream",
    "capture_wal_changes",
    "consume_pending",
    "drop_stream",
    "make_change",
    "make_transaction",
    "send_change",
    "set_up_stream",
]

"""Turn every committed row change in PostgreSQL into a typed Django signal.

The public names, loaded on first use: importing this package imports neither Django's models nor psycopg.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from django_walsignals.changes import UNKNOWN as UNKNOWN
    from django_walsignals.changes import FieldDiff as FieldDiff
    from django_walsignals.changes import Operation as Operation
    from django_walsignals.changes import Table as Table
    from django_walsignals.changes import WalChange as WalChange
    from django_walsignals.changes import WalTruncate as WalTruncate
    from django_walsignals.contexts import context as context
    from django_walsignals.messages import emit_message as emit_message
    from django_walsignals.protocol.lsn import LSN as LSN
    from django_walsignals.receivers import on_change as on_change
    from django_walsignals.receivers import on_delete as on_delete
    from django_walsignals.receivers import on_insert as on_insert
    from django_walsignals.receivers import on_update as on_update
    from django_walsignals.signals import post_wal_change as post_wal_change
    from django_walsignals.signals import post_wal_truncate as post_wal_truncate
    from django_walsignals.signals import wal_gap as wal_gap
    from django_walsignals.signals import wal_message as wal_message
    from django_walsignals.transactions import Transaction as Transaction

__version__ = "0.1.0.dev0"

_HOME: Final = {
    "changes": ("FieldDiff", "Operation", "Table", "UNKNOWN", "WalChange", "WalTruncate"),
    "contexts": ("context",),
    "messages": ("emit_message",),
    "protocol.lsn": ("LSN",),
    "receivers": ("on_change", "on_delete", "on_insert", "on_update"),
    "signals": ("post_wal_change", "post_wal_truncate", "wal_gap", "wal_message"),
    "transactions": ("Transaction",),
}
_MODULE_OF: Final = {name: f"{__name__}.{module}" for module, names in _HOME.items() for name in names}

__all__ = [
    "LSN",
    "UNKNOWN",
    "FieldDiff",
    "Operation",
    "Table",
    "Transaction",
    "WalChange",
    "WalTruncate",
    "context",
    "emit_message",
    "on_change",
    "on_delete",
    "on_insert",
    "on_update",
    "post_wal_change",
    "post_wal_truncate",
    "wal_gap",
    "wal_message",
]


def __getattr__(name: str) -> Any:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Changes as JSON, one object a line: the keys are a contract, and new ones may be added.

Every line: id, stream, database, operation, xid, commit_lsn, committed_at, context (xid to context are null for a
message that is not transactional).

    insert, update, delete   model, table, pk, old, new, changed, unknown, error
    truncate                 model, table, cascade, restart_identity
    message                  prefix, content, encoding ("utf-8" or "base64")

``old`` and ``new`` are the row before and after, by attname, or null where there is no such row. They hold what the WAL
does: ``unknown`` lists the fields that one of them lacks, ``changed`` those that differ or may differ. ``error`` is null,
or says why the row could not be decoded.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any

from django_walsignals.changes import UNKNOWN, Row, WalChange, WalTruncate
from django_walsignals.delivery.routing import ReceivedMessage
from django_walsignals.tail.output import Output
from django_walsignals.tail.values import as_json
from django_walsignals.transactions import Transaction


class Objects:
    """Write each change as an object."""

    def __init__(self, output: Output, stream: str, database: str, fields: Collection[str] = ()) -> None:
        """``fields``: the attnames to show; empty for all."""
        self._output = output
        self._fields = frozenset(fields)
        self._origin = {"stream": stream, "database": database}

    def change(self, change: WalChange[Any]) -> None:
        """Write an inserted, updated or deleted row."""
        table = {"model": change.model._meta.label, "table": str(change.table)}
        try:
            row = self._row(change)
        except Exception as exc:  # noqa: BLE001  # a field's own code: whatever it raises, the change is shown
            names = ("pk", "old", "new", "changed", "unknown")
            row = {**dict.fromkeys(names), "error": f"{type(exc).__name__}: {exc}"}
        self._write(change.id, change.operation.value, {**table, **row}, change.transaction)

    def truncate(self, truncate: WalTruncate) -> None:
        """Write an emptied table."""
        facts = {
            "model": truncate.model._meta.label,
            "table": str(truncate.table),
            "cascade": truncate.cascade,
            "restart_identity": truncate.restart_identity,
        }
        self._write(truncate.id, "truncate", facts, truncate.transaction)

    def message(self, message: ReceivedMessage) -> None:
        """Write a logical message."""
        try:
            content, encoding = message.content.decode(), "utf-8"
        except UnicodeDecodeError:
            content, encoding = base64.b64encode(message.content).decode(), "base64"
        facts = {"prefix": message.prefix, "content": content, "encoding": encoding}
        self._write(message.id, "message", facts, message.transaction)

    def _row(self, change: WalChange[Any]) -> dict[str, Any]:
        old, new = (self._decoded(change, row) for row in change.rows)
        unknown = {name for row in (old, new) if row for name, value in row.items() if value is UNKNOWN}
        return {
            "pk": None if change.pk is UNKNOWN else change.pk,
            "old": _known(old),
            "new": _known(new),
            "changed": [name for name in change.diff if self._is_shown(name)],
            "unknown": sorted(unknown),
            "error": None,
        }

    def _decoded(self, change: WalChange[Any], row: Row | None) -> dict[str, Any] | None:
        if row is None:
            return None
        diff = change.binding.diff(None, row)
        return {name: values.new for name, values in diff.items() if self._is_shown(name)}

    def _is_shown(self, attname: str) -> bool:
        return not self._fields or attname in self._fields

    def _write(self, change_id: str, operation: str, facts: Mapping[str, Any], transaction: Transaction | None) -> None:
        head = {"id": change_id, **self._origin, "operation": operation}
        self._output.write(as_json({**head, **facts, **_of(transaction)}) + "\n")


def _known(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: value for name, value in row.items() if value is not UNKNOWN}


def _of(transaction: Transaction | None) -> dict[str, Any]:
    if transaction is None:
        return dict.fromkeys(("xid", "commit_lsn", "committed_at", "context"))
    return {
        "xid": transaction.xid,
        "commit_lsn": str(transaction.commit_lsn),
        "committed_at": transaction.committed_at,
        "context": dict(transaction.context),
    }

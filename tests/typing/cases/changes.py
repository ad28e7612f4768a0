"""The members of a change."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_type

from django_walsignals import LSN, UNKNOWN, FieldDiff, Operation, Table, Transaction, WalChange, WalTruncate
from tests.testapp.models import Note


def members(change: WalChange[Note], truncate: WalTruncate) -> None:
    assert_type(change.model, type[Note])
    assert_type(change.instance, Note)
    assert_type(change.instance.text, str)
    assert_type(change.old, Note | None)
    assert_type(change.diff, Mapping[str, FieldDiff])
    assert_type(change.changed_fields, frozenset[str])
    assert_type(change.unknown_fields, frozenset[str])
    assert_type(change.has_changed("text"), bool)
    assert_type(change.operation, Operation)
    assert_type(change.id, str)
    assert_type(change.ordinal, int)
    assert_type(change.pk, Any)
    assert_type(change.table, Table)
    assert_type(change.transaction, Transaction)
    assert_type(change.transaction.commit_lsn, LSN)
    assert_type(change.transaction.end_lsn, LSN | None)
    assert_type(change.transaction.committed_at, datetime)
    assert_type(change.transaction.context, Mapping[str, Any])
    assert_type(truncate.table.schema, str)
    if change.diff["text"].old is UNKNOWN:
        return
    match change.operation:
        case Operation.INSERT | Operation.UPDATE | Operation.DELETE:
            pass


def immutable(change: WalChange[Note]) -> None:
    change.ordinal = 1  # type: ignore[misc]
    change.transaction.xid = 1  # type: ignore[misc]
    change.diff["text"] = FieldDiff(1, 2)  # type: ignore[index]
    change.old.text = ""  # type: ignore[union-attr]

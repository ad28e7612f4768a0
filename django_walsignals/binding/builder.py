"""From a row message to the row before and the row after: what each kind of message tells of them.

In the rows made here `UNKNOWN` stands for whatever the WAL does not hold: an unchanged TOAST value whose old value
did not come either, and the columns outside the identity of a row of which only the key came.
https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django_walsignals.changes import UNKNOWN, Row
from django_walsignals.protocol.messages import (
    UNCHANGED,
    FullDelete,
    FullUpdate,
    Insert,
    KeyDelete,
    KeyUpdate,
    Relation,
    RowMessage,
    Update,
    Value,
)

#: ``pg_class.relreplident`` of REPLICA IDENTITY FULL.
FULL: Final = "f"


def rows_of(message: RowMessage, relation: Relation, *, is_mixed: bool = False) -> tuple[Row | None, Row | None]:
    """Say what the row was before and is after, None where there is no row.

    ``is_mixed``: the relation is a partitioned table with FULL, and one of its partitions has only its key for identity. The
    server labels the old rows of both as whole, so that a NULL there may mean "not known", and is taken for that.
    """
    match message:
        case Insert(new=new):
            return None, new
        case FullUpdate(old=old, new=new):
            old = _without_null(old) if is_mixed else old
            return old, _carry_over(new, old) if UNCHANGED in new else new
        case FullDelete(old=old) if is_mixed:
            return _without_null(old), None
        case KeyUpdate(key=key, new=new):
            return _only_key(key, relation), _without_unchanged(new)
        case FullDelete(old=old):
            return old, None
        case KeyDelete(key=key):
            return _only_key(key, relation), None
        case Update(new=new):
            new = _without_unchanged(new)
            return _unchanged_key(new, relation), new


def _without_null(row: Sequence[Any]) -> list[Any]:
    return [UNKNOWN if value is None else value for value in row]


def _carry_over(new: Sequence[Value], old: Sequence[Any]) -> Row:
    """Take unchanged TOAST values from the whole old row."""
    return [before if value is UNCHANGED else value for before, value in zip(old, new, strict=True)]


def _without_unchanged(row: Sequence[Value]) -> list[Any]:
    return [UNKNOWN if value is UNCHANGED else value for value in row]


def _only_key(row: Sequence[Any], relation: Relation) -> list[Any]:
    """Keep the identity's columns, which are never NULL: a NULL in such a row means "not known".

    That holds for a partition too whose own identity is its key, but whose root, under whose name it is published,
    has FULL.
    """
    return [
        value if column.is_key and value is not None else UNKNOWN
        for value, column in zip(row, relation.columns, strict=True)
    ]


def _unchanged_key(new: Sequence[Any], relation: Relation) -> list[Any]:
    """Tell the row before an update that came without one: the identity did not change, of the rest nothing is known.

    Under FULL that is a partition's update published through its root, and which columns its identity has is not known.
    """
    if relation.replica_identity == FULL:
        return [UNKNOWN] * len(new)
    return _only_key(new, relation)

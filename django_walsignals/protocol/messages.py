"""One frozen type per logical replication message (pgoutput, ``proto_version`` 1, ``messages 'true'``).

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

A state that the protocol tells apart is a type of its own: an update without an old row, with its key and with the
whole old row are three types, and an unchanged TOAST value is a sentinel that equals nothing else. Timestamps are
microseconds since 2000-01-01 UTC, as the wire has them; a row is a list with one entry a column, its value in text
format or a marker.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, TypeAlias

from django_walsignals.protocol.lsn import LSN


class Unchanged(enum.Enum):
    """The type of `UNCHANGED`: a TOASTed value that the update did not touch, so that the WAL does not hold it."""

    UNCHANGED = "u"

    def __repr__(self) -> str:
        return "UNCHANGED"


#: "Identifies unchanged TOASTed value (the actual value is not sent)."
UNCHANGED: Final = Unchanged.UNCHANGED

#: A column's value: its text representation, NULL, or not sent.
Value: TypeAlias = bytes | Unchanged | None
Row: TypeAlias = list[Value]


class Begin(NamedTuple):
    """The start of a transaction; ``final_lsn`` is the LSN of its commit record."""

    final_lsn: LSN
    committed_at: int
    xid: int


class Commit(NamedTuple):
    """The end of a transaction; ``end_lsn`` is where the next record starts."""

    commit_lsn: LSN
    end_lsn: LSN
    committed_at: int


class Origin(NamedTuple):
    """The replication origin that a transaction came through."""

    origin_lsn: LSN
    name: str


class Column(NamedTuple):
    """A column of a `Relation`; ``is_key`` says that it is part of the replica identity."""

    is_key: bool
    name: str
    type_oid: int
    type_modifier: int


class Relation(NamedTuple):
    """A table as it was at this point of the WAL.

    ``replica_identity`` is ``pg_class.relreplident``: d(efault), n(othing), f(ull) or i(ndex). ``namespace`` is spelled
    out here for ``pg_catalog``, which the wire sends as an empty string.
    """

    relation_id: int
    namespace: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]


class Type(NamedTuple):
    """A data type that is not built in."""

    type_oid: int
    namespace: str
    name: str


class Insert(NamedTuple):
    """A row inserted."""

    relation_id: int
    new: Row


class Update(NamedTuple):
    """A row updated, with nothing known of the row before: its identity did not change."""

    relation_id: int
    new: Row


class KeyUpdate(NamedTuple):
    """A row updated, with the identity's columns as they were; all other columns of ``key`` are unknown."""

    relation_id: int
    key: Row
    new: Row


class FullUpdate(NamedTuple):
    """A row updated, with the whole row as it was (REPLICA IDENTITY FULL)."""

    relation_id: int
    old: Row
    new: Row


class KeyDelete(NamedTuple):
    """A row deleted, with its identity's columns; all other columns of ``key`` are unknown."""

    relation_id: int
    key: Row


class FullDelete(NamedTuple):
    """A row deleted, with the whole row as it was (REPLICA IDENTITY FULL)."""

    relation_id: int
    old: Row


class Truncate(NamedTuple):
    """Tables truncated by one statement."""

    relation_ids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class LogicalMessage(NamedTuple):
    """What ``pg_logical_emit_message`` wrote; a message that is not transactional stands between transactions."""

    transactional: bool
    lsn: LSN
    prefix: str
    content: bytes


RowMessage: TypeAlias = Insert | Update | KeyUpdate | FullUpdate | KeyDelete | FullDelete
Message: TypeAlias = Begin | Commit | Origin | Relation | Type | RowMessage | Truncate | LogicalMessage

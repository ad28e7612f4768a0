"""Decode pgoutput messages: one function a message, one table from tag to function.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

Every read is checked: short, trailing and unknown bytes raise `ProtocolError` with the message's tag and the offset.
A reader takes the whole message and an offset, and returns what it read and the offset behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from django_walsignals.exceptions import ProtocolError
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    FullDelete,
    FullUpdate,
    Insert,
    KeyDelete,
    KeyUpdate,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Row,
    Truncate,
    Type,
    Update,
)

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_BEGIN: Final = struct.Struct(">QqI")  # final LSN, commit timestamp, xid
_COMMIT: Final = struct.Struct(">BQQq")  # flags (unused), commit LSN, end LSN, commit timestamp
_COLUMN: Final = struct.Struct(">Ii")  # type OID, type modifier
_TRUNCATE: Final = struct.Struct(">IB")  # number of relations, option bits
_MESSAGE: Final = struct.Struct(">BQ")  # flags, LSN

_KEY, _OLD, _NEW = b"K"[0], b"O"[0], b"N"[0]
_NULL, _TOAST, _TEXT = b"n"[0], b"u"[0], b"t"[0]

_read_u16 = _U16.unpack_from
_read_u32 = _U32.unpack_from


def decode(message: bytes) -> Message:
    """Decode one whole message; raise `ProtocolError` for one that is truncated, too long, or of an unknown kind."""
    try:
        decoder = _DECODERS[message[0]]
    except IndexError:
        raise ProtocolError("empty message") from None
    except KeyError:
        raise ProtocolError("unknown kind of message", tag=chr(message[0])) from None
    try:
        decoded, end = decoder(message)
    except (struct.error, IndexError, ValueError) as exc:
        raise ProtocolError(f"malformed message: {exc}", tag=chr(message[0]), offset=len(message)) from exc
    if end != len(message):
        reason = "truncated message" if end > len(message) else f"{len(message) - end} bytes too many"
        raise ProtocolError(reason, tag=chr(message[0]), offset=min(end, len(message)))
    return decoded


def relation_id(message: bytes) -> int:
    """Read just the relation's OID of a row message, which no one may want to decode any further."""
    try:
        return _read_u32(message, 1)[0]  # type: ignore[no-any-return]
    except struct.error as exc:
        raise ProtocolError("truncated message", tag=chr(message[0]), offset=len(message)) from exc


def _begin(message: bytes) -> tuple[Begin, int]:
    final_lsn, committed_at, xid = _BEGIN.unpack_from(message, 1)
    return Begin(LSN(final_lsn), committed_at, xid), 1 + _BEGIN.size


def _commit(message: bytes) -> tuple[Commit, int]:
    _flags, commit_lsn, end_lsn, committed_at = _COMMIT.unpack_from(message, 1)
    return Commit(LSN(commit_lsn), LSN(end_lsn), committed_at), 1 + _COMMIT.size


def _origin(message: bytes) -> tuple[Origin, int]:
    (lsn,) = struct.unpack_from(">Q", message, 1)
    name, end = _string(message, 9)
    return Origin(LSN(lsn), name), end


def _relation(message: bytes) -> tuple[Relation, int]:
    (oid,) = _read_u32(message, 1)
    namespace, at = _string(message, 5)
    name, at = _string(message, at)
    identity = chr(message[at])
    (count,) = _read_u16(message, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        column, at = _column(message, at)
        columns.append(column)
    # The manual: "Namespace (empty string for pg_catalog)."
    return Relation(oid, namespace or "pg_catalog", name, identity, tuple(columns)), at


def _column(message: bytes, at: int) -> tuple[Column, int]:
    # "Flags for the column. Currently can be either 0 for no flags or 1 which marks the column as part of the key."
    is_key = bool(message[at] & 1)
    name, at = _string(message, at + 1)
    type_oid, type_modifier = _COLUMN.unpack_from(message, at)
    return Column(is_key, name, type_oid, type_modifier), at + _COLUMN.size


def _type(message: bytes) -> tuple[Type, int]:
    (oid,) = _read_u32(message, 1)
    namespace, at = _string(message, 5)
    name, at = _string(message, at)
    return Type(oid, namespace or "pg_catalog", name), at


def _insert(message: bytes) -> tuple[Insert, int]:
    (oid,) = _read_u32(message, 1)
    new, end = _new_row(message, 5)
    return Insert(oid, new), end


def _update(message: bytes) -> tuple[Update | KeyUpdate | FullUpdate, int]:
    (oid,) = _read_u32(message, 1)
    kind = message[5]
    if kind == _NEW:
        new, end = _row(message, 6)
        return Update(oid, new), end
    if kind not in (_OLD, _KEY):
        raise ProtocolError(f"an update's row of unknown kind {chr(kind)!r}", tag="U", offset=5)
    before, at = _row(message, 6)
    new, end = _new_row(message, at)
    return FullUpdate(oid, before, new) if kind == _OLD else KeyUpdate(oid, before, new), end


def _delete(message: bytes) -> tuple[KeyDelete | FullDelete, int]:
    (oid,) = _read_u32(message, 1)
    kind = message[5]
    if kind not in (_OLD, _KEY):
        raise ProtocolError(f"a delete's row of unknown kind {chr(kind)!r}", tag="D", offset=5)
    before, end = _row(message, 6)
    return FullDelete(oid, before) if kind == _OLD else KeyDelete(oid, before), end


def _truncate(message: bytes) -> tuple[Truncate, int]:
    count, options = _TRUNCATE.unpack_from(message, 1)
    at = 1 + _TRUNCATE.size
    end = at + 4 * count
    if end > len(message):
        raise ProtocolError("truncated message", tag="T", offset=len(message))
    # "1 for CASCADE, 2 for RESTART IDENTITY"
    return Truncate(struct.unpack_from(f">{count}I", message, at), bool(options & 1), bool(options & 2)), end


def _message(message: bytes) -> tuple[LogicalMessage, int]:
    flags, lsn = _MESSAGE.unpack_from(message, 1)
    prefix, at = _string(message, 1 + _MESSAGE.size)
    (length,) = _read_u32(message, at)
    end = at + 4 + length
    return LogicalMessage(bool(flags & 1), LSN(lsn), prefix, message[at + 4 : end]), end


def _new_row(message: bytes, at: int) -> tuple[Row, int]:
    if message[at] != _NEW:
        raise ProtocolError(f"expected a new row, not {chr(message[at])!r}", tag=chr(message[0]), offset=at)
    return _row(message, at + 1)


def _row(message: bytes, at: int) -> tuple[Row, int]:
    """Split a TupleData; the hot loop of the whole library, so its columns are told apart by likelihood.

    A slice past the end is short and raises nothing: the offset returned then lies behind the end, which `decode`
    refuses.
    """
    (count,) = _read_u16(message, at)
    at += 2
    row: Row = []
    append = row.append
    for _ in range(count):
        kind = message[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _read_u32(message, at + 1)[0]
            append(message[start:at])
        elif kind == _NULL:
            append(None)
            at += 1
        elif kind == _TOAST:
            append(UNCHANGED)
            at += 1
        else:
            raise ProtocolError(f"a column of unknown kind {chr(kind)!r}", tag=chr(message[0]), offset=at)
    return row, at


def _string(message: bytes, at: int) -> tuple[str, int]:
    """Read a null-terminated string; the session's ``client_encoding`` is pinned to UTF8."""
    end = message.index(0, at)
    try:
        return message[at:end].decode(), end + 1
    except UnicodeDecodeError as exc:
        raise ProtocolError(f"not UTF-8: {exc}", tag=chr(message[0]), offset=at + exc.start) from exc


_DECODERS: Final[dict[int, Callable[[bytes], tuple[Message, int]]]] = {
    b"B"[0]: _begin,
    b"C"[0]: _commit,
    b"O"[0]: _origin,
    b"R"[0]: _relation,
    b"Y"[0]: _type,
    b"I"[0]: _insert,
    b"U"[0]: _update,
    b"D"[0]: _delete,
    b"T"[0]: _truncate,
    b"M"[0]: _message,
}

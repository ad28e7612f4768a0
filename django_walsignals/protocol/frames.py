"""The CopyData frames that carry logical replication over a COPY BOTH connection.

https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION

All numbers are big endian; timestamps are microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from django_walsignals.exceptions import ProtocolError
from django_walsignals.protocol.lsn import LSN

#: "The number of microseconds since midnight on 2000-01-01", and its distance from the Unix epoch in microseconds.
POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_OFFSET_US: Final = 946_684_800_000_000

_XLOGDATA: Final = struct.Struct(">cQQq")
_KEEPALIVE: Final = struct.Struct(">cQqB")
_STATUS: Final = struct.Struct(">cQQQqB")
_XLOGDATA_TAG, _KEEPALIVE_TAG = b"w"[0], b"k"[0]


class XLogData(NamedTuple):
    """A piece of the stream: one pgoutput message, and the positions that the server gives with it.

    ``start`` and ``end`` are 0 for Relation and Type messages: never take a position from them.
    """

    start: int
    end: int
    sent_at: int
    payload: bytes


class Keepalive(NamedTuple):
    """The server's sign of life: it has sent everything up to ``wal_end``."""

    wal_end: LSN
    sent_at: int
    reply_requested: bool


class StandbyStatus(NamedTuple):
    """What a standby tells the server; only ``flush`` lets the server forget WAL."""

    write: LSN
    flush: LSN
    apply: LSN
    sent_at: int
    reply_requested: bool = False

    def to_bytes(self) -> bytes:
        """Encode as a "Standby status update" message."""
        return _STATUS.pack(b"r", self.write, self.flush, self.apply, self.sent_at, self.reply_requested)


def parse_frame(data: bytes) -> XLogData | Keepalive:
    """Decode one frame; raise `ProtocolError` for one that is truncated, too long, or of an unknown kind."""
    if not data:
        raise ProtocolError("empty frame")
    tag = data[0]
    if tag == _XLOGDATA_TAG and len(data) > _XLOGDATA.size:
        _, start, end, sent_at = _XLOGDATA.unpack_from(data)
        return XLogData(start, end, sent_at, data[_XLOGDATA.size :])
    if tag == _KEEPALIVE_TAG and len(data) == _KEEPALIVE.size:
        _, wal_end, sent_at, reply = _KEEPALIVE.unpack(data)
        return Keepalive(LSN(wal_end), sent_at, bool(reply))
    if tag in (_XLOGDATA_TAG, _KEEPALIVE_TAG):
        raise ProtocolError(f"a frame of {len(data)} bytes is not of its kind's length", tag=chr(tag), offset=len(data))
    raise ProtocolError("unknown kind of frame", tag=chr(tag))


def to_datetime(microseconds: int) -> datetime:
    """Turn a timestamp of the wire into an aware ``datetime`` in UTC."""
    return POSTGRES_EPOCH + timedelta(microseconds=microseconds)


def to_wire_time(unix_seconds: float) -> int:
    """Turn seconds since the Unix epoch into a timestamp of the wire."""
    return int(unix_seconds * 1_000_000) - _EPOCH_OFFSET_US

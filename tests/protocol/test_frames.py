"""The CopyData frames: exact bytes, exact lengths, and wire time."""

import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_walsignals.exceptions import ProtocolError
from django_walsignals.protocol.frames import (
    POSTGRES_EPOCH,
    Keepalive,
    StandbyStatus,
    XLogData,
    parse_frame,
    to_datetime,
    to_wire_time,
)
from django_walsignals.protocol.lsn import LSN, MAX_LSN

positions = st.integers(0, MAX_LSN)
timestamps = st.integers(-(2**63), 2**63 - 1)

YEAR = 31_557_600_000_000  # microseconds

XLOGDATA = (
    b"w"
    b"\x00\x00\x00\x16\xb3\x74\xd8\x48"  # start
    b"\x00\x00\x00\x16\xb3\x74\xd8\x50"  # end
    b"\x00\x02\xc0\x1d\x00\x00\x00\x07"  # sent at
    b"payload"
)
KEEPALIVE = (
    b"k"
    b"\x00\x00\x00\x16\xb3\x74\xd8\x48"  # end of the WAL
    b"\xff\xff\xff\xff\xff\xff\xff\xff"  # sent at
    b"\x01"  # wants an answer
)


def test_xlogdata_carries_its_positions_and_a_message() -> None:
    frame = parse_frame(XLOGDATA)
    assert type(frame) is XLogData
    assert frame == XLogData(0x16_B374D848, 0x16_B374D850, 0x2C01D_0000_0007, b"payload")


def test_keepalive_carries_the_servers_position_and_whether_it_wants_an_answer() -> None:
    frame = parse_frame(KEEPALIVE)
    assert type(frame) is Keepalive
    assert frame == Keepalive(LSN.parse("16/B374D848"), -1, True)
    assert type(frame.wal_end) is LSN
    no_answer = parse_frame(KEEPALIVE[:-1] + b"\x00")
    assert isinstance(no_answer, Keepalive)
    assert no_answer.reply_requested is False


def test_standby_status_is_exactly_what_the_server_reads() -> None:
    status = StandbyStatus(LSN(3), LSN(2), LSN(1), -2, reply_requested=True)
    assert status.to_bytes() == (
        b"r"
        b"\x00\x00\x00\x00\x00\x00\x00\x03"  # write
        b"\x00\x00\x00\x00\x00\x00\x00\x02"  # flush
        b"\x00\x00\x00\x00\x00\x00\x00\x01"  # apply
        b"\xff\xff\xff\xff\xff\xff\xff\xfe"  # sent at
        b"\x01"
    )


def test_standby_status_asks_for_no_answer_unless_told_to() -> None:
    assert StandbyStatus(LSN(), LSN(), LSN(), 0).to_bytes()[-1] == 0


@given(positions, positions, timestamps, st.binary(min_size=1))
def test_xlogdata_round_trip(start: int, end: int, sent_at: int, payload: bytes) -> None:
    frame = parse_frame(struct.pack(">cQQq", b"w", start, end, sent_at) + payload)
    assert frame == XLogData(start, end, sent_at, payload)


@given(positions, timestamps, st.booleans())
def test_keepalive_round_trip(wal_end: int, sent_at: int, reply: bool) -> None:
    assert parse_frame(struct.pack(">cQqB", b"k", wal_end, sent_at, reply)) == Keepalive(LSN(wal_end), sent_at, reply)


@given(positions, positions, positions, timestamps, st.booleans())
def test_standby_status_round_trip(write: int, flush: int, applied: int, sent_at: int, reply: bool) -> None:
    status = StandbyStatus(LSN(write), LSN(flush), LSN(applied), sent_at, reply)
    assert struct.unpack(">cQQQqB", status.to_bytes()) == (b"r", write, flush, applied, sent_at, reply)


@pytest.mark.parametrize("length", range(1, len(XLOGDATA) - len(b"payload") + 1))
def test_xlogdata_without_a_whole_header_and_a_message_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"a frame of {length} bytes is not of its kind's length") as caught:
        parse_frame(XLOGDATA[:length])
    assert (caught.value.tag, caught.value.offset) == ("w", length)


@pytest.mark.parametrize("length", range(1, len(KEEPALIVE)))
def test_a_short_keepalive_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_frame(KEEPALIVE[:length])
    assert (caught.value.tag, caught.value.offset) == ("k", length)


def test_a_long_keepalive_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_frame(KEEPALIVE + b"\x00")
    assert (caught.value.tag, caught.value.offset) == ("k", len(KEEPALIVE) + 1)


@pytest.mark.parametrize("tag", ["r", "d", "W", "\x00", "\xff"])
def test_an_unknown_kind_of_frame_is_refused(tag: str) -> None:
    with pytest.raises(ProtocolError, match="unknown kind of frame") as caught:
        parse_frame(tag.encode("latin-1") + XLOGDATA[1:])
    assert (caught.value.tag, caught.value.offset) == (tag, 0)


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="empty frame") as caught:
        parse_frame(b"")
    assert (caught.value.tag, caught.value.offset) == ("", 0)


@given(st.binary())
def test_random_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        frame: object = parse_frame(data)
    except ProtocolError as exc:
        frame = exc
    assert isinstance(frame, XLogData | Keepalive | ProtocolError)
    assert not isinstance(frame, ProtocolError) or 0 <= frame.offset <= len(data)


@pytest.mark.parametrize(
    "frame", [parse_frame(XLOGDATA), parse_frame(KEEPALIVE), StandbyStatus(LSN(), LSN(), LSN(), 0)]
)
def test_frames_are_frozen(frame: XLogData | Keepalive | StandbyStatus) -> None:
    for name in (*frame._fields, "extra"):
        with pytest.raises(AttributeError):
            setattr(frame, name, None)


class TestWireTime:
    def test_starts_with_the_year_2000(self) -> None:
        assert to_datetime(0) == POSTGRES_EPOCH == datetime(2000, 1, 1, tzinfo=UTC)
        assert to_wire_time(POSTGRES_EPOCH.timestamp()) == 0

    def test_counts_microseconds(self) -> None:
        moment = to_datetime(1_000_001)
        assert moment == datetime(2000, 1, 1, 0, 0, 1, 1, tzinfo=UTC)
        assert moment.tzinfo is UTC
        assert to_wire_time(POSTGRES_EPOCH.timestamp() + 1.5) == 1_500_000

    def test_may_lie_before_2000(self) -> None:
        assert to_datetime(-1_000_000) == datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)

    @given(
        st.datetimes(
            to_datetime(-30 * YEAR).replace(tzinfo=None),
            to_datetime(200 * YEAR).replace(tzinfo=None),
            timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))]),
        )
    )
    def test_round_trip_to_the_clocks_precision(self, moment: datetime) -> None:
        assert abs(to_datetime(to_wire_time(moment.timestamp())) - moment) <= timedelta(microseconds=1)

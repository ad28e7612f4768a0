"""A sample of each kind of message: its bytes, written out by hand, and what they say."""

from typing import Final

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
    Truncate,
    Type,
    Update,
)


def wire(*pieces: bytes) -> bytes:
    """Join the fields of a message."""
    return b"".join(pieces)


SAMPLES: Final[dict[str, tuple[bytes, Message]]] = {
    "begin": (
        wire(b"B", b"\x00\x00\x00\x16\xb3\x74\xd8\x48", b"\x00\x02\xc0\x1d\x00\x00\x00\x07", b"\xff\xff\xff\xfe"),
        Begin(LSN.parse("16/B374D848"), 0x2C01D_0000_0007, 4_294_967_294),
    ),
    "commit": (
        wire(
            b"C",
            b"\x00",
            b"\x00\x00\x00\x16\xb3\x74\xd8\x48",
            b"\x00\x00\x00\x16\xb3\x74\xd8\x78",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        Commit(LSN.parse("16/B374D848"), LSN.parse("16/B374D878"), -1),
    ),
    "origin": (
        wire(b"O", b"\x00\x00\x00\x00\x00\x00\x00\x2a", b"node \xc3\xa9\x00"),
        Origin(LSN(42), "node é"),
    ),
    "relation": (
        wire(
            b"R",
            b"\x00\x00\x40\x01",
            b"shop\x00",
            b"shop_order\x00",
            b"d",
            b"\x00\x02",
            b"\x01id\x00",
            b"\x00\x00\x00\x14",
            b"\xff\xff\xff\xff",
            b"\x00pr\xc3\xa9cis\x00",
            b"\x00\x00\x06\xa4",
            b"\x00\x0a\x00\x06",
        ),
        Relation(
            0x4001, "shop", "shop_order", "d", (Column(True, "id", 20, -1), Column(False, "précis", 1700, 0xA0006))
        ),
    ),
    "relation of pg_catalog": (
        wire(b"R", b"\x00\x00\x00\x01", b"\x00", b"pg_class\x00", b"n", b"\x00\x00"),
        Relation(1, "pg_catalog", "pg_class", "n", ()),
    ),
    "relation with a full identity": (
        wire(
            b"R",
            b"\x00\x00\x00\x01",
            b"public\x00",
            b"t\x00",
            b"f",
            b"\x00\x01",
            b"\x01a\x00",
            b"\x00\x00\x00\x19",
            b"\xff\xff\xff\xff",
        ),
        Relation(1, "public", "t", "f", (Column(True, "a", 25, -1),)),
    ),
    "type": (
        wire(b"Y", b"\x00\x00\x40\x10", b"public\x00", b"mood\x00"),
        Type(0x4010, "public", "mood"),
    ),
    "type of pg_catalog": (
        wire(b"Y", b"\x00\x00\x40\x11", b"\x00", b"int4\x00"),
        Type(0x4011, "pg_catalog", "int4"),
    ),
    "insert": (
        wire(b"I", b"\x00\x00\x40\x01", b"N", b"\x00\x03", b"t\x00\x00\x00\x02", b"17", b"n", b"t\x00\x00\x00\x00"),
        Insert(0x4001, [b"17", None, b""]),
    ),
    "insert without columns": (
        wire(b"I", b"\x00\x00\x40\x01", b"N", b"\x00\x00"),
        Insert(0x4001, []),
    ),
    "update without an old row": (
        wire(b"U", b"\x00\x00\x40\x01", b"N", b"\x00\x03", b"t\x00\x00\x00\x01", b"1", b"u", b"n"),
        Update(0x4001, [b"1", UNCHANGED, None]),
    ),
    "update with the old key": (
        wire(
            b"U",
            b"\x00\x00\x40\x01",
            b"K",
            b"\x00\x02",
            b"t\x00\x00\x00\x01",
            b"1",
            b"n",
            b"N",
            b"\x00\x02",
            b"t\x00\x00\x00\x01",
            b"2",
            b"u",
        ),
        KeyUpdate(0x4001, [b"1", None], [b"2", UNCHANGED]),
    ),
    "update with the full old row": (
        wire(
            b"U",
            b"\x00\x00\x40\x01",
            b"O",
            b"\x00\x02",
            b"t\x00\x00\x00\x01",
            b"1",
            b"n",
            b"N",
            b"\x00\x02",
            b"t\x00\x00\x00\x01",
            b"1",
            b"t\x00\x00\x00\x00",
        ),
        FullUpdate(0x4001, [b"1", None], [b"1", b""]),
    ),
    "delete with the key": (
        wire(b"D", b"\x00\x00\x40\x01", b"K", b"\x00\x02", b"t\x00\x00\x00\x01", b"1", b"n"),
        KeyDelete(0x4001, [b"1", None]),
    ),
    "delete with the full row": (
        wire(
            b"D", b"\x00\x00\x40\x01", b"O", b"\x00\x02", b"t\x00\x00\x00\x01", b"1", b"t\x00\x00\x00\x04", b"N\x00tn"
        ),
        FullDelete(0x4001, [b"1", b"N\x00tn"]),
    ),
    "truncate": (
        wire(b"T", b"\x00\x00\x00\x01", b"\x00", b"\x00\x00\x40\x01"),
        Truncate((0x4001,), cascade=False, restart_identity=False),
    ),
    "truncate of two, cascading and restarting": (
        wire(b"T", b"\x00\x00\x00\x02", b"\x03", b"\x00\x00\x40\x01", b"\x00\x00\x40\x02"),
        Truncate((0x4001, 0x4002), cascade=True, restart_identity=True),
    ),
    "truncate that restarts": (
        wire(b"T", b"\x00\x00\x00\x01", b"\x02", b"\x00\x00\x40\x01"),
        Truncate((0x4001,), cascade=False, restart_identity=True),
    ),
    "transactional message": (
        wire(b"M", b"\x01", b"\x00\x00\x00\x16\xb3\x74\xd8\x48", b"audit\x00", b"\x00\x00\x00\x03", b"a\x00\xff"),
        LogicalMessage(True, LSN.parse("16/B374D848"), "audit", b"a\x00\xff"),
    ),
    "message outside a transaction": (
        wire(b"M", b"\x00", b"\x00\x00\x00\x00\x00\x00\x00\x01", b"\x00", b"\x00\x00\x00\x00"),
        LogicalMessage(False, LSN(1), "", b""),
    ),
}

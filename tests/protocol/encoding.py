"""An encoder of pgoutput messages, written from the manual's page and not from our decoder.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from collections.abc import Sequence

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
    Value,
)


def encode(message: Message) -> bytes:
    """Write a message as the server would."""
    match message:
        case Begin():
            return b"B" + u64(message.final_lsn) + i64(message.committed_at) + u32(message.xid)
        case Commit():
            positions = u64(message.commit_lsn) + u64(message.end_lsn)
            return b"C" + u8(0) + positions + i64(message.committed_at)
        case Origin():
            return b"O" + u64(message.origin_lsn) + string(message.name)
        case Relation():
            name = wire_namespace(message.namespace) + string(message.name)
            columns = b"".join(map(column, message.columns))
            identity = message.replica_identity.encode()
            return b"R" + u32(message.relation_id) + name + identity + u16(len(message.columns)) + columns
        case Type():
            return b"Y" + u32(message.type_oid) + wire_namespace(message.namespace) + string(message.name)
        case Truncate():
            options = message.cascade * 1 + message.restart_identity * 2
            oids = b"".join(map(u32, message.relation_ids))
            return b"T" + u32(len(message.relation_ids)) + u8(options) + oids
        case LogicalMessage():
            content = u32(len(message.content)) + message.content
            return b"M" + u8(message.transactional) + u64(message.lsn) + string(message.prefix) + content
    return encode_row(message)


def encode_row(message: Insert | Update | KeyUpdate | FullUpdate | KeyDelete | FullDelete) -> bytes:
    """Write a row message."""
    oid = u32(message.relation_id)
    match message:
        case Insert():
            return b"I" + oid + b"N" + row(message.new)
        case Update():
            return b"U" + oid + b"N" + row(message.new)
        case KeyUpdate():
            return b"U" + oid + b"K" + row(message.key) + b"N" + row(message.new)
        case FullUpdate():
            return b"U" + oid + b"O" + row(message.old) + b"N" + row(message.new)
        case KeyDelete():
            return b"D" + oid + b"K" + row(message.key)
        case FullDelete():
            return b"D" + oid + b"O" + row(message.old)


def row(values: Sequence[Value]) -> bytes:
    """Write a TupleData."""
    return u16(len(values)) + b"".join(map(value, values))


def value(column_value: Value) -> bytes:
    """Write a column of a TupleData."""
    if column_value is None:
        return b"n"
    if column_value is UNCHANGED:
        return b"u"
    return b"t" + u32(len(column_value)) + column_value


def column(described: Column) -> bytes:
    """Write a column of a Relation."""
    return u8(described.is_key) + string(described.name) + u32(described.type_oid) + i32(described.type_modifier)


def wire_namespace(namespace: str) -> bytes:
    """Write a schema: "empty string for pg_catalog"."""
    return string("" if namespace == "pg_catalog" else namespace)


def string(text: str) -> bytes:
    """Write a null-terminated string."""
    return text.encode() + b"\0"


def u8(number: int) -> bytes:
    return number.to_bytes(1)


def u16(number: int) -> bytes:
    return number.to_bytes(2)


def u32(number: int) -> bytes:
    return number.to_bytes(4)


def i32(number: int) -> bytes:
    return number.to_bytes(4, signed=True)


def u64(number: int) -> bytes:
    return number.to_bytes(8)


def i64(number: int) -> bytes:
    return number.to_bytes(8, signed=True)

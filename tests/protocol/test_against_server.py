"""What a real server writes is decoded, and is byte by byte what the encoder of these tests writes."""

import os
import secrets
from collections.abc import Iterator

import psycopg
import pytest

from django_walsignals.protocol import pgoutput
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import (
    UNCHANGED,
    Begin,
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
from tests import server
from tests.protocol.encoding import encode

pytestmark = pytest.mark.integration

BIG = b"x" * 5000
ROWS = (Insert, Update, KeyUpdate, FullUpdate, KeyDelete, FullDelete)

SET_UP = """
    CREATE SCHEMA {name};
    SET search_path = {name};
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN percent AS int CHECK (VALUE <= 100);
    CREATE TABLE by_key (id int PRIMARY KEY, text text, big text, mood mood, done percent);
    ALTER TABLE by_key ALTER COLUMN big SET STORAGE EXTERNAL;
    CREATE TABLE "In ""full"" é" (id int PRIMARY KEY, "préc ision" numeric(10, 2));
    ALTER TABLE "In ""full"" é" REPLICA IDENTITY FULL;
    CREATE TABLE child (id int PRIMARY KEY REFERENCES by_key);
    CREATE PUBLICATION {name} FOR TABLE by_key, "In ""full"" é", child;
    SELECT pg_replication_origin_create('{name}');
"""
CREATE_SLOT = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', temporary => true)"
TEAR_DOWN = """
    SELECT pg_replication_origin_drop('{name}');
    DROP PUBLICATION {name};
    DROP SCHEMA {name} CASCADE;
"""
PEEK = """
    SELECT data FROM pg_logical_slot_peek_binary_changes(
        %(name)s::text, NULL, NULL, 'proto_version', '1', 'publication_names', %(name)s::text, 'messages', 'true')
"""


class Server:
    """A session with a slot of its own, and what the slot decodes."""

    def __init__(self, connection: psycopg.Connection, name: str) -> None:
        self.connection = connection
        self.name = name

    def run(self, *statements: str) -> None:
        """Run these statements in one transaction."""
        with self.connection.transaction():
            for statement in statements:
                self.connection.execute(statement)

    def peek(self) -> list[bytes]:
        """Read what was committed since the slot was made."""
        return [data for (data,) in self.connection.execute(PEEK, {"name": self.name})]

    def decoded(self) -> list[Message]:
        """Read it, decoded."""
        return [pgoutput.decode(data) for data in self.peek()]


@pytest.fixture
def peeking() -> Iterator[Server]:
    name = f"peek_{secrets.token_hex(6)}"
    with psycopg.connect(os.environ[server.DSN], autocommit=True, client_encoding="UTF8") as connection:
        connection.execute(SET_UP.format(name=name))
        connection.execute(CREATE_SLOT, [name])
        try:
            yield Server(connection, name)
        finally:
            connection.execute("RESET ALL")
            connection.execute(TEAR_DOWN.format(name=name))


def busy(peeking: Server) -> None:
    """Cause every kind of message that proto_version 1 has."""
    peeking.run(
        f"INSERT INTO by_key VALUES (1, '', repeat('x', {len(BIG)}), 'glad', 50), (2, NULL, NULL, NULL, NULL)",
        "UPDATE by_key SET text = 'new' WHERE id = 1",
        "UPDATE by_key SET id = 3 WHERE id = 2",
        "INSERT INTO child VALUES (1)",
        'INSERT INTO "In ""full"" é" VALUES (1, 1.5)',
        'UPDATE "In ""full"" é" SET "préc ision" = NULL',
        'DELETE FROM "In ""full"" é"',
        "DELETE FROM by_key WHERE id = 3",
        "SELECT pg_logical_emit_message(true, 'préfix', '\\x00ff'::bytea)",
        "TRUNCATE by_key RESTART IDENTITY CASCADE",
    )
    peeking.run("SELECT pg_logical_emit_message(false, 'outside', '')")
    peeking.connection.execute("SELECT pg_replication_origin_session_setup(%s)", [peeking.name])
    peeking.run(
        "SELECT pg_replication_origin_xact_setup('16/B374D848', now())",
        "INSERT INTO child SELECT id FROM by_key",
        "INSERT INTO by_key (id) VALUES (9)",
    )
    peeking.connection.execute("SELECT pg_replication_origin_session_reset()")


def test_every_kind_of_message_decodes_and_encodes_to_the_servers_own_bytes(peeking: Server) -> None:
    busy(peeking)
    data = peeking.peek()
    messages = [pgoutput.decode(each) for each in data]
    assert {type(message) for message in messages} == set(Message.__args__)
    assert [encode(message) for message in messages] == data


def test_every_prefix_of_what_the_server_sent_is_refused(peeking: Server) -> None:
    busy(peeking)
    for data in peeking.peek():
        for length in {1, 2, 5, len(data) // 2, len(data) - 1} & {*range(1, len(data))}:
            with pytest.raises(pgoutput.ProtocolError):
                pgoutput.decode(data[:length])


def test_rows_say_what_was_written(peeking: Server) -> None:
    busy(peeking)
    messages = peeking.decoded()
    relations = {message.name: message for message in messages if isinstance(message, Relation)}
    by_key, in_full = (relations[name].relation_id for name in ("by_key", 'In "full" é'))
    assert [message for message in messages if isinstance(message, ROWS)] == [
        Insert(by_key, [b"1", b"", BIG, b"glad", b"50"]),
        Insert(by_key, [b"2", None, None, None, None]),
        Update(by_key, [b"1", b"new", UNCHANGED, b"glad", b"50"]),
        KeyUpdate(by_key, [b"2", None, None, None, None], [b"3", None, None, None, None]),
        Insert(relations["child"].relation_id, [b"1"]),
        Insert(in_full, [b"1", b"1.50"]),
        FullUpdate(in_full, [b"1", b"1.50"], [b"1", None]),
        FullDelete(in_full, [b"1", None]),
        KeyDelete(by_key, [b"3", None, None, None, None]),
        Insert(by_key, [b"9", None, None, None, None]),
    ]


def test_relations_and_types_say_what_a_table_is(peeking: Server) -> None:
    busy(peeking)
    messages = peeking.decoded()
    relations = {message.name: message for message in messages if isinstance(message, Relation)}
    by_key = relations["by_key"]
    assert (by_key.namespace, by_key.replica_identity) == (peeking.name, "d")
    assert [(column.is_key, column.name) for column in by_key.columns] == [
        (True, "id"),
        (False, "text"),
        (False, "big"),
        (False, "mood"),
        (False, "done"),
    ]
    in_full = relations['In "full" é']
    assert in_full.replica_identity == "f"
    assert [column.name for column in in_full.columns] == ["id", "préc ision"]
    assert all(column.is_key for column in in_full.columns)
    assert in_full.columns[1].type_modifier == (10 << 16 | 2) + 4
    types = {message.name: message.namespace for message in messages if isinstance(message, Type)}
    assert types == {"mood": peeking.name, "int4": "pg_catalog"}


def test_transactions_messages_and_truncates_say_what_happened(peeking: Server) -> None:
    before = peeking.connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    busy(peeking)
    messages = peeking.decoded()
    begins = [message for message in messages if isinstance(message, Begin)]
    commits = [message for message in messages if isinstance(message, Commit)]
    assert [begin.final_lsn for begin in begins] == [commit.commit_lsn for commit in commits]
    assert [begin.committed_at for begin in begins] == [commit.committed_at for commit in commits]
    assert before is not None
    positions = [LSN.parse(before[0]), *(lsn for commit in commits for lsn in (commit.commit_lsn, commit.end_lsn))]
    assert positions == sorted(positions)
    assert [message[0::2] + message[3:] for message in messages if isinstance(message, LogicalMessage)] == [
        (True, "préfix", b"\x00\xff"),
        (False, "outside", b""),
    ]
    outside = next(index for index, message in enumerate(messages) if message[0] is False)
    assert isinstance(messages[outside - 1], Commit) and isinstance(messages[outside + 1], Begin)
    assert [message for message in messages if isinstance(message, Origin)] == [
        Origin(LSN.parse("16/B374D848"), peeking.name)
    ]
    (truncate,) = (message for message in messages if isinstance(message, Truncate))
    relations = {message.relation_id: message.name for message in messages if isinstance(message, Relation)}
    assert {relations[oid] for oid in truncate.relation_ids} == {"by_key", "child"}
    assert (truncate.cascade, truncate.restart_identity) == (True, True)

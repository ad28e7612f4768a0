"""The commands are quoted: whatever a name holds, the server takes it as exactly that name."""

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.sql import Composable

from django_walsignals.exceptions import GapError, ReplicationError
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Insert
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import read_publication, read_slot
from django_walsignals.replication.commands import TableRef
from tests.replication.conftest import Open, Source, next_message

ORDERS = TableRef("shop", "order")
ODD = TableRef('Sch"ema', "Ta ble's")

TEXT = {
    "stream from a slot": (
        commands.start_replication("s", LSN.parse("16/B374D848"), ["p"]),
        (
            'START_REPLICATION SLOT "s" LOGICAL 16/B374D848 '
            """(proto_version '1', publication_names '"p"', messages 'true')"""
        ),
    ),
    "stream several publications of any name": (
        commands.start_replication('s"; DROP', LSN(), ['a"b', "c'd", "E, f"]),
        (
            'START_REPLICATION SLOT "s""; DROP" LOGICAL 0/0 '
            """(proto_version '1', publication_names '"a""b", "c''d", "E, f"', messages 'true')"""
        ),
    ),
    "create a temporary slot": (
        commands.create_temporary_slot('S"x'),
        """CREATE_REPLICATION_SLOT "S""x" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')""",
    ),
    "create a slot": (
        commands.create_slot('S"x', failover=False),
        """CREATE_REPLICATION_SLOT "S""x" LOGICAL pgoutput (SNAPSHOT 'nothing')""",
    ),
    "create a slot that standbys copy": (
        commands.create_slot("s", failover=True),
        """CREATE_REPLICATION_SLOT "s" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER)""",
    ),
    "drop a slot": (commands.drop_slot("it's"), "SELECT pg_drop_replication_slot('it''s')"),
    "create a publication": (
        commands.create_publication('P"ub', [ORDERS, ODD], generated_columns=False),
        (
            'CREATE PUBLICATION "P""ub" FOR TABLE ONLY "shop"."order", ONLY "Sch""ema"."Ta ble\'s" WITH '
            "(publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
        ),
    ),
    "create a publication with generated columns": (
        commands.create_publication("p", [ORDERS], generated_columns=True),
        (
            'CREATE PUBLICATION "p" FOR TABLE ONLY "shop"."order" WITH (publish = \'insert, update, delete, truncate\', '
            "publish_via_partition_root = true, publish_generated_columns = stored)"
        ),
    ),
    "set a publication's options": (
        commands.set_publication_options('P"ub', generated_columns=False),
        (
            'ALTER PUBLICATION "P""ub" SET (publish = \'insert, update, delete, truncate\', '
            "publish_via_partition_root = true)"
        ),
    ),
    "add tables": (
        commands.add_tables('P"ub', [ORDERS, ODD]),
        'ALTER PUBLICATION "P""ub" ADD TABLE ONLY "shop"."order", ONLY "Sch""ema"."Ta ble\'s"',
    ),
    "take tables out": (
        commands.drop_tables('P"ub', [ODD]),
        'ALTER PUBLICATION "P""ub" DROP TABLE ONLY "Sch""ema"."Ta ble\'s"',
    ),
    "drop a publication": (commands.drop_publication('P"ub'), 'DROP PUBLICATION IF EXISTS "P""ub"'),
    "set an identity": (
        commands.set_replica_identity_full(ODD),
        'ALTER TABLE "Sch""ema"."Ta ble\'s" REPLICA IDENTITY FULL',
    ),
}

#: What PostgreSQL takes for a name: any text of at most 63 bytes without a zero.
identifiers = (
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=63)
    .filter(lambda name: len(name.encode()) <= 63)
    .filter(lambda name: name not in ("none", "NONE"))
)
ODD_NAMES = [
    "Pub",
    'a"b',
    "it's",
    "back\\slash",
    "E'",
    "a, b",
    " lead",
    "new\nline",
    "$$",
    "%s",
    "{x}",
    "--",
    "é" * 31,
    "naïve ☃",
]


@pytest.mark.parametrize(("command", "text"), TEXT.values(), ids=TEXT)
def test_names_are_quoted(command: Composable, text: str) -> None:
    assert command.as_string(None) == text


def test_a_table_prints_as_people_write_it() -> None:
    assert str(ORDERS) == "shop.order"


@pytest.mark.integration
class TestAgainstServer:
    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_a_publication_of_an_odd_name_streams(self, source: Source, connect: Open, name: str) -> None:
        stream_through(source, connect, name)

    @given(name=identifiers)
    @example(name="\\")
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_publication_of_any_name_streams(self, source: Source, connect: Open, name: str) -> None:
        stream_through(source, connect, name)

    @given(name=identifiers.filter(lambda name: '"' not in name))
    @example(name="\\")
    @example(name="It's")
    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_slot_of_any_name_is_looked_for_under_that_name(self, source: Source, connect: Open, name: str) -> None:
        connection = connect()
        with pytest.raises(GapError) as caught:
            connection.start(commands.start_replication(name, LSN(), [source.name]), name)
        connection.close()
        cause = caught.value.__cause__
        assert isinstance(cause, psycopg.errors.UndefinedObject)
        assert cause.diag.message_primary == f'replication slot "{name}" does not exist'

    @pytest.mark.parametrize("name", ['"', 'a"b', "{source}\" LOGICAL 0/0 (proto_version '1') --"])
    def test_a_slot_name_with_a_quote_which_no_slot_has_ends_nothing_early(
        self, source: Source, connect: Open, name: str
    ) -> None:
        name = name.replace("{source}", source.name)
        with pytest.raises(ReplicationError, match="syntax error"):
            connect().start(commands.start_replication(name, LSN(), [source.name]), name)

    def test_tables_of_odd_names_are_published_and_taken_out(self, source: Source, session: psycopg.Connection) -> None:
        schema, publication = f'Sch"{source.name}', f"it's {source.name}"
        tables = [TableRef(schema, "Ta ble's"), TableRef(schema, 'per"cent %s')]
        quoted = [table.identifier.as_string() for table in tables]
        session.execute(f"CREATE SCHEMA {TableRef(schema, '').identifier.as_string().split('.')[0]}")
        for table in quoted:
            session.execute(f"CREATE TABLE {table} (id int)")
        try:
            session.execute(commands.create_publication(publication, tables[:1], generated_columns=False))
            session.execute(commands.add_tables(publication, tables[1:]))
            session.execute(commands.drop_tables(publication, tables[:1]))
            session.execute(commands.set_publication_options(publication, generated_columns=False))
            session.execute(commands.set_replica_identity_full(tables[1]))
            found = read_publication(session.cursor(), publication)
            assert found is not None
            assert [published.table for published in found.tables.values()] == tables[1:]
            assert found.via_root and found.has_every_operation and not found.all_tables
        finally:
            session.execute(commands.drop_publication(publication))
            session.execute(f"DROP SCHEMA {quoted[0].split('.')[0]} CASCADE")
        assert read_publication(session.cursor(), publication) is None

    def test_a_slot_is_made_found_and_dropped(self, session: psycopg.Connection, source: Source, connect: Open) -> None:
        name = f"{source.name}_2"
        created = connect().query(commands.create_slot(name, failover=False), "create a slot")
        found = read_slot(session.cursor(), name)
        assert found is not None
        assert (found.name, found.plugin, found.active_pid, found.lost) == (name, "pgoutput", None, "")
        assert found.database == session.info.dbname
        assert found.confirmed_flush == LSN.parse(created["consistent_point"])
        session.execute(commands.drop_slot(name))
        assert read_slot(session.cursor(), name) is None

    def test_a_temporary_slot_goes_with_its_connection(
        self, session: psycopg.Connection, source: Source, connect: Open
    ) -> None:
        name = f"{source.name}_tmp"
        connection = connect()
        start = connection.create_temporary_slot(name)
        found = read_slot(session.cursor(), name)
        assert found is not None
        assert found.confirmed_flush == start
        source.insert(1)
        connection.start(commands.start_replication(name, start, [source.name]), name)
        while not isinstance(message := next_message(connection), Insert):
            pass
        assert message.new == [b"1", b""]


def stream_through(source: Source, connect: Open, name: str) -> None:
    """Publish the source under this name, and see a row come through it."""
    source.session.execute(f"TRUNCATE {source.name}")
    table = TableRef("public", source.name)
    source.session.execute(commands.create_publication(name, [table], generated_columns=False))
    try:
        found = read_publication(source.session.cursor(), name)
        assert found is not None
        assert [published.table for published in found.tables.values()] == [table]
        connection = connect()
        slot = f"{source.name}_tmp"
        start = connection.create_temporary_slot(slot)
        source.insert(1)
        connection.start(commands.start_replication(slot, start, [name]), slot)
        while not isinstance(message := next_message(connection), Insert):
            pass
        connection.finish()
        assert message.new == [b"1", b""]
    finally:
        source.session.execute(commands.drop_publication(name))

"""A table, a publication and a slot of a test's own, beside Django; and connections that end with the test."""

import os
import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest
from hypothesis import settings
from psycopg.conninfo import conninfo_to_dict

from django_walsignals.exceptions import WalSignalsError
from django_walsignals.protocol import pgoutput
from django_walsignals.protocol.frames import XLogData
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Commit, Message
from django_walsignals.replication import commands
from django_walsignals.replication.connection import ReplicationConnection
from django_walsignals.replication.parameters import replication_parameters
from tests import server
from tests.waiting import wait_until

settings.register_profile("walsignals", deadline=None)
settings.load_profile("walsignals")

Open = Callable[..., ReplicationConnection]


class Source:
    """A published table with a slot, and an ordinary session beside it."""

    def __init__(self, session: psycopg.Connection, dsn: str) -> None:
        self.session = session
        self.dsn = dsn
        self.name = f"source_{secrets.token_hex(6)}"
        session.execute(f"CREATE TABLE {self.name} (id int PRIMARY KEY, text text)")
        session.execute(f"CREATE PUBLICATION {self.name} FOR TABLE {self.name}")
        session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.name])

    def insert(self, number: int, text: str = "") -> None:
        """Commit a row."""
        self.session.execute(f"INSERT INTO {self.name} VALUES (%s, %s)", [number, text])

    def start(self, connection: ReplicationConnection, *publications: str) -> None:
        """Stream from the slot's own position."""
        command = commands.start_replication(self.name, LSN(), publications or [self.name])
        connection.start(command, self.name)

    def walsender(self) -> int | None:
        """Look for the process that has the slot."""
        return self._slot("active_pid")

    def confirmed(self) -> LSN:
        """Read how far the slot has been confirmed."""
        return LSN.parse(self._slot("confirmed_flush_lsn::text"))

    def drop(self) -> None:
        """Remove everything; a walsender may still be on its way out."""
        wait_until(lambda: self.walsender() is None, message="somebody still has the slot")
        self.session.execute("SELECT pg_drop_replication_slot(%s)", [self.name])
        self.session.execute(f"DROP PUBLICATION IF EXISTS {self.name}")
        self.session.execute(f"DROP TABLE {self.name}")

    def _slot(self, column: str) -> object:
        query = f"SELECT {column} FROM pg_replication_slots WHERE slot_name = %s"
        row = self.session.execute(query, [self.name]).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture(scope="module")
def session() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ[server.DSN], autocommit=True) as connection:
        yield connection


@pytest.fixture
def source(session: psycopg.Connection) -> Iterator[Source]:
    made = Source(session, os.environ[server.DSN])
    yield made
    made.drop()


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Open:
    """Give a function that opens a replication connection, as to the ordinary server with these overrides."""

    def open_connection(dsn: str = "", **overrides: object) -> ReplicationConnection:
        ordinary = conninfo_to_dict(dsn or os.environ[server.DSN])
        connection = ReplicationConnection.open(replication_parameters(ordinary, overrides))
        request.addfinalizer(connection.close)
        return connection

    return open_connection


@pytest.fixture
def streaming(source: Source, connect: Open) -> ReplicationConnection:
    """Give a connection that streams from the source."""
    connection = connect()
    source.start(connection)
    return connection


def next_message(connection: ReplicationConnection) -> Message:
    """Wait for the next message, passing over keepalives."""

    def receive() -> Message | None:
        frame = connection.receive()
        return pgoutput.decode(frame.payload) if isinstance(frame, XLogData) else None

    return wait_until(receive, message="no message came")


def next_commit(connection: ReplicationConnection) -> Commit:
    """Wait for the end of a transaction."""
    while not isinstance(message := next_message(connection), Commit):
        pass
    return message


def error_of(connection: ReplicationConnection) -> WalSignalsError:
    """Wait for the error that ends the stream."""

    def receive() -> WalSignalsError | None:
        try:
            connection.receive()
        except WalSignalsError as exc:
            return exc
        return None

    return wait_until(receive, message="the stream goes on")

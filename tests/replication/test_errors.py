"""What psycopg raises becomes an error of ours that says what to do: by table, and by a server that refuses."""

from collections.abc import Iterator

import psycopg
import pytest

from django_walsignals.exceptions import (
    ConfigurationError,
    ConnectionLost,
    GapError,
    PrivilegeError,
    ReplicationError,
    SlotInUse,
    WalSignalsError,
)
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication import commands
from django_walsignals.replication.errors import translate, translated
from example_project.postgres import PostgresCluster, free_port
from tests import server
from tests.conftest import MakeCluster
from tests.replication.conftest import Open, Source, error_of
from tests.waiting import wait_until

BY_SQLSTATE = {
    "55006": (SlotInUse, "Another consumer holds it"),
    "42704": (GapError, "Nothing was created in its place"),
    "42501": (PrivilegeError, "ALTER ROLE … REPLICATION"),
    "53400": (ConfigurationError, "Raise max_replication_slots"),
    "42602": (ConfigurationError, "Set SLOT to lower-case letters"),
    "0A000": (ConfigurationError, "PostgreSQL 15 or later"),
    "57014": (ConnectionLost, "cancelled the stream"),
    "57P01": (ConnectionLost, "ended the connection"),
    "57P02": (ConnectionLost, "crashed"),
    "57P03": (ConnectionLost, "starting up or shutting down"),
    # What nobody foresaw stops the consumer: it may be anything.
    "55000": (ReplicationError, ""),
    "XX000": (ReplicationError, ""),
    "58P01": (ReplicationError, ""),
    "42601": (ReplicationError, ""),
}

BY_TEXT = {
    "FATAL:  must be superuser or replication role to start walsender": (PrivilegeError, "ALTER ROLE"),
    "FATAL:  permission denied to start WAL sender\nDETAIL:  Only roles with …": (PrivilegeError, "pg_hba.conf"),
    'FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d", no encryption': (
        ConfigurationError,
        "needs a line for this database",
    ),
    'FATAL:  password authentication failed for user "u"': (ConfigurationError, "Check DATABASES"),
    "fe_sendauth: no password supplied": (ConfigurationError, "Check DATABASES"),
    'FATAL:  role "u" does not exist': (ConfigurationError, "Check DATABASES"),
    'FATAL:  database "d" does not exist': (ConfigurationError, "Check DATABASES"),
    "FATAL:  unsupported startup parameter: replication": (ConfigurationError, "That is PgBouncer"),
    "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 0)": (
        ConnectionLost,
        "Where it stays so, raise max_wal_senders",
    ),
    "FATAL:  the database system is starting up": (ConnectionLost, ""),
    "FATAL:  the database system is in recovery mode": (ConnectionLost, ""),
    "FATAL:  the database system is shutting down": (ConnectionLost, ""),
    "connection to server failed: Connection refused": (ConnectionLost, ""),
    "FATAL:  sorry, too many clients already": (ConnectionLost, ""),
    "consuming input failed: server closed the connection unexpectedly": (ConnectionLost, ""),
}


@pytest.mark.parametrize("sqlstate", BY_SQLSTATE)
def test_a_server_error_is_told_by_its_sqlstate(sqlstate: str) -> None:
    kind, advice = BY_SQLSTATE[sqlstate]
    error = translate(psycopg.errors.lookup(sqlstate)("in the server's words"), "do this")
    assert type(error) is kind
    assert str(error).startswith("Could not do this: in the server's words.")
    assert advice in str(error)


@pytest.mark.parametrize("text", BY_TEXT)
def test_a_refused_connection_is_told_by_its_text(text: str) -> None:
    kind, advice = BY_TEXT[text]
    error = translate(psycopg.OperationalError(text), "connect")
    assert type(error) is kind
    assert str(error).startswith(f"Could not connect: {' '.join(text.split())}.")
    assert advice in str(error)


def test_an_error_of_psycopg_that_is_no_lost_connection_stops() -> None:
    assert type(translate(psycopg.ProgrammingError("the connection is wrong"), "connect")) is ReplicationError


def test_the_message_is_one_line() -> None:
    error = translate(psycopg.OperationalError("one\n\ttwo"), "connect")
    assert str(error) == "Could not connect: one two."


def test_what_psycopg_raises_inside_is_translated_and_kept_as_the_cause() -> None:
    lost = psycopg.OperationalError("gone")
    with pytest.raises(ConnectionLost, match=r"Could not read: gone\.") as caught, translated("read"):
        raise lost
    assert caught.value.__cause__ is lost


def test_what_is_not_psycopgs_passes() -> None:
    with pytest.raises(KeyError), translated("read"):
        raise KeyError("ours")


@pytest.mark.parametrize(
    ("kind", "code"),
    [(SlotInUse, 3), (GapError, 4), (ConfigurationError, 1), (PrivilegeError, 1), (ConnectionLost, 1)],
)
def test_a_command_exits_as_documented(kind: type[WalSignalsError], code: int) -> None:
    assert kind.exit_code == code


@pytest.mark.integration
class TestServerRefuses:
    def test_a_missing_slot(self, source: Source, connect: Open) -> None:
        with pytest.raises(GapError, match='replication slot "gone" does not exist'):
            connect().start(commands.start_replication("gone", LSN(), [source.name]), "gone")

    def test_a_slot_name_with_capitals_as_a_missing_slot(self, source: Source, connect: Open) -> None:
        with pytest.raises(GapError, match=f'replication slot "{source.name.upper()}" does not exist'):
            connect().start(commands.start_replication(source.name.upper(), LSN(), [source.name]), "capitals")

    def test_to_make_a_slot_with_capitals(self, connect: Open) -> None:
        with pytest.raises(ConfigurationError, match=r"invalid character.* Set SLOT to lower-case letters"):
            connect().create_temporary_slot("Capitals")

    def test_a_slot_in_use(self, source: Source, connect: Open) -> None:
        source.start(connect())
        with pytest.raises(SlotInUse, match=r"is active for PID \d+"):
            source.start(connect())

    def test_a_publication_that_is_not_there(self, source: Source, connect: Open) -> None:
        connection = connect()
        source.start(connection, "gone")
        source.insert(1)
        error = error_of(connection)
        assert type(error) is GapError
        assert "gone" in str(error)

    def test_a_role_without_the_right(self, session: psycopg.Connection, connect: Open) -> None:
        session.execute("CREATE ROLE walsignals_plain LOGIN")
        try:
            with pytest.raises(PrivilegeError, match="ALTER ROLE … REPLICATION"):
                connect(user="walsignals_plain")
        finally:
            session.execute("DROP ROLE walsignals_plain")

    def test_an_unknown_database(self, connect: Open) -> None:
        with pytest.raises(ConfigurationError, match=r'database "nowhere" does not exist.*Check DATABASES'):
            connect(dbname="nowhere")

    def test_an_unknown_role(self, connect: Open) -> None:
        with pytest.raises(ConfigurationError, match=r'role "nobody_here" does not exist.*Check DATABASES'):
            connect(user="nobody_here")

    def test_a_wrong_port(self, connect: Open) -> None:
        with pytest.raises(ConnectionLost, match="Connection refused"):
            connect(host="127.0.0.1", port=free_port())

    def test_an_option_that_libpq_does_not_know(self, connect: Open) -> None:
        with pytest.raises(ReplicationError, match='invalid connection option "hots"') as caught:
            connect(hots="localhost")
        assert type(caught.value) is ReplicationError

    def test_a_setting_that_the_server_does_not_know(self, connect: Open) -> None:
        with pytest.raises(WalSignalsError, match="wal_sender_timeuot"):
            connect(options="-c wal_sender_timeuot=1")

    def test_a_second_command_on_a_stream(self, source: Source, connect: Open) -> None:
        connection = connect()
        source.start(connection)
        with pytest.raises(ReplicationError, match="identify the server"):
            connection.identify_system()


HBA = """
local all postgres trust
host all walter 127.0.0.1/32 scram-sha-256
"""


@pytest.fixture(scope="class")
def strict() -> Iterator[PostgresCluster]:
    """Give a server that asks for passwords, and has one walsender and one slot."""
    cluster = server.private_cluster(server.temporary_home(), max_wal_senders="1", max_replication_slots="1")
    cluster.start()
    try:
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE ROLE walter LOGIN REPLICATION PASSWORD 'right'")
            connection.execute("CREATE ROLE other LOGIN REPLICATION PASSWORD 'right'")
        (cluster.data / "pg_hba.conf").write_text(HBA)
        cluster.restart()
        yield cluster
    finally:
        cluster.destroy()


@pytest.mark.integration
class TestStrictServer:
    @pytest.fixture(autouse=True)
    def no_walsender_yet(self, strict: PostgresCluster) -> None:
        """Wait for those of the tests before: it is the server's only one."""
        with psycopg.connect(strict.dsn(), autocommit=True) as session:
            walsenders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
            wait_until(lambda: session.execute(walsenders).fetchone() == (0,))

    def test_the_right_password(self, strict: PostgresCluster, connect: Open) -> None:
        connection = connect(strict.dsn(host="127.0.0.1"), user="walter", password="right")
        assert connection.identify_system().database == "postgres"

    def test_a_wrong_password(self, strict: PostgresCluster, connect: Open) -> None:
        with pytest.raises(ConfigurationError, match=r"password authentication failed.*Check DATABASES"):
            connect(strict.dsn(host="127.0.0.1"), user="walter", password="wrong")

    def test_no_password(self, strict: PostgresCluster, connect: Open) -> None:
        with pytest.raises(ConfigurationError, match=r"no password supplied.*Check DATABASES"):
            connect(strict.dsn(host="127.0.0.1"), user="walter")

    def test_no_way_in(self, strict: PostgresCluster, connect: Open) -> None:
        with pytest.raises(ConfigurationError, match=r"no pg_hba.conf entry.*needs a line for this database"):
            connect(strict.dsn(host="127.0.0.1"), user="other", password="right")

    def test_no_walsender_left(self, strict: PostgresCluster, connect: Open) -> None:
        connect(strict.dsn()).identify_system()
        with pytest.raises(ConnectionLost, match="raise max_wal_senders"):
            connect(strict.dsn())

    def test_no_slot_left(self, strict: PostgresCluster, connect: Open) -> None:
        connection = connect(strict.dsn())
        connection.create_temporary_slot("first")
        with pytest.raises(ConfigurationError, match=r"all replication slots are in use.*Raise max_replication_slots"):
            connection.create_temporary_slot("second")


@pytest.mark.integration
def test_a_server_without_logical_wal_is_named_as_such(make_cluster: MakeCluster, connect: Open) -> None:
    private = make_cluster(wal_level="replica")
    with pytest.raises(ReplicationError, match=r"logical decoding requires .?wal_level"):
        connect(private.dsn()).create_temporary_slot("s")


@pytest.mark.integration
def test_a_server_that_is_down_may_come_back(make_cluster: MakeCluster, connect: Open) -> None:
    private = make_cluster()
    private.stop()
    with pytest.raises(ConnectionLost, match="Is the server running"):
        connect(private.dsn())

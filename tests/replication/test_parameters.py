"""The parameters of a replication connection: what is pinned, what may be overridden, and what a session then has."""

import shlex
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL

from django_walsignals.replication.connection import ReplicationConnection
from django_walsignals.replication.parameters import replication_parameters
from tests.replication.conftest import Open

#: What the text of a value depends on.
PINNED = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
}

OTHERWISE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "0",
    "bytea_output": "escape",
    "timezone": "Europe/Berlin",
    "client_encoding": "LATIN1",
}


def switches(parameters: dict[str, Any]) -> dict[str, str]:
    """Read the options as the server does: a later switch wins."""
    words = shlex.split(parameters["options"])
    assert words[0::2] == ["-c"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def setting(connection: ReplicationConnection, name: str) -> str:
    query = SQL("SELECT current_setting({}) AS value").format(name)
    return str(connection.query(query, "read a setting")["value"])


def values(connection: ReplicationConnection) -> dict[str, str]:
    return {name: setting(connection, name).split(",")[0] for name in PINNED}


class TestMerging:
    def test_it_is_a_logical_replication_connection_whatever_is_asked_for(self) -> None:
        parameters = replication_parameters({"replication": "true"}, {"replication": "false"})
        assert parameters["replication"] == "database"

    def test_keys_that_libpq_does_not_know_do_not_leak(self) -> None:
        ordinary = {
            "dbname": "shop",
            "user": "app",
            "passfile": "/secret",
            "pool": True,
            "cursor_factory": psycopg.ClientCursor,
            "context": None,
            "prepare_threshold": None,
            "server_side_binding": True,
            "isolation_level": 2,
        }
        parameters = replication_parameters(ordinary, {})
        make_conninfo(**parameters)
        assert {key: parameters[key] for key in ("dbname", "user", "passfile")} == {
            "dbname": "shop",
            "user": "app",
            "passfile": "/secret",
        }

    def test_what_is_none_is_left_to_libpq(self) -> None:
        assert "host" not in replication_parameters({"host": None}, {})

    def test_overrides_win_over_the_ordinary_connections_parameters(self) -> None:
        ordinary = {"host": "pgbouncer", "port": "6432", "user": "app", "password": "a", "dbname": "shop"}
        parameters = replication_parameters(ordinary, {"host": "db", "port": 5432, "user": "replicator"})
        assert [parameters[key] for key in ("host", "port", "user", "password", "dbname")] == [
            "db",
            5432,
            "replicator",
            "a",
            "shop",
        ]

    def test_both_sides_notice_a_dead_peer(self) -> None:
        parameters = replication_parameters({}, {})
        assert {key: int(parameters[key]) for key in parameters if key.startswith("keepalives")} == {
            "keepalives": 1,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        assert int(parameters["tcp_user_timeout"]) == 60_000
        servers_side = {key: value for key, value in switches(parameters).items() if key.startswith("tcp_keepalives")}
        assert {key: int(value) for key, value in servers_side.items()} == {
            "tcp_keepalives_idle": 30,
            "tcp_keepalives_interval": 10,
            "tcp_keepalives_count": 3,
        }

    @pytest.mark.parametrize("place", ["ordinary", "overrides"])
    @pytest.mark.parametrize("name", ["keepalives_idle", "connect_timeout", "application_name"])
    def test_the_clients_side_is_only_a_default(self, place: str, name: str) -> None:
        given = {"ordinary": {}, "overrides": {}, place: {name: "7"}}
        assert replication_parameters(given["ordinary"], given["overrides"])[name] == "7"

    @pytest.mark.parametrize("place", ["ordinary", "overrides"])
    def test_the_servers_side_is_only_a_default(self, place: str) -> None:
        given = {"ordinary": {}, "overrides": {}, place: {"options": "-c wal_sender_timeout=1500"}}
        assert switches(replication_parameters(**given))["wal_sender_timeout"] == "1500"

    def test_options_of_the_overrides_come_after_those_of_the_ordinary_connection(self) -> None:
        ordinary = {"options": "-c wal_sender_timeout=1 -c search_path=shop"}
        found = switches(replication_parameters(ordinary, {"options": "-c wal_sender_timeout=2"}))
        assert (found["wal_sender_timeout"], found["search_path"]) == ("2", "shop")

    def test_nothing_given_is_changed(self) -> None:
        ordinary, overrides = {"options": "-c a=b", "client_encoding": "UTF8"}, {"options": "-c c=d"}
        replication_parameters(ordinary, overrides)
        assert (ordinary, overrides) == ({"options": "-c a=b", "client_encoding": "UTF8"}, {"options": "-c c=d"})


@pytest.mark.integration
class TestSession:
    def test_values_are_written_as_pinned(self, connect: Open) -> None:
        assert values(connect()) == PINNED

    @pytest.mark.parametrize("name", OTHERWISE)
    def test_the_users_options_do_not_move_a_pin(self, connect: Open, name: str) -> None:
        value = OTHERWISE[name].replace(" ", "\\ ")
        assert values(connect(options=f"-c {name}={value}")) == PINNED

    def test_a_client_encoding_asked_for_does_not_move_the_pin(self, connect: Open) -> None:
        assert values(connect(client_encoding="LATIN1")) == PINNED

    def test_the_roles_settings_do_not_move_a_pin(self, connect: Open, session: psycopg.Connection) -> None:
        session.execute("CREATE ROLE walsignals_odd REPLICATION LOGIN")
        try:
            for name, value in OTHERWISE.items():
                session.execute(SQL("ALTER ROLE walsignals_odd SET {} = {}").format(SQL(name), value))  # type: ignore[arg-type]
            connection = connect(user="walsignals_odd")
            assert values(connection) == PINNED
            connection.close()
        finally:
            session.execute("DROP ROLE walsignals_odd")

    @pytest.mark.parametrize(
        ("variable", "value"), [("PGDATESTYLE", "SQL, DMY"), ("PGTZ", "Europe/Berlin"), ("PGCLIENTENCODING", "LATIN1")]
    )
    def test_libpqs_environment_does_not_move_a_pin(
        self, connect: Open, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        assert values(connect()) == PINNED

    def test_the_server_side_is_set(self, connect: Open) -> None:
        connection = connect(host="127.0.0.1")
        assert setting(connection, "tcp_keepalives_idle") == "30"
        assert setting(connection, "application_name") == "django-walsignals"

    @pytest.mark.parametrize(
        ("options", "seconds"),
        [("", 30.0), ("-c wal_sender_timeout=1500", 1.5), ("-c wal_sender_timeout=2min", 120.0)],
    )
    def test_the_servers_patience_is_known(self, connect: Open, options: str, seconds: float) -> None:
        assert connect(options=options).wal_sender_timeout() == seconds

    def test_a_server_without_a_timeout_is_told_apart(self, connect: Open) -> None:
        assert connect(options="-c wal_sender_timeout=0").wal_sender_timeout() is None

"""What a role, a database or the project sets for its sessions does not change a value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection

from tests.binding import models as m
from tests.binding.comparing import assert_as_orm
from tests.binding.conftest import MakeTables, run_sql
from tests.streams import Stream

pytestmark = pytest.mark.integration

INSERT = """
    INSERT INTO binding_core (moment, date, time, duration, float, "binary", json, text, decimal, "integer")
    VALUES ('2024-06-05 07:08:09.5+02', '2024-06-05', '07:08', '1 year -2 days 03:04:05', 0.1::float8 + 0.2,
            '\\x00ff5c', '{"a": 0.1}', 'x', 1.50, -7)
"""
INSERT_RANGES = """
    INSERT INTO binding_postgres (dates, moments, date_range, moment_range)
    VALUES ('{2024-06-05}', '{2024-06-05 07:08:09+02}', '[2024-06-05,2024-07-08)', '[2024-06-05 07:08:09+02,)')
"""


@pytest.fixture
def role_setting(undo: Callable[[str], None]) -> Callable[[str, str], None]:
    """Return a function that sets something for each session to come of our role in our database."""

    def set_for_role(name: str, value: str) -> None:
        run_sql(f"ALTER ROLE CURRENT_USER IN DATABASE {database()} SET {name} = {value}")
        connection.close()

    def database() -> str:
        return connection.ops.quote_name(connection.settings_dict["NAME"])

    undo("ALTER ROLE CURRENT_USER RESET ALL")
    undo(f"ALTER ROLE CURRENT_USER IN DATABASE {database()} RESET ALL")
    return set_for_role


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("datestyle", "'SQL, DMY'"),
        ("datestyle", "'Postgres, MDY'"),
        ("datestyle", "'German, DMY'"),
        ("datestyle", "'ISO, DMY'"),
        ("intervalstyle", "'iso_8601'"),
        ("intervalstyle", "'sql_standard'"),
        ("extra_float_digits", "'-3'"),
        ("bytea_output", "'escape'"),
        ("search_path", "pg_catalog, public"),
        ("default_transaction_isolation", "'serializable'"),
        ("statement_timeout", "'1s'"),
    ],
)
def test_a_roles_setting_changes_no_value(
    stream: Stream, tables: MakeTables, role_setting: Callable[[str, str], None], name: str, value: str
) -> None:
    tables(m.Target, m.CoreFields, m.PostgresFields)
    stream.listen(m.CoreFields, m.PostgresFields)
    stream.set_up()
    run_sql(INSERT)
    run_sql(INSERT_RANGES)
    expected = [m.CoreFields.objects.get(), m.PostgresFields.objects.get()]
    role_setting(name, value)
    assert run_sql(f"SHOW {name}") == [(value.strip("'"),)], "in force for new sessions"
    changes = stream.consume()
    assert [change.unknown_fields for change in changes] == [frozenset()] * 2
    for change, row in zip(changes, expected, strict=True):
        assert_as_orm(change.instance, row)


def test_the_consumers_own_session_keeps_what_the_role_has_set(
    stream: Stream, tables: MakeTables, role_setting: Callable[[str, str], None]
) -> None:
    """A receiver's queries see the settings that the application's other queries see."""
    seen = []
    tables(m.Target, m.CoreFields)
    stream.listen(m.CoreFields, when=lambda change: seen.append(run_sql("SHOW bytea_output")[0][0]) or True)
    stream.set_up()
    m.CoreFields.objects.create()
    role_setting("bytea_output", "'escape'")
    stream.consume()
    assert seen == ["escape"]

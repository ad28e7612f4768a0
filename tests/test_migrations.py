"""The migrations: complete, reversible, and no more than a table."""

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.special import RunPython, RunSQL


def operations() -> list[Operation]:
    loader = MigrationLoader(None)
    ours = [migration for (app, _), migration in loader.disk_migrations.items() if app == "walsignals"]
    return [operation for migration in ours for operation in migration.operations]


@pytest.mark.integration
@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "walsignals", check=True, dry_run=True)


def test_nothing_but_tables_is_made() -> None:
    """A slot can't be made in a transaction that wrote, and outlives one that is rolled back."""
    found = operations()
    assert found
    assert [operation for operation in found if isinstance(operation, RunSQL | RunPython)] == []


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
def test_migrating_back_and_forth_leaves_what_was_there() -> None:
    before = tables()
    assert before
    try:
        call_command("migrate", "walsignals", "zero", verbosity=0)
        assert tables() == set()
    finally:
        call_command("migrate", "walsignals", verbosity=0)
    assert tables() == before


def tables() -> set[str]:
    return {name for name in connection.introspection.table_names() if name.startswith("walsignals_")}

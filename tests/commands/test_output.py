"""Every command ends with one line where its output can't be written, and where a table is missing or forbidden."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.db import DatabaseError, ProgrammingError

from django_walsignals.management.base import database_error
from tests.processes import ROOT, environment, run_manage

FULL = Path("/dev/full")


@pytest.mark.integration
@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("command", [["walstatus"], ["walreplay", "--list"]])
@pytest.mark.django_db
def test_output_that_can_not_be_written(command: list[str]) -> None:
    with FULL.open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "tests.manage", *command],
            env=environment(),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.stderr == "CommandError: Can't write to standard output: No space left on device.\n"
    assert result.returncode == 1


@pytest.mark.integration
@pytest.mark.django_db
def test_status_of_another_engine() -> None:
    process = run_manage("walstatus", TEST_SQLITE="1", TEST_WALSIGNALS='{"default": {"DATABASE": "elsewhere"}}')
    assert "Database 'elsewhere' is sqlite: only PostgreSQL has a WAL to read." in process.stdout.text
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("cause", "text", "said"),
    [
        (
            psycopg.errors.UndefinedTable,
            "relation x does not exist\nLINE 1: …",
            "x does not exist. Run: manage.py migrate",
        ),
        (psycopg.errors.InsufficientPrivilege, "permission denied for x", "Run as a role that may: manage.py walsetup"),
    ],
)
def test_what_the_database_refused_says_what_to_do(cause: type[psycopg.Error], text: str, said: str) -> None:
    error: DatabaseError = ProgrammingError(text)
    error.__cause__ = cause(text)
    assert said in str(database_error(error))
    assert "\n" not in str(database_error(error))

"""``walconsume`` and the checks of its database: what would fail later stops it, what endangers it is logged."""

import logging
from collections.abc import Iterator

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from psycopg.conninfo import make_conninfo

from django_walsignals.checks.starting import check_before_start
from django_walsignals.conf import get_stream
from django_walsignals.models import Checkpoint
from tests import server
from tests.processes import ManagedProcess, database_dsn
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def notes(stream: Stream) -> Stream:
    """Give a stream of notes that was set up."""
    stream.configure(MODELS=["testapp.Note"])
    stream.set_up()
    return stream


@pytest.fixture
def all_tables(notes: Stream) -> Stream:
    """Give one whose publication, made by somebody, is of all tables."""
    publication = f'"Pub ""{notes.name}"""'
    execute(
        f"DROP PUBLICATION {publication}",
        f"CREATE PUBLICATION {publication} FOR ALL TABLES WITH (publish_via_partition_root = true)",
    )
    call_command("walconsume", until_lsn="now", accept_gap=True, stdout=notes.output)
    return notes


@pytest.fixture
def role(notes: Stream) -> Iterator[str]:
    """Give a role that may do all that a consumer does, but write our tables."""
    name = f"{notes.name}_role"
    execute(
        f"CREATE ROLE {name} LOGIN REPLICATION",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT INSERT ON ledger_effect TO {name}",
    )
    yield name
    execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def run_as(role: str, stream: Stream, *arguments: str) -> ManagedProcess:
    with stream.process(
        "--until-lsn", "now", *arguments, **{server.DSN: make_conninfo(database_dsn(), user=role)}
    ) as it:
        it.wait()
        return it


class TestMissingRight:
    """A first start would make a slot, which holds back log, and then fail to write its checkpoint."""

    @pytest.fixture
    def first(self, notes: Stream, role: str) -> str:
        execute(f"SELECT pg_drop_replication_slot('{notes.name}')")
        Checkpoint.objects.all().delete()
        return role

    def test_stops_the_start_with_a_line_that_names_the_grant(self, notes: Stream, first: str) -> None:
        process = run_as(first, notes)
        assert process.returncode == 1
        assert process.stderr.text == (
            f"CommandError: Role {first} lacks INSERT, UPDATE on walsignals_checkpoint: stream 'default' can't keep its "
            f'checkpoint. Run: GRANT SELECT, INSERT, UPDATE ON "walsignals_checkpoint" TO "{first}"; (walsignals.W023)\n'
        )
        assert notes.slot() is None

    def test_is_left_to_the_server_by_skip_checks(self, notes: Stream, first: str) -> None:
        process = run_as(first, notes, "--skip-checks")
        assert process.returncode == 1
        assert "The database refused: permission denied for table walsignals_checkpoint" in process.stderr.text
        assert notes.slot() is not None

    def test_is_mended_by_the_grant(self, notes: Stream, first: str) -> None:
        execute(f'GRANT SELECT, INSERT, UPDATE ON "walsignals_checkpoint" TO "{first}";')
        process = run_as(first, notes)
        assert process.returncode == 0, process
        assert "WARNING" in process.stderr.text
        assert f"Role {first} lacks INSERT, UPDATE on walsignals_deadletter" in process.stderr.text
        execute(f'GRANT SELECT, INSERT, UPDATE ON "walsignals_deadletter" TO "{first}";')
        assert run_as(first, notes).stderr.text == ""


class TestDanger:
    """It is logged as a warning, and the stream runs."""

    def run(self, stream: Stream, *arguments: str) -> ManagedProcess:
        with stream.process("--until-lsn", "now", *arguments) as process:
            process.succeed()
            return process

    def test_is_logged_and_the_stream_runs(self, all_tables: Stream) -> None:
        Note.objects.create(text="a")
        process = self.run(all_tables)
        (line,) = process.stderr.text.splitlines()
        assert "WARNING django_walsignals.checks.starting: Publication" in line
        assert line.endswith("(walsignals.W017)")
        assert "stopped: 1 delivered" in process.stdout.text

    @pytest.mark.parametrize("arguments", [("--skip-checks",), ("--temporary",), ("-v", "0")])
    def test_is_not_said_where_nobody_wants_to_hear_or_it_does_not_matter(
        self, all_tables: Stream, arguments: tuple[str, ...]
    ) -> None:
        assert self.run(all_tables, *arguments).stderr.text == ""

    def test_is_passed_over_where_the_project_silences_it(
        self, all_tables: Stream, settings: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
    ) -> None:
        all_tables.consume(skip_checks=False)
        assert "(walsignals.W017)" in caplog.text
        caplog.clear()
        settings.SILENCED_SYSTEM_CHECKS = ["walsignals.W017"]
        all_tables.consume(skip_checks=False)
        assert "walsignals.W017" not in caplog.text


def test_advice_for_the_server_is_for_those_who_ask(notes: Stream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "django_walsignals.checks"):
        check_before_start(get_stream())
    (record,) = caplog.records
    assert (record.levelname, record.getMessage().endswith("(walsignals.W016)")) == ("INFO", True)


def test_what_the_start_mends_or_refuses_by_itself_is_left_to_it(
    notes: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    execute(f'DROP PUBLICATION "Pub ""{notes.name}"""', f"SELECT pg_drop_replication_slot('{notes.name}')")
    check_before_start(get_stream())
    assert caplog.text == ""
    with pytest.raises(CommandError, match="was dropped") as failure:
        notes.consume(skip_checks=False)
    assert failure.value.returncode == 4


def test_the_start_asks_three_questions_more(notes: Stream) -> None:
    with CaptureQueriesContext(connection) as queries:
        check_before_start(get_stream())
    assert len(queries) == 3

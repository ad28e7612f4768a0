"""The pytest plugin, in projects of its own: run as a user's pytest would, in a process of its own."""

import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import psycopg
import pytest

from tests.server import settle

REPOSITORY = Path(__file__).parents[2]

#: Whether pytest finds the plugin by itself, as it does for users, or the package is only on the path.
IS_INSTALLED = any(point.name == "walsignals" for point in entry_points(group="pytest11"))

#: One for each process of this run; with capitals, which a slot's name can't have.
DATABASE = f"test_plugin_{os.getpid()}_DB"

SETTINGS = f"""
    from tests.server import database, settle

    SECRET_KEY = "x"
    USE_TZ = True
    DATABASES = {{"default": {{**database(settle()), "TEST": {{"NAME": "{DATABASE}"}}}}}}
    INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_walsignals"]
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
RECEIVERS = """
    import pytest
    from django.contrib.auth.models import Group

    from django_walsignals import on_change

    HEARD = []

    @pytest.fixture(autouse=True, scope="session")
    def receivers():
        on_change(Group)(lambda change: HEARD.append(change.instance.name))
"""
TESTS = """
    import pytest
    from django.contrib.auth.models import Group
    from django.db import connection
    from conftest import HEARD

    def slots():
        with connection.cursor() as cursor:
            cursor.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
            return cursor.fetchall()

    @pytest.mark.parametrize("number", range(6))
    def test_stream(wal_stream, number):
        assert len(slots()) == 1
        Group.objects.bulk_create([Group(name=f"stream {number}")])
        assert [change.instance.name for change in wal_stream.consume()] == [f"stream {number}"] == HEARD[-1:]
        assert len(wal_stream.changes) == 1

    @pytest.mark.parametrize("number", range(4))
    def test_capture(wal_changes, number):
        Group.objects.create(name=f"capture {number}")
        assert [change.instance.name for change in wal_changes] == [f"capture {number}"]
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs pytest on some files, with the plugin loaded as its entry point would."""

    def run(*arguments, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        settings = {"DJANGO_SETTINGS_MODULE": "project_settings"} if "project_settings" in files else {}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DJANGO_", "COV_"))
        }
        loaded = () if IS_INSTALLED else ("-p", "django_walsignals.pytest_plugin")
        plugin = (*loaded, "-p", "no:cacheprovider", "-p", "no:asyncio")
        return subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, *arguments],
            cwd=tmp_path,
            check=False,
            env={**kept, **settings, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def outcome(result):
    return result.stdout.splitlines()[-1] if result.stdout else result.stderr


def left_behind():
    with psycopg.connect(settle()) as session:
        slots = f"SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'walsignals_{DATABASE.lower()}%'"
        databases = f"SELECT datname FROM pg_database WHERE datname LIKE '{DATABASE}%'"
        return [name for query in (slots, databases) for (name,) in session.execute(query).fetchall()]


@pytest.mark.integration
class TestFixtures:
    @pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
    def test_work_and_leave_nothing_behind(self, run, workers):
        result = run(*workers, project_settings=SETTINGS, conftest=RECEIVERS, test_it=TESTS)

        assert "10 passed" in outcome(result), result.stdout + result.stderr
        assert left_behind() == []

    def test_failures_leave_nothing_behind(self, run):
        failures = """
            import pytest
            from django.contrib.auth.models import Group
            from django.db import connection
            from django_walsignals import on_change

            def test_fails_in_the_test(wal_stream):
                Group.objects.create(name="a")
                assert wal_stream.consume() == []

            def test_fails_in_a_receiver(wal_stream):
                @on_change(Group)
                def fails(change):
                    raise LookupError("mine")

                Group.objects.create(name="a")
                try:
                    wal_stream.consume()
                finally:
                    from django_walsignals import post_wal_change
                    post_wal_change.receivers.pop()

            def test_loses_its_connection(wal_stream):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

            def test_writes_unseen(wal_changes):
                Group.objects.bulk_create([Group(name="a")])

            def test_needs_a_transaction(wal_changes, transactional_db): ...

            def test_works_after_all(wal_stream):
                Group.objects.create(name="a")
                assert len(wal_stream.consume()) == 1
        """
        result = run("-p", "no:randomly", project_settings=SETTINGS, conftest=RECEIVERS, test_it=failures)

        assert "3 failed, 2 passed, 2 errors" in outcome(result), result.stdout + result.stderr
        assert "LookupError: mine" in result.stdout
        assert "UnseenChanges" in result.stdout and "auth_group: 1 row by INSERT" in result.stdout
        assert "TransactionManagementError" in result.stdout
        assert left_behind() == []

    def test_a_database_kept_for_the_next_run_has_no_slot(self, run):
        result = run("--reuse-db", project_settings=SETTINGS, conftest=RECEIVERS, test_it=TESTS)
        kept = left_behind()
        again = run("--create-db", project_settings=SETTINGS, conftest=RECEIVERS, test_it=TESTS)

        assert "10 passed" in outcome(result) and "10 passed" in outcome(again), result.stdout + again.stdout
        assert kept == [DATABASE]
        assert left_behind() == []

    def test_receivers_connected_in_the_test_are_listened_to(self, run):
        test = """
            from django.contrib.auth.models import Group

            def test_listen(wal_stream):
                wal_stream.listen(Group)
                Group.objects.create(name="a")
                assert len(wal_stream.consume()) == 1
        """
        result = run(project_settings=SETTINGS, test_it=test)
        assert "1 passed" in outcome(result), result.stdout


class TestInert:
    def test_in_a_project_without_django(self, run):
        test = """
            import sys

            def test_nothing_is_loaded():
                assert not {name.partition(".")[0] for name in sys.modules} & {"django", "psycopg"}
        """
        result = run("-p", "no:django", test_it=test)
        assert "1 passed" in outcome(result), result.stdout + result.stderr

    def test_where_django_is_not_configured(self, run):
        result = run(test_it="def test_nothing(): ...")
        assert "1 passed" in outcome(result), result.stdout + result.stderr

    def test_without_pytest_django_a_fixture_says_what_it_lacks(self, run):
        result = run("-p", "no:django", test_it="def test_stream(wal_stream): ...")
        assert "fixture 'django_db_setup' not found" in result.stdout, result.stdout

    def test_on_another_database_only_who_asks_is_told(self, run):
        settings = """
            SECRET_KEY = "x"
            USE_TZ = True
            DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
            INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
        """
        tests = """
            from django.contrib.auth.models import Group

            def test_nothing(db):
                Group.objects.create(name="a")
        """
        result = run(project_settings=settings, test_it=tests)
        assert "1 passed" in outcome(result), result.stdout + result.stderr

        with_app = settings.replace('contenttypes"', 'contenttypes", "django_walsignals"')
        result = run(project_settings=with_app, test_it="def test_stream(wal_stream): ...")
        assert "only PostgreSQL has a WAL" in result.stdout, result.stdout + result.stderr
        assert "1 error" in outcome(result)

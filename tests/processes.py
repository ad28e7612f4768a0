"""Real processes for tests: start, read their output as it comes, signal, wait; none outlives its test."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from django.db import connections
from psycopg.conninfo import make_conninfo

from example_project.guard import Guard
from tests import server

ROOT = Path(__file__).parent.parent
MANAGE = Path(__file__).with_name("manage.py")
DEADLINE_SECONDS = 30.0


class Output:
    """The lines that a process has written so far to one or both of its streams."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._open_streams = 0

    @property
    def text(self) -> str:
        """All lines as one string."""
        return "".join(self.lines)

    def follow(self, stream: IO[str]) -> None:
        """Read `stream` to its end on a thread of its own."""
        self._open_streams += 1
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def wait_for_line(self, pattern: str, timeout: float) -> re.Match[str] | None:
        """Return the first match in a line, already written or still to come; None at the deadline or the end."""
        deadline = time.monotonic() + timeout
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda seen=seen: len(self.lines) > seen or not self._open_streams,
                    deadline - time.monotonic(),
                )
                fresh = self.lines[seen:]
            if match := next(filter(None, (re.search(pattern, line) for line in fresh)), None):
                return match
            seen += len(fresh)
            if not fresh:
                return None

    def wait_for_end(self, timeout: float) -> None:
        """Wait until everything written has been read."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open_streams, timeout)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._note(line)
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    def _note(self, line: str) -> None:
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()


class ManagedProcess:
    """A running command, its output, and its end."""

    def __init__(self, arguments: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path = ROOT) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.stdout = Output()
        self.stderr = Output()
        self.process = subprocess.Popen(
            self.arguments,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C stops pytest, and pytest stops us
        )
        self._guard = Guard.terminating(self.process.pid)
        for stream, output in ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr)):
            if stream:
                output.follow(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def wait_for_stdout(self, pattern: str, *, timeout: float = DEADLINE_SECONDS) -> re.Match[str]:
        """Return the first match in a line of stdout; fail when it ends or the deadline passes without one."""
        return self._wait_for(self.stdout, pattern, timeout)

    def wait_for_stderr(self, pattern: str, *, timeout: float = DEADLINE_SECONDS) -> re.Match[str]:
        """Do the same on stderr."""
        return self._wait_for(self.stderr, pattern, timeout)

    def wait(self, *, timeout: float = DEADLINE_SECONDS) -> int:
        """Wait for the end and for all output; return the exit code, or fail at the deadline."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s: {self}") from None
        self.stdout.wait_for_end(timeout)
        self.stderr.wait_for_end(timeout)
        self._guard.release()
        return code

    def succeed(self, *, timeout: float = DEADLINE_SECONDS) -> None:
        """Wait for the end and fail, showing all output, unless the exit code is 0."""
        if self.wait(timeout=timeout):
            raise AssertionError(f"failed: {self}")

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal; one to a process that has ended is lost, as it would be in a terminal."""
        self.process.send_signal(signum)

    def terminate(self, *, timeout: float = DEADLINE_SECONDS) -> int:
        """Send SIGTERM and wait for the end."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout=timeout)

    def kill(self) -> int:
        """Send SIGKILL to it and its children, and wait for the end; harmless when it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def _wait_for(self, output: Output, pattern: str, timeout: float) -> re.Match[str]:
        match = output.wait_for_line(pattern, timeout)
        if match is None:
            raise AssertionError(f"no line matches {pattern!r} within {timeout:g} s: {self}")
        return match

    def __str__(self) -> str:
        return (
            f"{' '.join(self.arguments)} (exit code {self.returncode})\n"
            f"--- stdout\n{self.stdout.text}--- stderr\n{self.stderr.text}---"
        )


def database_dsn(alias: str = "default") -> str:
    """Return the conninfo of the test database, for sessions that Django knows nothing of."""
    chosen = connections[alias].settings_dict["NAME"]
    return make_conninfo(os.environ[server.DSN], dbname=chosen)


def environment(alias: str = "default", **extra: str) -> dict[str, str]:
    """Return an environment in which `tests.settings` means the test database."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "tests.settings"} | {
        server.DSN: database_dsn(alias),
        **extra,
    }


def manage(*arguments: str, **env: str) -> ManagedProcess:
    """Start `manage.py` on the test database; `with` sees to it that it ends with the block."""
    return ManagedProcess([sys.executable, MANAGE, *arguments], env=environment(**env))


def run_manage(*arguments: str, timeout: float = DEADLINE_SECONDS, **env: str) -> ManagedProcess:
    """Run `manage.py` to its end; look at `returncode`, `stdout.text` and `stderr.text`."""
    with manage(*arguments, **env) as process:
        process.wait(timeout=timeout)
        return process

"""`manage.py walconsume` as a process of its own: started, listened to, ended."""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self

from example_project.guard import Guard

MANAGE = Path(__file__).parent.parent / "manage.py"
DEADLINE_SECONDS = 60.0
LINES_KEPT = 30


class ConsumerError(Exception):
    """walconsume did not do its part; the message holds what it said last."""


class Consumer:
    """A running walconsume. It is in a session of its own: Ctrl-C reaches the demo, and the demo stops it."""

    def __init__(self, *arguments: str, feed: str, pass_fds: tuple[int, ...], on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, MANAGE, *arguments],
            env={**os.environ, "DEMO_FEED": feed, "PYTHONUNBUFFERED": "1"},
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._guard = Guard.terminating(self._process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._guard.release()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()

    def wait_for_line(self, text: str) -> None:
        """Return as soon as a line holds `text`."""
        with self._news:
            self._news.wait_for(lambda: self._has_line(text) or not self._reader.is_alive(), DEADLINE_SECONDS)
            if not self._has_line(text):
                raise ConsumerError(f"walconsume did not come to say {text!r}:\n{self._said()}")

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            self._reader.join()
            raise ConsumerError(f"walconsume ended with exit code {self._process.returncode}:\n{self._said()}")

    def stop(self) -> None:
        """End it as an operator would, with SIGTERM."""
        self._process.terminate()
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended by itself; raise unless it ended well."""
        try:
            code = self._process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise ConsumerError(f"walconsume still runs after {DEADLINE_SECONDS:g} s:\n{self._said()}") from None
        if code:
            self.check()

    def _has_line(self, text: str) -> bool:
        return any(text in line for line in self._lines)

    def _said(self) -> str:
        return "\n".join(self._lines)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._note(line.rstrip())
        with self._news:
            self._news.notify_all()

    def _note(self, line: str) -> None:
        self._on_line(line)
        with self._news:
            self._lines.append(line)
            self._news.notify_all()

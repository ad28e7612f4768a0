"""A reader who does what a page says: writes the files, types the commands, and looks at what comes back."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import psycopg
import yaml

from tests.docs import notebook, shown
from tests.docs.pages import Block
from tests.processes import ManagedProcess
from tests.project import Project
from tests.waiting import wait_until

SETTINGS: Final = "mysite/settings.py"


class Notebook:
    """A Python process that executes a page's untitled Python blocks."""

    def __init__(self, project: Project) -> None:
        self._process = subprocess.Popen(
            [sys.executable, notebook.__file__],
            env=project.env,
            cwd=project.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def execute(self, code: str) -> str:
        """Execute a block; return what it printed, fail with what it raised."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(code) + "\n")
        answer = json.loads(self._process.stdout.readline() or '{"printed": "", "failure": "the notebook died"}')
        assert not answer["failure"], answer["failure"]
        return answer["printed"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


class Running:
    """A command that goes on while the page does."""

    def __init__(self, process: ManagedProcess) -> None:
        self.process = process
        self._seen = 0

    def expect(self, text: str) -> None:
        """Wait until what it says next is what the page shows."""
        wanted = shown.pattern(text)
        wait_until(
            lambda: self.process.returncode is not None or wanted.match(self._fresh()),
            message=lambda: f"it should say next:\n{shown.steady(text)}\nbut says:\n{self._fresh()}\n{self.process}",
        )
        if self.process.returncode is not None:
            self.process.wait()  # for the rest of its output
        found = wanted.match(self._fresh())
        assert found, f"it should say:\n{shown.steady(text)}\nbut ended:\n{self.process}"
        self._seen += found[0].count("\n")

    def expect_around_ctrl_c(self, before: str, after: str) -> None:
        """Wait for what it says, hit Ctrl-C, and look at what it says then."""
        self.expect(before)
        self.process.signal(signal.SIGINT)
        assert self.process.wait() == 0, str(self.process)
        self.expect(after)

    def _fresh(self) -> str:
        return shown.steady("".join(self.process.stdout.lines[self._seen :]))


class Reader:
    """Follows one page in a project."""

    def __init__(self, project: Project, conninfo: str, path: str) -> None:
        """``path`` is where the commands of a page are found."""
        self._project = project
        self._conninfo = conninfo
        self._env = {**project.env, **_libpq(conninfo), "PATH": path, "COLUMNS": "120"}
        self._written: set[str] = set()
        self._unread: set[str] = set()
        self._printed = ""
        self._notebook: Notebook | None = None
        self._running: Running | None = None
        self._ends = ExitStack()
        self._actions: Mapping[str, Callable[[Block], None]] = {
            "python": self._python,
            "console": self._console,
            "sql": self._sql,
            "text": self._text,
            "json": lambda block: json.loads(block.text),
            "yaml": lambda block: [*yaml.safe_load_all(block.text)] and None,
            "toml": lambda block: tomllib.loads(block.text) and None,
            "ini": self._ini,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        assert block.language in self._actions, f"{block}: nobody knows how to run that"
        try:
            self._actions[block.language](block)
        except AssertionError as exc:
            raise AssertionError(f"{block}: {exc}") from exc

    def finish(self) -> None:
        """Import what the page has written: nothing else may have."""
        if self._unread:
            self._execute("\n".join(f"__import__({name!r})" for name in sorted(self._unread)))

    def _python(self, block: Block) -> None:
        if block.title:
            self._write(block)
        else:
            self._printed = self._execute(block.text)

    def _execute(self, code: str) -> str:
        if self._notebook is None:
            self._notebook = Notebook(self._project)
            self._ends.callback(self._notebook.close)
        return self._notebook.execute(code)

    def _write(self, block: Block) -> None:
        """Write a file; the settings, and a file that the page has begun, are added to, unless it is there "anew"."""
        title, _, anew = block.title.partition(", ")
        name = SETTINGS if title == "settings.py" else title
        path = self._project.folder / name
        if (name == SETTINGS or name in self._written) and not anew:
            self._project.append(name, block.text)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        self._written.add(name)
        if name.endswith(".py") and name != SETTINGS:
            self._unread.add(name.removesuffix(".py").replace("/", "."))
        self._notebook = None  # it has read what was there before

    def _ini(self, block: Block) -> None:
        """Read it; write it, too, where it is a file of the project and not of the system."""
        configparser.ConfigParser(strict=False).read_string(block.text)
        if block.title and not block.title.startswith("/"):
            self._write(block)

    def _console(self, block: Block) -> None:
        commands = list(_commands(block.text))
        self._printed = ""
        for number, (command, output, rest) in enumerate(commands):
            is_last = number == len(commands) - 1
            if block.is_background and is_last:
                self._leave_running(command, output)
            elif rest is not None:
                self._interrupt(command, output, rest)
            else:
                self._run(command, output, block.exit_code if is_last else 0)

    def _run(self, command: str, output: str, code: int) -> None:
        with self._start(command) as process:
            assert process.wait() == code, f"exit code {process.returncode}, not {code}: {process}"
        said = shown.steady(process.stdout.text)
        self._printed = process.stdout.text
        if output.strip():
            assert shown.pattern(output).fullmatch(said), f"the page shows\n{shown.steady(output)}\nand it says\n{said}"

    def _leave_running(self, command: str, output: str) -> None:
        """Start a command; of two at a time, the first is ended."""
        if self._running:
            self._running.process.terminate()
        self._running = Running(self._ends.enter_context(self._start(command)))
        self._running.expect(output)

    def _interrupt(self, command: str, output: str, rest: str) -> None:
        with self._start(command) as process:
            Running(process).expect_around_ctrl_c(output, rest)

    def _start(self, command: str) -> ManagedProcess:
        """Start a command with both its outputs in one, as a terminal has them."""
        return ManagedProcess(["bash", "-c", f"exec 2>&1; exec {command}"], env=self._env, cwd=self._project.folder)

    def _sql(self, block: Block) -> None:
        with psycopg.connect(self._conninfo, autocommit=True) as session:
            for statement in _statements(block.text):
                session.execute(statement)  # type: ignore[arg-type]

    def _text(self, block: Block) -> None:
        if self._printed:
            said, self._printed = shown.steady(self._printed), ""
            assert shown.pattern(block.text).fullmatch(said), f"it shows\n{shown.steady(block.text)}\nit is\n{said}"
            return
        assert self._running, "nothing above it has said anything"
        before, interrupted, after = block.text.partition("^C\n")
        if interrupted:
            self._running.expect_around_ctrl_c(before, after)
        else:
            self._running.expect(before)


def _commands(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Split a console block: each command, what it shows, and what it shows after Ctrl-C (None where nobody hits it)."""
    for part in ("\n" + text).split("\n$ ")[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = command[:-1] + more
        before, interrupted, after = output.partition("^C\n")
        yield command, before, after if interrupted else None


def _statements(text: str) -> Iterator[str]:
    """Split a script where a line ends with a semicolon: one statement each, as psql sends them."""
    statement: list[str] = []
    for line in text.splitlines():
        statement.append(line)
        if line.split("--")[0].rstrip().endswith(";"):
            yield "\n".join(statement)
            statement = []
    assert not "".join(statement).strip() or statement[0].startswith("--"), f"a statement without end: {statement}"


def _libpq(conninfo: str) -> dict[str, str]:
    """Point psql at the page's database."""
    options = psycopg.conninfo.conninfo_to_dict(conninfo)
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}
    return {name: str(options[key]) for name, key in names.items()}


def search_path(programs: Path) -> str:
    """Say where a page's commands are found: this environment's Python, the server's psql, and the system's rest."""
    ours = Path(__file__).parent / "programs"
    return os.pathsep.join([str(Path(sys.executable).parent), str(programs), str(ours), os.environ["PATH"]])

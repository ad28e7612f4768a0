"""A PostgreSQL server of one's own, for the demo and the tests: made, started, stopped and removed by this process.

Only server administration lives here; nothing knows Django. Whoever can reach the loopback interface may connect as
any user, so keep nothing dear in it.
"""

import hashlib
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from example_project.binaries import PostgresError, bin_dir, let_reach, let_run, server_user
from example_project.guard import Guard

__all__ = ["SUPERUSER", "ClusterConfig", "PostgresCluster", "PostgresError", "free_port", "last_port", "runtime_folder"]

SUPERUSER = "postgres"

LONGEST_SOCKET_FOLDER = 103 - len("/.s.PGSQL.65535")
"""The kernels' limit for the address of a Unix socket (107 bytes on Linux, 103 on macOS), less what PostgreSQL adds."""

START_SECONDS = 60
LOG_LINES_SHOWN = 20

SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "40",
    "max_replication_slots": "40",
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
}

StopMode = Literal["smart", "fast", "immediate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where a cluster lives and how it runs."""

    home: Path
    """Holds the data folder and the server's log; it need not exist."""
    version: str = "18"
    port: int | None = None
    """None: the one that it runs on, or a free one."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Lines of postgresql.conf, over `SETTINGS`."""
    temporary: bool = False
    """Remove everything when this process ends, however it ends; otherwise only stop the server then."""


class PostgresCluster:
    """One PostgreSQL cluster: a data folder, and the server that runs on it."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.data = config.home / "data"
        self.log = config.home / "server.log"
        self.socket_folder = _socket_folder(config.home)
        self._programs = bin_dir(config.version)
        self._user = server_user()
        self._guard: Guard | None = None
        if self._user:
            let_run(self._programs, self._user)
        self.port = config.port or (last_port(self.data) if self.is_running else None) or free_port()

    def dsn(self, dbname: str = "postgres", *, host: str | None = None) -> str:
        """Return libpq's conninfo: over the Unix socket, or over TCP with `host="127.0.0.1"`."""
        return f"host={host or self.socket_folder} port={self.port} user={SUPERUSER} dbname={dbname}"

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._pg_ctl("status").returncode == 0

    def initdb(self) -> None:
        """Create the data folder, unless it is there."""
        if (self.data / "PG_VERSION").exists():
            return
        options = ["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        result = self._run("initdb", *options, "-D", str(self.data))
        if result.returncode:
            raise PostgresError(f"initdb failed in {self.data}:\n{result.stdout}{result.stderr}")

    def start(self) -> None:
        """Start the server, creating its data folder first if need be; one that runs already is left to its owner."""
        if self.is_running:
            return
        self._prepare_folders()
        self._guard = self._guard or self._last_will()
        self.initdb()
        self.data.chmod(0o700)  # the server insists, and others change modes: copies, checkouts, the wheel
        self._write_conf()
        result = self._pg_ctl("start", "--log", str(self.log))
        if result.returncode:
            raise PostgresError(f"PostgreSQL did not start. The end of {self.log}:\n{self._log_tail()}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server; after "immediate" it recovers from its WAL, as after a crash."""
        if self.data.exists() and self.is_running:
            result = self._pg_ctl("stop", "--mode", mode)
            if result.returncode:
                raise PostgresError(f"PostgreSQL did not stop ({mode}):\n{result.stderr}{self._log_tail()}")
        if not self.config.temporary:
            self._clean_up()

    def restart(self, mode: StopMode = "fast", **settings: str) -> None:
        """Stop and start, with `settings` over those in force."""
        self.stop(mode)
        self.config = replace(self.config, settings={**self.config.settings, **settings})
        self.start()

    def destroy(self) -> None:
        """Stop the server and remove all that it had."""
        self.stop("immediate")
        shutil.rmtree(self.config.home, ignore_errors=True)
        self._clean_up()

    def _prepare_folders(self) -> None:
        for folder in (self.config.home, self.socket_folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._user:
                let_reach(folder, self._user)

    def _write_conf(self) -> None:
        settings = {
            **SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_folder),
            **self.config.settings,
        }
        conf = self.data / "postgresql.conf"
        conf.write_text("".join(f"{name} = '{_escaped(value)}'\n" for name, value in settings.items()))
        if self._user:
            shutil.chown(conf, self._user, self._user)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else ["(no log)"]
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    def _pg_ctl(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        wait = [] if command == "status" else ["--wait", "--timeout", str(START_SECONDS)]
        return self._run("pg_ctl", command, "-D", str(self.data), *wait, *options)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._programs / program, *arguments],
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd="/",  # the server's user may not enter ours
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def _last_will(self) -> Guard:
        stop = '"$1" stop -D "$2" -m fast; shift 2; [ $# -eq 0 ] || rm -rf -- "$@"'
        remove = [self.config.home] if self.config.temporary else []
        command = ["/bin/sh", "-c", stop, "sh", self._programs / "pg_ctl", self.data, *remove, *self._extra_folders]
        return Guard([str(word) for word in command], user=self._user)

    @property
    def _extra_folders(self) -> list[Path]:
        return [] if self.socket_folder == self.config.home else [self.socket_folder]

    def _clean_up(self) -> None:
        for folder in self._extra_folders:
            shutil.rmtree(folder, ignore_errors=True)
        if self._guard:
            self._guard.release()
        self._guard = None


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def runtime_folder() -> Path:
    """Return a folder for temporary clusters, short enough that their sockets fit."""
    return next(folder for folder in (Path(tempfile.gettempdir()), Path("/tmp")) if _fits(folder / ("x" * 24)))  # noqa: S108 - the caller adds an unguessable name


def _socket_folder(home: Path) -> Path:
    """Return `home` where a socket's address fits and needs no quoting, else a folder of its own."""
    if _fits(home):
        return home
    return runtime_folder() / f"walsignals-{hashlib.sha256(bytes(home)).hexdigest()[:12]}"


def _fits(folder: Path) -> bool:
    return len(bytes(folder)) <= LONGEST_SOCKET_FOLDER and bool(re.fullmatch(r"[\w/.+-]+", str(folder)))


def last_port(data: Path) -> int | None:
    """Return the port in a server's lock file, its fourth line; None without one."""
    lock = data / "postmaster.pid"
    return int(lock.read_text().splitlines()[3]) if lock.exists() else None


def _escaped(value: str) -> str:
    return value.replace("'", "''")

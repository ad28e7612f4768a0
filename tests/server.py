"""Which PostgreSQL the tests talk to: decided once a run, and told to every process of it through the environment.

Django reads its settings before any fixture runs, so the address is settled here and the server started later, by
conftest, in the process that runs the tests; the commands that tests start inherit the address.
"""

import os
import secrets
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from example_project.postgres import SUPERUSER, ClusterConfig, PostgresCluster, free_port, runtime_folder

DSN = "WALSIGNALS_TEST_DSN"
"""The server: given by whoever runs the tests, or that of the embedded cluster. Its dbname is Django's."""

HOME = "WALSIGNALS_TEST_HOME"
"""The embedded cluster's folder; unset when somebody gave the server."""

OWNER = "WALSIGNALS_TEST_OWNER"
"""The process that starts and removes the embedded cluster."""

WORKER = "WALSIGNALS_TEST_WORKER"
"""The xdist worker that the server is for, if there is one."""

FAST = {
    "fsync": "off",  # a killed process loses nothing by it, only a dead machine does; crash tests may turn it on
    "full_page_writes": "off",
    "autovacuum": "off",  # its WAL would come at moments of its own
    "checkpoint_timeout": "30min",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "jit": "off",
}


def settle() -> str:
    """Return the server's conninfo, choosing a folder and a port for an embedded one the first time.

    Each of xdist's workers has a server of its own: roles, transaction numbers and the end of the log are a server's.
    """
    if DSN not in os.environ or _is_worker_of_owner():
        home = temporary_home()
        os.environ[HOME] = str(home)
        os.environ[OWNER] = str(os.getpid())
        os.environ[DSN] = make_conninfo(host=str(home), port=free_port(), user=SUPERUSER, dbname="postgres")
    return os.environ[DSN]


def _is_worker_of_owner() -> bool:
    """Whether this process is one of xdist's, and still has the server of the process that started it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    is_started_by_owner = os.environ.get(OWNER) == str(os.getppid())
    if worker is None or WORKER in os.environ or not is_started_by_owner:
        return False
    os.environ[WORKER] = worker  # the commands that this worker's tests start keep its server
    return True


def embedded_cluster() -> PostgresCluster | None:
    """Return the cluster that `settle` chose; None if somebody else looks after the server."""
    port = int(conninfo_to_dict(settle())["port"] or 0)
    return private_cluster(Path(os.environ[HOME]), port) if HOME in os.environ else None


def is_owner() -> bool:
    """Whether this process is the one to start and remove the embedded cluster: no worker, no child of a test is."""
    return os.environ.get(OWNER) == str(os.getpid())


def temporary_home() -> Path:
    """Return a folder, not made yet, for a cluster."""
    return runtime_folder() / f"walsignals-{secrets.token_hex(6)}"


def private_cluster(home: Path, port: int | None = None, **settings: str) -> PostgresCluster:
    """Return a cluster of the version under test, tuned for tests, removed with this process."""
    version = os.environ.get("PG", "18")
    return PostgresCluster(
        ClusterConfig(home=home, version=version, port=port, settings={**FAST, **settings}, temporary=True)
    )


def database(conninfo: str) -> dict[str, Any]:
    """Return Django's entry in DATABASES for a conninfo; what Django has no name for goes to OPTIONS."""
    options = conninfo_to_dict(conninfo)
    options.setdefault("dbname", "postgres")
    names = {"NAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    entry = {name: str(options.pop(key, "") or "") for name, key in names.items()}
    return {"ENGINE": "django.db.backends.postgresql", **entry, "OPTIONS": options}

"""The example's own PostgreSQL, in `.postgres/` of the checkout, for whoever gives no DATABASE_URL."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from example_project.postgres import SUPERUSER, ClusterConfig, PostgresCluster, last_port

VERSION = os.environ.get("PG", "18")
HOME = Path(__file__).parent.parent / ".postgres" / VERSION
DATABASE = "shop"
USUAL_PORT = 5432


@contextmanager
def database() -> Iterator[None]:
    """Make sure that DATABASE_URL names a server; one that we start ends with the block."""
    if "DATABASE_URL" in os.environ:
        yield
        return
    cluster = PostgresCluster(ClusterConfig(home=HOME, version=VERSION))
    started_here = not cluster.is_running
    cluster.start()
    try:
        _create_database(cluster.dsn())
        os.environ["DATABASE_URL"] = url()
        yield
    finally:
        os.environ.pop("DATABASE_URL", None)
        if started_here:
            cluster.stop()


def url() -> str:
    """Return the URL of the server as it runs now; of a usual one if it does not."""
    return f"postgres://{SUPERUSER}@127.0.0.1:{last_port(HOME / 'data') or USUAL_PORT}/{DATABASE}"


def _create_database(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

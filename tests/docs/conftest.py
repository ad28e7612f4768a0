"""A server for the documentation alone, and the shop that its first page makes, copied for each of the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from example_project.binaries import bin_dir
from example_project.postgres import PostgresCluster
from tests import server
from tests.docs.pages import DOCS, blocks
from tests.docs.reader import Reader, search_path
from tests.project import Project

START: Final = DOCS / "start.md"

#: The database that the first page has left behind, for others to begin with.
_SHOP: Final = "docs_shop"

OpenPage = Callable[[Path], Reader]


@pytest.fixture(scope="module")
def docs_cluster() -> Iterator[PostgresCluster]:
    """Give a server whose roles and settings pages may change."""
    cluster = server.private_cluster(server.temporary_home())
    cluster.start()
    yield cluster
    cluster.destroy()


@pytest.fixture(scope="module")
def shop(docs_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make the project of the first page: its files, its tables; nothing has been consumed yet."""
    conninfo = _create(docs_cluster, _SHOP, "template1")
    project = Project.blank(tmp_path_factory.mktemp("shop"), conninfo)
    with Reader(project, conninfo, _path(docs_cluster)) as reader:
        for block in blocks(START):
            if block.title:
                reader.follow(block)
    project.run("manage.py", "makemigrations", "shop")
    project.run("manage.py", "migrate")
    return project


@pytest.fixture
def open_page(docs_cluster: PostgresCluster, shop: Project, tmp_path: Path) -> Iterator[OpenPage]:
    """Return a function that gives the reader of a page, in a copy of the shop or, for the first page, in nothing."""
    opened: list[str] = []

    def begin(page: Path) -> Reader:
        is_first = page == START
        opened.append(f"docs_{page.stem.replace('-', '_')}")
        conninfo = _create(docs_cluster, opened[-1], "template1" if is_first else _SHOP)
        if is_first:
            (tmp_path / "site").mkdir()
            project = Project.blank(tmp_path / "site", conninfo)
        else:
            project = Project(Path(shutil.copytree(shop.folder, tmp_path / "site")))
            project.use_database(conninfo)
        return Reader(project, conninfo, _path(docs_cluster))

    yield begin
    for name in opened:
        _drop(docs_cluster, name)


def _path(cluster: PostgresCluster) -> str:
    return search_path(bin_dir(cluster.config.version))


def _create(cluster: PostgresCluster, name: str, template: str) -> str:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute(statement)
    return make_conninfo(cluster.dsn(), dbname=name)


def _drop(cluster: PostgresCluster, name: str) -> None:
    """Undo what a page did to the server."""
    slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute(slots, [name])
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for (role,) in session.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384").fetchall():
            session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        session.execute("ALTER SYSTEM RESET ALL")
        session.execute("SELECT pg_reload_conf()")

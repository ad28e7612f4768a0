"""The example's own PostgreSQL: there when nobody gives another, and gone with whoever started it."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from example_project import embedded
from example_project.postgres import ClusterConfig, PostgresCluster
from tests import server


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = server.temporary_home()
    monkeypatch.setattr(embedded, "HOME", path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    yield path
    PostgresCluster(ClusterConfig(home=path, version=embedded.VERSION)).destroy()


def table_exists() -> bool:
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        return conn.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone() == (True,)


@pytest.mark.integration
def test_data_is_kept_and_the_server_is_not(home: Path) -> None:
    with embedded.database(), psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute("CREATE TABLE kept ()")
    assert "DATABASE_URL" not in os.environ
    assert not PostgresCluster(ClusterConfig(home=home, version=embedded.VERSION)).is_running
    with embedded.database():
        assert table_exists()


@pytest.mark.integration
def test_a_server_that_runs_already_is_used_and_left_running(home: Path) -> None:
    cluster = PostgresCluster(ClusterConfig(home=home, version=embedded.VERSION, temporary=True))
    cluster.start()
    with embedded.database():
        assert f":{cluster.port}/" in os.environ["DATABASE_URL"]
    assert cluster.is_running
    cluster.destroy()


def test_a_given_url_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://somebody@example.com/shop")
    with embedded.database():
        assert os.environ["DATABASE_URL"] == "postgres://somebody@example.com/shop"
    assert os.environ["DATABASE_URL"] == "postgres://somebody@example.com/shop"

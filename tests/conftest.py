"""One PostgreSQL a session, private ones on demand, and what tests wait and run commands with."""

from collections.abc import Callable, Iterator

import pytest

from example_project.postgres import PostgresCluster, PostgresError
from tests import server
from tests.streams import no_receivers, stream  # noqa: F401  # fixtures

CLUSTER = pytest.StashKey[PostgresCluster]()

MakeCluster = Callable[..., PostgresCluster]


def pytest_configure(config: pytest.Config) -> None:
    """Start the embedded server, in a process that runs tests: each xdist worker has one of its own."""
    if config.option.collectonly or config.getoption("numprocesses", None) or not server.is_owner():
        return
    try:
        cluster = server.embedded_cluster()
        if cluster:
            config.stash[CLUSTER] = cluster
            cluster.start()
    except PostgresError as exc:
        pytest.exit(str(exc), returncode=pytest.ExitCode.USAGE_ERROR)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the embedded server, also after failures and Ctrl-C."""
    if cluster := config.stash.get(CLUSTER, None):
        cluster.destroy()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slow ones, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which server the tests ran on."""
    cluster = server.embedded_cluster()
    return f"postgresql: {f'embedded {cluster.config.version}' if cluster else f'given by {server.DSN}'}"


@pytest.fixture(scope="session")
def cluster() -> PostgresCluster:
    """Give the session's server; a test that would stop or reconfigure it asks `make_cluster` for its own."""
    found = server.embedded_cluster()
    if found is None:
        pytest.skip(f"{server.DSN} names a server that the tests do not administer")
    return found


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Return a function that starts a private cluster with these settings; removed after the test."""
    made: list[PostgresCluster] = []

    def make(**settings: str) -> PostgresCluster:
        made.append(server.private_cluster(server.temporary_home(), **settings))
        made[-1].start()
        return made[-1]

    yield make
    for cluster in made:
        cluster.destroy()

"""A server that ``pg_upgrade`` replaced: another cluster, where the old position means nothing until somebody says so."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from example_project.binaries import PostgresError, bin_dir, server_user
from example_project.postgres import SUPERUSER, PostgresCluster
from tests import server
from tests.faults.private import Private
from tests.processes import ManagedProcess
from tests.streams import Stream

pytestmark = pytest.mark.integration

OLDER, NEWER = "16", "18"
"""The versions that the wheel brings."""

FIRST_WITH_SLOTS = 17
"""The first version that logical slots can be upgraded from; those of earlier ones are left behind."""

FIRST_WITH_CHECKSUMS = 18
"""The first version whose ``initdb`` turns checksums on, which the old cluster must then have too."""

GAP_RECEIVER = """
import sys
from typing import Any

from django_walsignals import wal_gap
from tests import effects  # noqa: F401


def tell(**said: Any) -> None:
    sys.stdout.write(f"gap: {said['reason']}\\n")


wal_gap.connect(tell)
"""
"""A module of receivers: those of `tests.effects`, and one that says what it hears of a gap."""

MakeVersion = Callable[[str], PostgresCluster]


@pytest.fixture
def make_version() -> Iterator[MakeVersion]:
    """Return a function that names a cluster of a version, not made yet; removed after the test."""
    made: list[PostgresCluster] = []

    def make(version: str) -> PostgresCluster:
        config = server.private_cluster(server.temporary_home()).config
        made.append(PostgresCluster(replace(config, version=version)))
        return made[-1]

    yield make
    for cluster in made:
        cluster.destroy()


@pytest.fixture(params=["the same version", f"{OLDER} to {NEWER}"])
def versions(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Give the versions to upgrade from and to, where their programs are here."""
    under_test = os.environ.get("PG", NEWER)
    old, new = (under_test, under_test) if request.param == "the same version" else (OLDER, NEWER)
    if old != new and "PG_BIN" in os.environ:
        pytest.skip("PG_BIN names the programs of one version")
    for version in (old, new):
        try:
            programs = bin_dir(version)
        except PostgresError as exc:
            pytest.skip(str(exc))
        if missing := [name for name in ("pg_upgrade", "pg_dump", "psql") if not (programs / name).exists()]:
            pytest.skip(f"no {', '.join(missing)} in {programs}")
    return old, new


@pytest.fixture
def private(versions: tuple[str, str], make_version: MakeVersion, stream: Stream) -> Private:
    """Give the server that is to be upgraded."""
    stream.configure(MODELS=["testapp.Note"])
    cluster = make_version(versions[0])
    cluster.start()
    return Private(cluster, stream)


@pytest.fixture
def gap_receiver(tmp_path: Path) -> dict[str, str]:
    """Give the arguments of a consumer that also tells of gaps."""
    (tmp_path / "gap_receiver.py").write_text(GAP_RECEIVER)
    return {"receivers": "gap_receiver", "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_upgraded_server_is_a_gap_and_once_accepted_the_stream_goes_on(
    private: Private,
    versions: tuple[str, str],
    make_version: MakeVersion,
    gap_receiver: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is delivered or changed before somebody accepts it, and nothing comes a second time after."""
    private.consumer("--until-lsn", "now").succeed()
    private.write(5, "before the upgrade")
    private.consumer("--until-lsn", "now").succeed()
    assert private.effects() == (5, 5)
    old_system, old_checkpoint = _system_identifier(private), _checkpoint(private)
    assert old_checkpoint["system_identifier"] == old_system

    took = _upgrade(private, make_version(versions[1]))
    new_system = _system_identifier(private)
    assert new_system != old_system
    assert _checkpoint(private) == old_checkpoint, "pg_upgrade brought another checkpoint"
    upgraded = _state(private)
    assert bool(upgraded["slots"]) == (int(versions[0]) >= FIRST_WITH_SLOTS)

    refused = _consume(private, gap_receiver)
    assert refused.returncode == 4, refused
    assert f"belongs to the database cluster {old_system}, and this is {new_system}" in refused.stderr.text
    assert "--accept-gap" in refused.stderr.text
    assert "Traceback" not in refused.stderr.text
    assert "gap: " not in refused.stdout.text, "a gap that nobody accepted was told"
    assert _state(private) == upgraded

    private.write(1, "between")
    accepted = _consume(private, gap_receiver, "--accept-gap")
    assert accepted.returncode == 0, accepted
    assert f"gap: the checkpoint belongs to the database cluster {old_system}" in accepted.stdout.text
    assert _checkpoint(private)["system_identifier"] == new_system
    # A slot that came along still has what was written before somebody accepted the gap; a new one can't.
    kept = ["between"] if upgraded["slots"] else []
    assert _texts(private) == ["before the upgrade"] * 5 + kept

    private.write(1, "after")
    goes_on = _consume(private, gap_receiver)
    assert goes_on.returncode == 0, goes_on
    assert "gap: " not in goes_on.stdout.text, "the gap was told again"
    assert _texts(private) == ["before the upgrade"] * 5 + kept + ["after"]
    with capsys.disabled():
        old_lsn, new_lsn = old_checkpoint["lsn"], _checkpoint(private)["lsn"]
        sys.stdout.write(
            f"\npg_upgrade {' to '.join(versions)}: {took:.1f} s, cluster {old_system} to {new_system}, "
            f"checkpoint {old_lsn} to {new_lsn}, slots {upgraded['slots']}\n"
        )


def _consume(private: Private, gap_receiver: dict[str, str], *arguments: str) -> ManagedProcess:
    """Consume what is committed, telling of gaps, and return how it ended."""
    with private.stream.process("--until-lsn", "now", *arguments, **{**private.env, **gap_receiver}) as consumer:
        consumer.wait()
        return consumer


def _upgrade(private: Private, new: PostgresCluster) -> float:
    """Replace a server by its upgrade, as an administrator would; say how long ``pg_upgrade`` took, in seconds.

    It refuses slots with anything left to decode, and a consumer's last checkpoint is just that: the commit comes
    after the position that it stores. So the slot is moved past it first.
    """
    old = private.cluster
    private.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", private.stream.name)
    old.stop("fast")
    new._prepare_folders()
    options = ["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    if int(old.config.version) < FIRST_WITH_CHECKSUMS <= int(new.config.version):
        options.append("--no-data-checksums")
    made = new._run("initdb", *options, "-D", str(new.data))
    assert made.returncode == 0, made.stderr
    new._write_conf()
    user = server_user()
    start = time.monotonic()
    arguments = {
        "--old-bindir": old._programs,
        "--new-bindir": new._programs,
        "--old-datadir": old.data,
        "--new-datadir": new.data,
        "--old-port": old.port,
        "--new-port": new.port,
        "--socketdir": new.socket_folder,
        "--username": SUPERUSER,
    }
    result = subprocess.run(
        [new._programs / "pg_upgrade", "--no-sync", *(f"{name}={value}" for name, value in arguments.items())],
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd=new.config.home,  # it writes scripts to where it is
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    details = "".join(f"{path}:\n{path.read_text()}" for path in new.data.glob("pg_upgrade_output.d/*/*.txt"))
    assert result.returncode == 0, f"{result.stdout}{result.stderr}{details}"
    took = time.monotonic() - start
    new.start()
    private.cluster = new
    return took


def _system_identifier(private: Private) -> str:
    ((found,),) = private.execute("SELECT system_identifier::text FROM pg_control_system()")
    return str(found)


def _checkpoint(private: Private) -> dict[str, Any]:
    query = "SELECT to_jsonb(c) - '{last_error,last_error_at}'::text[] FROM walsignals_checkpoint c"
    ((row,),) = private.execute(query)
    return dict(row)


def _texts(private: Private) -> list[str]:
    """List the texts that receivers were called with, in order."""
    return [text for (text,) in private.execute("SELECT text FROM ledger_effect ORDER BY id")]


def _state(private: Private) -> dict[str, Any]:
    """Read all that a consumer may change on the server."""
    return {
        "checkpoint": _checkpoint(private),
        "slots": private.execute(
            "SELECT slot_name, restart_lsn::text, confirmed_flush_lsn::text FROM pg_replication_slots"
        ),
        "publications": private.execute("SELECT oid, pubname, xmin::text FROM pg_publication"),
        "tables": private.execute("SELECT oid, prrelid::regclass::text, xmin::text FROM pg_publication_rel"),
        "effects": private.execute("SELECT * FROM ledger_effect ORDER BY id"),
    }

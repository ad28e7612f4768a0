"""One round of the oracle: write at random, torment the consumers and the server, and compare."""

from collections import Counter

from tests.faults import shadow
from tests.faults.chaos import Torment, Workload, drain
from tests.faults.private import Private

WRITERS = 4


def check(private: Private, *, seconds: float, seed: int) -> str:
    """Run a round on a server; return what was survived, or fail."""
    private.stream.configure(MODELS=["testapp.Note"], BATCH_SIZE=100)
    for statement in (*shadow.DROP, *shadow.MAKE, "TRUNCATE testapp_note"):
        private.execute(statement)
    with private.consumer("--until-lsn", "now") as consumer:  # whose receivers are those of tests.effects
        consumer.succeed()
    torment = Torment(private, seed)
    with Workload(private.cluster.dsn(), WRITERS, seed) as workload:
        torment.run(seconds)
    drain(private)
    changes = workload.changes
    said = (
        f"survived: {_listed(torment.happened)}; the slowest fast shutdown took {torment.slowest_stop:.1f} s\n"
        f"changes: {changes.total()} ({_listed(changes)})"
    )
    _compare(private, changes.total(), said)
    assert changes.total() > 20 * seconds, f"too little was written to show anything\n{said}"
    assert torment.happened["SIGKILL"] >= seconds / 20, f"too little happened to show anything\n{said}"
    return f"{said}; each had its effect exactly once"


def _compare(private: Private, changes: int, said: str) -> None:
    assert private.execute("SELECT error FROM walsignals_deadletter LIMIT 3") == [], said
    source, copy = ("SELECT id, text FROM testapp_note", "SELECT id, text FROM shadow_note")
    assert private.execute(f"{source} EXCEPT ALL {copy}") == [], f"lost\n{said}"
    assert private.execute(f"{copy} EXCEPT ALL {source}") == [], f"not to be there\n{said}"
    assert private.execute("SELECT count(*), count(DISTINCT change_id) FROM shadow_call") == [(changes, changes)], said


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))

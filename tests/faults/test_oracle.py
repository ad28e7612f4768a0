"""The oracle: whatever is written, and whatever happens to the consumers, the shadow ends up equal to the source."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from django_walsignals.models import DeadLetter
from tests.faults import shadow
from tests.faults.chaos import Torment, Workload, drain
from tests.streams import Stream

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: How long the writers write, in seconds.
SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))

WRITERS = 4


def execute(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


@pytest.fixture
def shadowed(stream: Stream) -> Iterator[Stream]:
    """Give a stream of notes, and an empty shadow."""
    stream.configure(MODELS=["testapp.Note"], BATCH_SIZE=100)
    for statement in (*shadow.DROP, *shadow.MAKE):
        execute(statement)
    with stream.process("--until-lsn", "now", receivers="tests.faults.shadow") as consumer:
        consumer.succeed()
    yield stream
    for statement in shadow.DROP:
        execute(statement)


def test_shadow_equals_its_source_whatever_happens(shadowed: Stream, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("SOAK_SEED", "20261121"))
    torment = Torment(shadowed, seed)
    with Workload(WRITERS, seed) as workload:
        torment.run(SECONDS)
    drain(shadowed)
    expected = workload.changes
    ((calls, distinct),) = execute("SELECT count(*), count(DISTINCT change_id) FROM shadow_call")
    with capsys.disabled():
        sys.stdout.write(f"\nsurvived (seed {seed}): {_said(torment.happened)}\n")
        sys.stdout.write(f"changes: {expected.total()} ({_said(expected)}); effects: {calls}\n")
    assert not DeadLetter.objects.exists(), list(DeadLetter.objects.values_list("error", flat=True))[:5]
    assert execute("SELECT id, text FROM testapp_note EXCEPT ALL SELECT id, text FROM shadow_note") == []
    assert execute("SELECT id, text FROM shadow_note EXCEPT ALL SELECT id, text FROM testapp_note") == []
    assert (calls, distinct) == (expected.total(), expected.total())
    assert expected.total() > 50 * SECONDS, "too little was written to show anything"
    assert torment.happened["SIGKILL"] >= SECONDS / 10, "too little happened to show anything"


def _said(counts: Any) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))

"""A gap that somebody accepted is told to the receivers of ``wal_gap``: in the transaction that moves the checkpoint."""

from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connection

from django_walsignals import LSN, wal_gap
from tests.ledger.models import Effect
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


@pytest.fixture
def gap(stream: Stream) -> Stream:
    """Give a stream of notes that has lost its slot, and a change with it."""
    stream.listen(Note)
    stream.set_up()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_drop_replication_slot(%s)", [stream.name])
    Note.objects.create(text="lost")
    return stream


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keep what ``wal_gap`` says, and leave an effect each time."""
    said: list[dict[str, Any]] = []

    def listen(**kwargs: Any) -> None:
        Effect.objects.create(text="gap")
        said.append(kwargs)

    monkeypatch.setattr(wal_gap, "receivers", [])
    wal_gap.connect(listen, weak=False)
    return said


def test_accepted_gap_is_told_once_with_where_it_begins_and_ends(gap: Stream, heard: list[dict[str, Any]]) -> None:
    before = gap.checkpoint.lsn
    assert gap.consume(accept_gap=True) == []
    (said,) = heard
    assert said["stream"] == "default"
    assert said["from_lsn"] == before
    assert before < said["to_lsn"]
    assert isinstance(said["from_lsn"], LSN) and isinstance(said["to_lsn"], LSN)
    assert "is gone" in said["reason"]
    Note.objects.create(text="after")
    assert [change.instance.text for change in gap.consume(accept_gap=True)] == ["after"]
    assert len(heard) == 1, "a gap that is over was told again"


def test_refused_gap_is_not_told(gap: Stream, heard: list[dict[str, Any]]) -> None:
    with pytest.raises(CommandError, match="is gone"):
        gap.consume()
    assert heard == []


def test_receiver_that_raises_leaves_the_gap_as_it_was(gap: Stream, heard: list[dict[str, Any]]) -> None:
    before = gap.checkpoint.lsn

    def fail(**kwargs: Any) -> None:
        raise LookupError("can't resynchronise now")

    wal_gap.connect(fail)
    with pytest.raises(LookupError, match="can't resynchronise"):
        gap.consume(accept_gap=True)
    assert gap.checkpoint.lsn == before
    assert not Effect.objects.exists()
    wal_gap.disconnect(fail)
    gap.consume(accept_gap=True)
    assert Effect.objects.count() == 1

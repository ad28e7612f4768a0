"""Consumers that are wrong on purpose, each killed by a scenario that the real one survives.

Random kills are known to miss such mistakes: a position one byte too far loses a change only where two commits touch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError
from django.db import connection
from django.utils import timezone

from django_walsignals import LSN, WalChange, post_wal_change
from django_walsignals.delivery import careful, consumer
from django_walsignals.delivery.careful import CarefulDelivery
from django_walsignals.delivery.checkpoint import CheckpointStore, NoCheckpoint
from django_walsignals.delivery.consumer import Consumer
from django_walsignals.delivery.intake import Intake
from django_walsignals.delivery.position import Position
from django_walsignals.protocol import pgoutput
from django_walsignals.protocol.messages import Begin, Commit
from tests.ledger.models import Effect
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration

Patch = pytest.MonkeyPatch


class Killed(BaseException):
    """Ends the consumer on the spot: nothing in it may catch this."""


@pytest.fixture
def notes(stream: Stream) -> Stream:
    """Give a stream of notes that is set up."""
    stream.listen(Note)
    stream.set_up()
    return stream


# The scenarios. Each ends with a check of its own, which says what went wrong.


def stopped_exactly_between_adjacent_commits(notes: Stream) -> None:
    """``end_lsn(N) == commit_lsn(N + 1)``, and the consumer ends when it has stored that it is done with N."""
    _write_adjacent(notes)
    with Patch.context() as patch:
        patch.setattr(consumer, "MAX_FRAMES", 1)  # a frame at a time, so that it can be stopped between two
        patch.setattr(consumer, "IDLE_SAVE_BYTES", 0)
        patch.setattr(consumer, "IDLE_SAVE_SECONDS", 0.0)
        patch.setattr(CheckpointStore, "save", _killing_after(CheckpointStore.save, lambda: bool(notes.changes)))
        with pytest.raises(Killed):
            notes.consume()
    assert _texts(notes.changes) == ["N"]
    assert _texts(notes.consume()) == ["N + 1"], "lost a change"


def killed_in_a_receiver(notes: Stream) -> None:
    """Die in a receiver when the whole transaction has come, and its commit, and nothing is done yet."""
    Note.objects.create(text="a")
    with Patch.context() as patch:
        patch.setattr(careful, "call", _kill)
        patch.setattr(Consumer, "_take_in", _take_in_whole)
        with pytest.raises(Killed):
            notes.consume()
    notes.changes.clear()
    assert _texts(notes.consume()) == ["a"], "lost a change"


def killed_in_a_receiver_behind_a_keepalive(notes: Stream) -> None:
    """After the transaction in hand a keepalive came, which says that the server has sent everything up to its end."""
    Note.objects.create(text="a")
    with Patch.context() as patch:
        patch.setattr(careful, "call", _kill)
        patch.setattr(Consumer, "_take_in", _take_in_with_a_keepalive)
        with pytest.raises(Killed):
            notes.consume()
    notes.changes.clear()
    assert _texts(notes.consume()) == ["a"], "lost a change"


def overtaken_by_a_rival(notes: Stream) -> None:
    """Lose the walsender while a receiver runs, and have another process do the change meanwhile."""
    overtaken: list[str] = []

    def be_overtaken(*, change: WalChange[Note], **kwargs: Any) -> None:
        Effect.objects.create(change_id=change.id, text=change.instance.text)
        if not overtaken:
            overtaken.append(change.id)
            _overtake(notes)

    Note.objects.create(text="a")
    with _receiver(be_overtaken):
        notes.consume()
    assert overtaken
    assert [effect.text for effect in Effect.objects.all()] == ["a"], "did a change twice"


def committed_under_a_role_that_does_not_wait_for_the_disk(notes: Stream) -> None:
    """Commit where a crash of the server could take it back, after the server was told to forget what it covers."""
    seen: list[str] = []
    move = CheckpointStore.move

    def look(*args: Any) -> None:
        move(*args)
        with connection.cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            seen.extend(cursor.fetchone())

    Note.objects.create(text="a")
    with Patch.context() as patch:
        patch.setattr(CheckpointStore, "move", look)
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
        try:
            notes.consume()
        finally:
            connection.close()
    assert seen
    assert {*seen} == {"on"}, "a commit that is not durable"


# The mutants.


def one_added_to_the_stored_position(patch: Patch) -> None:
    passing = Intake._pass
    patch.setattr(Intake, "_pass", lambda self, end: passing(self, LSN(end + 1)))


def changes_committed_at_the_checkpoint_skipped(patch: Patch) -> None:
    covers = Position.covers
    patch.setattr(Position, "covers", lambda self, lsn, ordinal: lsn <= self.lsn or covers(self, lsn, ordinal))


def acknowledged_before_the_commit(patch: Patch) -> None:
    deliver = Consumer._deliver

    def acknowledge_first(self: Consumer) -> None:
        with self._connection.lock:
            self._feedback.confirm(self._intake.position.lsn)
        deliver(self)

    patch.setattr(Consumer, "_deliver", acknowledge_first)


def keepalive_acknowledged_with_work_queued(patch: Patch) -> None:
    answer = Consumer._answer

    def acknowledge(self: Consumer, keepalive: Any) -> None:
        answer(self, keepalive)
        self._feedback.confirm(keepalive.wal_end)

    patch.setattr(Consumer, "_answer", acknowledge)


def checkpoint_written_before_the_receivers(patch: Patch) -> None:
    deliver = CarefulDelivery.deliver

    def save_first(self: CarefulDelivery, events: Any, keeper: Any, old: Position, new: Position) -> None:
        keeper.save(old, new)
        deliver(self, events, NoCheckpoint(), old, new)

    patch.setattr(CarefulDelivery, "deliver", save_first)


def no_compare_and_swap(patch: Patch) -> None:
    def overwrite(self: CheckpointStore, old: Position, new: Position, at: datetime | None = None) -> None:
        self._rows().update(**new._asdict(), updated_at=timezone.now())

    patch.setattr(CheckpointStore, "move", overwrite)


def commit_not_made_durable(patch: Patch) -> None:
    patch.setattr(CheckpointStore, "_set_durable", lambda self: None)


@dataclass(frozen=True)
class Mutant:
    """A mistake, the scenario that shows it, and what the scenario says then."""

    make: Callable[[Patch], None]
    scenario: Callable[[Stream], None]
    said: str


MUTANTS = [
    Mutant(one_added_to_the_stored_position, stopped_exactly_between_adjacent_commits, "lost a change"),
    Mutant(changes_committed_at_the_checkpoint_skipped, stopped_exactly_between_adjacent_commits, "lost a change"),
    Mutant(acknowledged_before_the_commit, killed_in_a_receiver, "ahead of the checkpoint"),
    Mutant(keepalive_acknowledged_with_work_queued, killed_in_a_receiver_behind_a_keepalive, "ahead of the checkpoint"),
    Mutant(checkpoint_written_before_the_receivers, killed_in_a_receiver, "lost a change"),
    Mutant(no_compare_and_swap, overtaken_by_a_rival, "did a change twice"),
    Mutant(
        commit_not_made_durable,
        committed_under_a_role_that_does_not_wait_for_the_disk,
        "a commit that is not durable",
    ),
]
SCENARIOS = list(dict.fromkeys(mutant.scenario for mutant in MUTANTS))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_real_consumer_survives(notes: Stream, scenario: Callable[[Stream], None]) -> None:
    scenario(notes)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.make.__name__)
def test_mutant_is_killed(notes: Stream, monkeypatch: Patch, mutant: Mutant) -> None:
    mutant.make(monkeypatch)
    with pytest.raises((AssertionError, CommandError), match=mutant.said):
        mutant.scenario(notes)


# What the scenarios are made of.


def _texts(changes: list[WalChange[Note]]) -> list[str]:
    return [change.instance.text for change in changes]


def _write_adjacent(notes: Stream) -> None:
    """Commit N and N + 1 so that they touch, as they do under load; other WAL may come between, so look and repeat."""
    for _ in range(10):
        with psycopg.connect(database_dsn()) as first, psycopg.connect(database_dsn()) as second:
            for session, text in ((first, "N"), (second, "N + 1")):
                session.execute("INSERT INTO testapp_note (text) VALUES (%s)", [text])
            first.commit()
            second.commit()
        if _are_adjacent(notes):
            return
        notes.consume()
        notes.changes.clear()
    pytest.fail("no two commits were adjacent")


def _are_adjacent(notes: Stream) -> bool:
    """Read the stream without taking anything from it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
            "'proto_version', '1', 'publication_names', %s)",
            [notes.name, f'"Pub ""{notes.name}"""'],
        )
        messages = [pgoutput.decode(bytes(data)) for (data,) in cursor.fetchall()]
    ends = {message.end_lsn for message in messages if isinstance(message, Commit)}
    return any(message.final_lsn in ends for message in messages if isinstance(message, Begin))


def _killing_after(method: Callable[..., None], when: Callable[[], bool]) -> Callable[..., None]:
    def deadly(*args: Any) -> None:
        method(*args)
        if when():
            raise Killed

    return deadly


def _kill(*args: Any) -> None:
    raise Killed


@contextmanager
def _receiver(receiver: Callable[..., None]) -> Iterator[None]:
    post_wal_change.connect(receiver, sender=Note)
    try:
        yield
    finally:
        post_wal_change.disconnect(receiver, sender=Note)


_take_in = Consumer._take_in


def _take_in_whole(self: Consumer) -> bool:
    """Go on until the commit of what is in hand has come too."""
    is_dry = _take_in(self)
    while self._intake.in_transaction:
        self._waiter.wait(0.1)
        is_dry = _take_in(self)
    return is_dry


def _take_in_with_a_keepalive(self: Consumer) -> bool:
    """Ask the server for a keepalive behind what is in hand, and take that in too."""
    is_dry = _take_in_whole(self)
    if self._batch.events:
        self._feedback.send(reply_requested=True)
        self._waiter.wait(5)
        is_dry = _take_in(self)
    return is_dry


def _overtake(notes: Stream) -> None:
    with psycopg.connect(database_dsn(), autocommit=True) as session:
        terminate = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s"
        assert session.execute(terminate, [notes.name]).fetchall() == [(True,)]
    with notes.process("--until-lsn", "now") as rival:
        rival.succeed()

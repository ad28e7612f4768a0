"""Nothing lost and nothing repeated: restarts at the awkward moments, and real kills."""

import random
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError
from django.db import DatabaseError, connection, transaction

from django_walsignals import LSN, WalChange, post_wal_change, wal_message
from django_walsignals.delivery.feedback import Feedback
from django_walsignals.models import Checkpoint
from tests.ledger.models import Effect
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def execute(sql: str, params: Any = None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def texts(changes: list[WalChange[Note]]) -> list[str]:
    return [change.instance.text for change in changes]


def record_effects(*, change: WalChange[Note], **kwargs: Any) -> None:
    Effect.objects.create(change_id=change.id, note_id=change.pk, text=change.instance.text)


@pytest.fixture
def notes(stream: Stream) -> Stream:
    """Give a stream of notes that is set up."""
    stream.listen(Note)
    stream.set_up()
    return stream


def test_restart_in_the_middle_of_a_transaction_goes_on_behind_the_last_change(notes: Stream) -> None:
    Note.objects.bulk_create(Note(text=str(number)) for number in range(10))
    assert texts(notes.consume(until_lsn=None, max_changes=4)) == ["0", "1", "2", "3"]
    checkpoint = notes.checkpoint
    assert checkpoint.ordinal == 4
    assert checkpoint.commit_lsn > checkpoint.lsn
    assert texts(notes.consume()) == ["4", "5", "6", "7", "8", "9"]
    assert (notes.checkpoint.commit_lsn, notes.checkpoint.ordinal) == (0, 0)


def test_next_transaction_that_commits_where_the_last_one_ended_is_delivered(
    notes: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``end_lsn(N) == commit_lsn(N + 1)`` is the rule under load; one added to the position would lose N + 1."""
    with psycopg.connect(database_dsn()) as first, psycopg.connect(database_dsn()) as second:
        for session, text in ((first, "N"), (second, "N + 1")):
            session.execute("INSERT INTO testapp_note (text) VALUES (%s)", [text])
        first.commit()
        second.commit()
    with monkeypatch.context() as patched:  # the slot stays behind, so that the server can send all again
        patched.setattr(Feedback, "send", lambda self, **kwargs: None)
        earlier, later = notes.consume()
    end_lsn = earlier.transaction.end_lsn
    assert end_lsn == later.transaction.commit_lsn, "the commits were not adjacent: the test showed nothing"
    Checkpoint.objects.update(lsn=end_lsn)  # as if the consumer had been stopped exactly after N
    assert texts(notes.consume()) == ["N + 1"]
    assert notes.consume() == []


def test_restart_with_the_feedback_lost_repeats_nothing(notes: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    before = notes.slot()
    with monkeypatch.context() as patched:
        patched.setattr(Feedback, "send", lambda self, **kwargs: None)
        Note.objects.create(text="once")
        assert texts(notes.consume()) == ["once"]
    after = notes.slot()
    assert before is not None
    assert after is not None
    assert after.confirmed_flush == before.confirmed_flush, "the server was told after all: the test showed nothing"
    assert notes.consume() == []


def test_keepalive_in_the_middle_of_a_transaction_loses_nothing(notes: Stream) -> None:
    """Inside a large transaction a keepalive says ``wal_end == commit_lsn``: taken for done, it would be skipped."""
    notes.configure(BATCH_SIZE=100)
    Note.objects.bulk_create(Note(text="x" * 1000) for number in range(3000))
    first = notes.consume(until_lsn=None, max_changes=150)
    assert len(first) == 150
    checkpoint = notes.checkpoint
    Checkpoint.objects.update(lsn=checkpoint.commit_lsn)  # as an idle position that came with such a keepalive would
    assert len(notes.consume()) == 2850


def test_rows_of_a_copy_that_share_one_lsn_are_told_apart(notes: Stream) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY testapp_note (text) FROM STDIN") as copy:
        for number in range(5):
            copy.write_row((str(number),))
    assert texts(notes.consume(until_lsn=None, max_changes=2)) == ["0", "1"]
    rest = notes.consume()
    assert texts(rest) == ["2", "3", "4"]
    assert [change.ordinal for change in rest] == [3, 4, 5]


def test_empty_transaction_moves_the_position_only(notes: Stream) -> None:
    before = notes.checkpoint.lsn
    with transaction.atomic():
        execute("CREATE TABLE made_by_a_test ()")
    execute("DROP TABLE made_by_a_test")
    assert notes.consume() == []
    assert notes.checkpoint.lsn > before


def test_message_outside_a_transaction_is_delivered_once(notes: Stream) -> None:
    heard: list[tuple[str, bytes, Any]] = []

    def listen(*, prefix: str, content: bytes, transaction: Any, **kwargs: Any) -> None:
        heard.append((prefix, content, transaction))

    wal_message.connect(listen)
    with transaction.atomic():
        execute("SELECT pg_logical_emit_message(false, 'app', 'stays')")
        execute("SELECT pg_logical_emit_message(true, 'app', 'goes')")
        transaction.set_rollback(True)
    Note.objects.create(text="after")
    notes.consume(until_lsn=None, max_changes=1)
    assert heard == [("app", b"stays", None)]
    assert texts(notes.consume()) == ["after"]
    assert len(heard) == 1


def test_transactional_message_comes_in_its_place(notes: Stream) -> None:
    order: list[str] = []

    def listen(*, content: bytes, transaction: Any, **kwargs: Any) -> None:
        order.append(f"{content.decode()} of {transaction.commit_lsn}")

    def change(*, change: WalChange[Note], **kwargs: Any) -> None:
        order.append(f"{change.instance.text} of {change.transaction.commit_lsn}")

    wal_message.connect(listen)
    post_wal_change.connect(change, sender=Note)
    with transaction.atomic():
        Note.objects.create(text="before")
        execute("SELECT pg_logical_emit_message(true, 'app', 'message')")
        Note.objects.create(text="after")
    commit_lsn = notes.consume()[0].transaction.commit_lsn
    assert order == [f"{what} of {commit_lsn}" for what in ("before", "message", "after")]


def test_receiver_that_raises_rolls_the_batch_back_and_it_comes_again(notes: Stream) -> None:
    def fail(*, change: WalChange[Note], **kwargs: Any) -> None:
        Effect.objects.create(change_id=change.id)
        raise LookupError("no such thing")

    notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
    post_wal_change.connect(fail, sender=Note)
    Note.objects.create(text="a")
    before = notes.checkpoint.lsn
    with pytest.raises(
        CommandError, match=r"test_receiver_that_raises.*fail raised LookupError on change .*no such thing"
    ):
        notes.consume()
    assert notes.checkpoint.lsn == before
    assert not Effect.objects.exists()
    post_wal_change.disconnect(fail, sender=Note)
    assert texts(notes.consume()) == ["a"]


def test_receiver_that_swallows_a_database_error_is_not_counted_as_done(notes: Stream) -> None:
    def swallow(**kwargs: Any) -> None:
        with suppress(DatabaseError):
            execute("SELECT 1/0")

    notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
    post_wal_change.connect(swallow, sender=Note)
    Note.objects.create(text="a")
    with pytest.raises(CommandError, match="current transaction is aborted"):
        notes.consume()
    post_wal_change.disconnect(swallow, sender=Note)
    assert texts(notes.consume()) == ["a"]


def test_receiver_that_closes_the_connection_is_not_counted_as_done(notes: Stream) -> None:
    def close(**kwargs: Any) -> None:
        connection.close()

    notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
    post_wal_change.connect(close, sender=Note)
    Note.objects.create(text="a")
    with pytest.raises(CommandError, match="closed the database connection"):
        notes.consume()
    post_wal_change.disconnect(close, sender=Note)
    assert texts(notes.consume()) == ["a"]


def test_on_commit_hook_that_raises_neither_repeats_the_batch_nor_takes_other_hooks_with_it(
    notes: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    def hooked(*, change: WalChange[Note], **kwargs: Any) -> None:
        def hook() -> None:
            ran.append(change.instance.text)
            if change.instance.text == "bad":
                raise RuntimeError("hook")

        transaction.on_commit(hook)

    post_wal_change.connect(hooked, sender=Note)
    Note.objects.bulk_create([Note(text="bad"), Note(text="good")])
    assert texts(notes.consume()) == ["bad", "good"]
    assert ran == ["bad", "good"]
    assert "hook" in caplog.text
    assert notes.consume() == []


def test_async_receiver_writes_in_the_transaction_of_the_checkpoint(notes: Stream) -> None:
    async def write(*, change: WalChange[Note], **kwargs: Any) -> None:
        await Effect.objects.acreate(change_id=change.id, text=change.instance.text)
        if change.instance.text == "bad":
            raise RuntimeError("rolled back with the rest")

    notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=1)
    post_wal_change.connect(write, sender=Note)
    Note.objects.create(text="good")
    Note.objects.create(text="bad")
    with pytest.raises(CommandError, match="rolled back with the rest"):
        notes.consume()
    assert [effect.text for effect in Effect.objects.all()] == ["good"]
    Note.objects.filter(text="bad").update(text="better")
    post_wal_change.disconnect(write, sender=Note)
    post_wal_change.connect(record_effects, sender=Note)
    notes.consume()
    assert list(Effect.objects.order_by("pk").values_list("text", flat=True)) == ["good", "bad", "better"]


def test_consumer_that_lost_its_checkpoint_to_a_rival_commits_nothing(
    notes: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[str] = []

    def be_overtaken(*, change: WalChange[Note], **kwargs: Any) -> None:
        Effect.objects.create(change_id=change.id)
        attempts.append(change.id)
        if len(attempts) > 1:
            return
        overtake = threading.Thread(target=_move_checkpoint)
        overtake.start()
        overtake.join()

    post_wal_change.connect(be_overtaken, sender=Note)
    Note.objects.create(text="a")
    notes.consume()
    assert "another consumer has moved it" in caplog.text
    assert len(attempts) == 2, "the first attempt was not fenced, or not taken again"
    assert Effect.objects.count() == 1


def _move_checkpoint() -> None:
    checkpoint = Checkpoint.objects.get(stream="default")
    Checkpoint.objects.update(lsn=LSN(checkpoint.lsn + 8))
    connection.close()


def test_kill_after_the_receiver_and_before_the_commit_applies_the_change_once(notes: Stream) -> None:
    Note.objects.create(text="deadly")
    with notes.process(EFFECTS_KILL_ON="deadly") as consumer:
        assert consumer.wait() == -signal.SIGKILL
    assert not Effect.objects.exists()
    notes.process("--until-lsn", "now").succeed()
    assert Effect.objects.get().text == "deadly"


@pytest.mark.slow
def test_kills_at_random_moments_under_load_leave_every_effect_exactly_once(
    notes: Stream, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes, rollbacks and deletes go on while consumers are killed; then the effects are counted."""
    chance = random.Random(20261121)
    stop = threading.Event()
    expected = 0

    def write() -> None:
        nonlocal expected
        while not stop.is_set():
            with transaction.atomic():
                made = Note.objects.bulk_create(Note(text=f"{number}") for number in range(chance.randrange(1, 30)))
            with transaction.atomic():
                updated = Note.objects.filter(pk__in=[note.pk for note in made[::2]]).update(text="updated")
            deleted, _ = Note.objects.filter(pk__in=[note.pk for note in made[::3]]).delete()
            _roll_back()
            expected += len(made) + updated + deleted
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    kills = _kill_consumers(notes, chance, kills=12)
    stop.set()
    writer.join()
    with notes.process("--until-lsn", "now") as consumer:
        consumer.succeed(timeout=120)
    effects = Effect.objects.count()
    with capsys.disabled():
        sys.stdout.write(f"\nsurvived {kills} kills: {expected} changes, {effects} effects\n")
    assert expected > 2000
    assert effects == expected
    assert Effect.objects.values("change_id").distinct().count() == expected


def _roll_back() -> None:
    with transaction.atomic():
        Note.objects.create(text="never")
        transaction.set_rollback(True)


def _kill_consumers(notes: Stream, chance: random.Random, kills: int) -> int:
    for _ in range(kills):
        before = Effect.objects.count()
        wanted = before + chance.randrange(1, 200)
        with notes.process() as consumer:
            wait_until(lambda wanted=wanted: Effect.objects.count() >= wanted, timeout=60)
            consumer.kill()
    return kills

"""The careful path: retries, dead letters, suspects, and whatever a receiver may do to the batch's transaction."""

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError
from django.db import DatabaseError, close_old_connections, connection, transaction

from django_walsignals import LSN, WalChange, post_wal_change, post_wal_truncate, wal_message
from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import letters
from django_walsignals.delivery.backoff import Backoff
from django_walsignals.delivery.careful import SUSPECT_AFTER, CarefulDelivery, Interrupted
from django_walsignals.delivery.checkpoint import NoCheckpoint
from django_walsignals.delivery.position import Position
from django_walsignals.delivery.routing import ReceivedMessage, Target
from django_walsignals.exceptions import DeliveryError, ReceiverError
from django_walsignals.models import DeadLetter
from tests.ledger.models import Effect
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note

Receive = Callable[..., Any]

NOW = Backoff(first=1, cap=8, chance=lambda: 1.0)
CONFIG = StreamConfig("default", "default", "default", "slot", "publication", max_attempts=3)
START = Position(LSN(8))


def execute(sql: str, params: Any = None) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def texts(changes: list[WalChange[Note]]) -> list[str]:
    return [change.instance.text for change in changes]


class TestBackoff:
    @pytest.mark.parametrize(
        ("failures", "wait"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (6, 5.0), (10**9, 5.0)]
    )
    def test_the_wait_doubles_up_to_the_cap(self, failures: int, wait: float) -> None:
        assert Backoff(first=0.5, cap=5.0, chance=lambda: 1.0).wait_after(failures) == wait

    @pytest.mark.parametrize(("chance", "wait"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
    def test_the_jitter_takes_up_to_half_of_it_away(self, chance: float, wait: float) -> None:
        assert Backoff(first=2.0, cap=5.0, chance=lambda: chance).wait_after(1) == wait

    def test_by_default_the_wait_is_left_to_chance_between_the_bounds(self) -> None:
        waits = {Backoff(first=2.0, cap=60.0).wait_after(2) for _ in range(100)}
        assert len(waits) > 50
        assert all(2.0 <= wait <= 4.0 for wait in waits)


class Keeper:
    """A checkpoint that is kept nowhere; it refuses so many moves first."""

    def __init__(self, refusals: int = 0) -> None:
        self.moves: list[Position] = []
        self.refusals = refusals

    def move(self, old: Position, new: Position, committed_at: datetime | None = None) -> None:
        if self.refusals:
            self.refusals -= 1
            raise DeliveryError("refused")
        self.moves.append(new)

    def save(self, old: Position, new: Position) -> None:
        raise AssertionError("nothing here is idle")


class Receiver:
    """A receiver that raises so many times, or for ever, and counts."""

    def __init__(self, failures: float = 0, path: str = "shop.receiver", error: Exception | None = None) -> None:
        self.failures = failures
        self.calls = 0
        self.error = error or LookupError("no such thing")
        self.target = Target(self.receive, path)

    def receive(self, message: ReceivedMessage) -> None:
        self.calls += 1
        Effect.objects.create(change_id=message.id, text=self.target.path)
        if self.failures:
            self.failures -= 1
            raise self.error


def message(number: int) -> ReceivedMessage:
    return ReceivedMessage("app", b"content", None, LSN(1000 + 8 * number), 1)


class Delivery:
    """A delivery whose waits are noted and not waited."""

    def __init__(self, config: StreamConfig = CONFIG, *, left_to_the_end: bool = True) -> None:
        self.waits: list[float] = []
        self.left_to_the_end = left_to_the_end
        self.careful = CarefulDelivery(config, NOW, self._pause)
        self.batches_taken_again = 0

    def deliver(self, *receivers: Receiver, messages: int = 1, batch: int = 1, keeper: Any = None) -> None:
        """Deliver as the consumer does: fast, and carefully where that fails."""
        keeper = keeper or Keeper()
        targets = tuple(receiver.target for receiver in receivers)
        for first in range(0, messages, batch):
            events: Any = [(message(number), targets) for number in range(first, first + batch)]
            try:
                self.careful.deliver(events, keeper, START, START)
            except DeliveryError:
                self.batches_taken_again += 1
                self.careful.deliver_carefully(events, keeper, START, lambda position: None)

    def _pause(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self.left_to_the_end


@pytest.mark.integration
@pytest.mark.django_db(transaction=True)
class TestCarefulDelivery:
    def test_waits_grow_between_the_attempts_and_the_last_one_is_followed_by_none(self) -> None:
        delivery, receiver = Delivery(), Receiver(failures=99)
        delivery.deliver(receiver)
        assert delivery.waits == [1, 2]
        assert DeadLetter.objects.get().attempts == 3
        assert receiver.calls == 1 + 3  # the fast path's was none of the attempts
        assert not Effect.objects.exists()

    def test_receiver_that_fails_on_everything_is_waited_for_a_bounded_number_of_times(self) -> None:
        delivery, bad, good = Delivery(), Receiver(failures=10**9, path="bad"), Receiver(path="good")
        delivery.deliver(good, bad, messages=60, batch=20)
        assert len(delivery.waits) == SUSPECT_AFTER * (CONFIG.max_attempts - 1)
        assert delivery.batches_taken_again == 1
        assert DeadLetter.objects.count() == delivery.careful.dead_letters == 60
        assert Effect.objects.filter(text="good").count() == 60
        assert not Effect.objects.filter(text="bad").exists()
        assert DeadLetter.objects.filter(attempts=1).count() == 60 - SUSPECT_AFTER

    def test_suspect_that_succeeds_has_all_its_attempts_again(self) -> None:
        delivery, receiver = Delivery(), Receiver(failures=10**9)
        delivery.deliver(receiver, messages=SUSPECT_AFTER + 1)
        receiver.failures = 0
        delivery.deliver(receiver, messages=1)
        delivery.waits.clear()
        receiver.failures = 2
        delivery.deliver(receiver, messages=1)
        assert delivery.waits == [1]  # failed in the fast path, then once here, then worked

    def test_dead_letters_with_successes_between_make_no_suspect(self) -> None:
        delivery, receiver = Delivery(), Receiver()
        for _ in range(SUSPECT_AFTER + 2):
            receiver.failures = 4  # the fast path's call and all its attempts
            delivery.deliver(receiver)
            delivery.deliver(receiver)
        assert delivery.waits == [1, 2] * (SUSPECT_AFTER + 2)

    def test_suspect_that_works_now_and_then_stays_one_until_a_batch_passes(self) -> None:
        delivery, receiver = Delivery(), Receiver(failures=10**9)
        delivery.deliver(receiver, messages=SUSPECT_AFTER)
        delivery.waits.clear()
        receiver.failures = 1
        delivery.deliver(receiver, messages=10, batch=10)
        receiver.failures = 1
        delivery.deliver(receiver, messages=10, batch=10)
        assert delivery.waits == []
        delivery.deliver(receiver, messages=10, batch=10)
        receiver.failures = 2
        delivery.deliver(receiver)
        assert delivery.waits == [1]

    def test_suspect_beside_a_working_receiver_of_the_same_path_is_one(self) -> None:
        delivery = Delivery()
        delivery.deliver(Receiver(path="made"), Receiver(10**9, "made"), messages=20)
        assert len(delivery.waits) == SUSPECT_AFTER * (CONFIG.max_attempts - 1)

    def test_two_receivers_of_one_path_have_a_letter_each(self) -> None:
        """Two partials, or two functions made by one factory, have the same path."""
        Delivery().deliver(Receiver(99, "made"), Receiver(path="made"), Receiver(99, "made"))
        assert [*DeadLetter.objects.values_list("receiver", flat=True)] == ["made", "made#3"]

    def test_letter_that_is_there_already_is_written_anew(self) -> None:
        """A stream that started over brings the change again; a conflict would jam it for ever."""
        Delivery().deliver(Receiver(99))
        before = DeadLetter.objects.get()
        Delivery().deliver(Receiver(99, error=ValueError("another")))
        after = DeadLetter.objects.get()
        assert after.error == "ValueError: another"
        assert after.first_failed_at == before.first_failed_at
        assert after.last_failed_at > before.last_failed_at

    def test_temporary_stream_leaves_no_letter(self) -> None:
        delivery = Delivery()
        delivery.deliver(Receiver(99), keeper=NoCheckpoint(), messages=SUSPECT_AFTER + 2)
        assert delivery.careful.dead_letters == SUSPECT_AFTER + 2
        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize(
        ("text", "stored"),
        [("a\0b", r"a\x00b"), ("a\ud800b", r"a\ud800b"), ("ü\U0001f600", "ü\U0001f600")],
        ids=["NUL", "lone surrogate", "other"],
    )
    def test_error_of_any_text_is_stored(self, text: str, stored: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("CRITICAL", "django_walsignals")  # xdist can't carry a lone surrogate in a captured log
        Delivery().deliver(Receiver(99, error=ValueError(text)))
        letter = DeadLetter.objects.get()
        assert letter.error == f"ValueError: {stored}"
        assert stored in letter.traceback

    def test_refusal_that_no_receiver_can_be_blamed_for_is_tried_again(self) -> None:
        delivery, receiver, keeper = Delivery(), Receiver(), Keeper(refusals=2)
        delivery.deliver(receiver, keeper=keeper)
        assert delivery.waits == [1]
        assert keeper.moves == [Position(START.lsn, message(0).commit_lsn, 1)]
        assert Effect.objects.count() == 1

    def test_refusal_that_does_not_end_ends_the_delivery(self) -> None:
        delivery = Delivery()
        with pytest.raises(DeliveryError, match="refused"):
            delivery.deliver(Receiver(), keeper=Keeper(refusals=99))
        assert delivery.waits == [1, 2]
        assert not Effect.objects.exists()

    def test_stop_during_a_wait_leaves_the_change_undone(self) -> None:
        delivery, keeper = Delivery(left_to_the_end=False), Keeper()
        with pytest.raises(Interrupted):
            delivery.deliver(Receiver(99), keeper=keeper)
        assert keeper.moves == []
        assert not Effect.objects.exists()
        assert not DeadLetter.objects.exists()

    def test_stop_on_error_raises_after_the_last_attempt(self) -> None:
        config = StreamConfig("default", "default", "default", "slot", "p", max_attempts=3, on_error="stop")
        delivery = Delivery(config)
        with pytest.raises(ReceiverError, match="no such thing"):
            delivery.deliver(Receiver(99))
        assert delivery.waits == [1, 2]
        assert not DeadLetter.objects.exists()


def record(*, change: WalChange[Note], **kwargs: Any) -> None:
    Effect.objects.create(change_id=change.id, note_id=change.pk, text=change.instance.text)


def effects() -> list[str]:
    return [*Effect.objects.order_by("pk").values_list("text", flat=True)]


@pytest.fixture
def notes(stream: Stream) -> Stream:
    """Give a stream of notes that is set up, with a receiver that works."""
    stream.configure(MAX_ATTEMPTS=2)
    stream.listen(Note)
    post_wal_change.connect(record, sender=Note)
    stream.set_up()
    return stream


@pytest.mark.integration
class TestRetries:
    def test_receiver_that_raises_once_has_its_effect_once(self, notes: Stream) -> None:
        calls: list[str] = []

        def flaky(*, change: WalChange[Note], **kwargs: Any) -> None:
            calls.append(change.id)
            Effect.objects.create(text="flaky")
            if len(calls) == 1:
                raise LookupError("once")

        post_wal_change.connect(flaky, sender=Note)
        Note.objects.create(text="a")
        notes.consume()
        assert len(calls) == 2
        assert effects() == ["a", "flaky"]
        assert not DeadLetter.objects.exists()

    def test_letter_says_everything_and_the_stream_goes_on(self, notes: Stream) -> None:
        def fail(*, change: WalChange[Note], **kwargs: Any) -> None:
            Effect.objects.create(text="never")
            if change.instance.text == "bad":
                raise LookupError("no such thing")

        post_wal_change.connect(fail, sender=Note, dispatch_uid="fail")
        bad = Note.objects.create(text="bad")
        bad.text = "better"
        bad.save()
        inserted, updated = notes.consume()[-2:]
        letter = DeadLetter.objects.get()
        assert (letter.stream, letter.change_id, letter.kind) == ("default", inserted.id, "change")
        assert (letter.model, letter.pk_text, letter.operation) == ("testapp.Note", str(bad.pk), "insert")
        assert letter.receiver.startswith("tests.delivery.test_careful.")
        assert letter.receiver.endswith(".fail")
        assert letter.error == "LookupError: no such thing"
        assert 'raise LookupError("no such thing")' in letter.traceback
        assert letter.attempts == 2
        assert letter.first_failed_at < letter.last_failed_at
        assert letter.payload["new"] == {"id": str(bad.pk), "text": "bad"}
        assert letter.payload["old"] is None
        assert effects() == ["bad", "better", "never"]
        assert updated.instance.text == "better"
        assert "1 dead letter\n" in notes.output.getvalue()
        assert notes.consume() == []

    def test_one_bad_row_of_a_batch_costs_the_others_nothing(self, notes: Stream) -> None:
        def fail(*, change: WalChange[Note], **kwargs: Any) -> None:
            if change.instance.text == "7":
                raise LookupError
            Effect.objects.create(text=f"fail {change.instance.text}")

        post_wal_change.connect(fail, sender=Note)
        Note.objects.bulk_create(Note(text=str(number)) for number in range(20))
        notes.consume()
        rest = [str(number) for number in range(20)]
        assert [text for text in effects() if not text.startswith("fail")] == rest
        assert sorted(text for text in effects() if text.startswith("fail")) == sorted(
            f"fail {text}" for text in rest if text != "7"
        )
        assert DeadLetter.objects.get().payload["new"]["text"] == "7"

    def test_stop_on_error_leaves_the_position_and_exits_1(self, notes: Stream) -> None:
        def fail(**kwargs: Any) -> None:
            raise LookupError("no such thing")

        notes.configure(ON_ERROR="stop", MAX_ATTEMPTS=2)
        post_wal_change.connect(fail, sender=Note)
        Note.objects.create(text="a")
        before = notes.checkpoint.lsn
        with pytest.raises(CommandError, match="no such thing") as failure:
            notes.consume()
        assert failure.value.returncode == 1
        assert notes.checkpoint.lsn == before
        assert not effects()
        assert not DeadLetter.objects.exists()

    def test_signal_during_a_wait_ends_gracefully_and_loses_nothing(self, notes: Stream) -> None:
        notes.configure(MAX_ATTEMPTS=50)
        Note.objects.bulk_create([Note(text="good"), Note(text="bad"), Note(text="rest")])
        with notes.process(receivers="tests.delivery.failing") as consumer:
            consumer.wait_for_stderr(r"attempt 5 of 50")
            started = time.monotonic()
            assert consumer.terminate() == 0
            assert time.monotonic() - started < 3
        assert "stopped: " in consumer.stdout.text
        assert effects() == ["good"]
        assert not DeadLetter.objects.exists()
        notes.configure(MAX_ATTEMPTS=1)
        with notes.process("--until-lsn", "now", receivers="tests.delivery.failing") as again:
            again.succeed()
        assert effects() == ["good", "rest"]
        assert DeadLetter.objects.count() == 1


def swallow(**kwargs: Any) -> None:
    with suppress(DatabaseError):
        execute("SELECT 1/0")


def violate(**kwargs: Any) -> None:
    execute("INSERT INTO testapp_note (id, text) VALUES (1, 'a'), (1, 'b')")


def violate_at_commit(**kwargs: Any) -> None:
    Permission.objects.create(content_type_id=123456, codename="x", name="x")


def leave(**kwargs: Any) -> None:
    sys.exit("somewhere deep in a library")


def close(**kwargs: Any) -> None:
    connection.close()


def close_old(**kwargs: Any) -> None:
    close_old_connections()


def roll_back(**kwargs: Any) -> None:
    transaction.set_rollback(True)


def unshowable(**kwargs: Any) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Odd


async def cancel(**kwargs: Any) -> None:
    raise asyncio.CancelledError


async def fail_async(**kwargs: Any) -> None:
    await Effect.objects.acreate(text="never")
    raise LookupError("async")


BREAKERS: list[Any] = [
    (swallow, "InternalError|current transaction is aborted"),
    (violate, "IntegrityError"),
    (violate_at_commit, "IntegrityError.*foreign key"),
    (leave, "SystemExit: somewhere deep"),
    (close, "closed the database connection"),
    (close_old, "closed the database connection"),
    (roll_back, "TransactionManagementError"),
    (unshowable, "Odd"),
    (cancel, "CancelledError"),
    (fail_async, "LookupError: async"),
]


@pytest.mark.integration
class TestBrokenTransactions:
    @pytest.mark.parametrize(("receive", "error"), BREAKERS, ids=lambda value: getattr(value, "__name__", ""))
    def test_it_is_the_receivers_failure_and_the_others_keep_their_effects(
        self, notes: Stream, receive: Receive, error: str
    ) -> None:
        post_wal_change.connect(receive, sender=Note, operations=["insert"])
        post_wal_change.connect(record, sender=Note, dispatch_uid="after it")
        note = Note.objects.create(text="a")
        Note.objects.update(text="b")
        notes.consume()
        assert effects() == ["a", "a", "b", "b"]
        letter = DeadLetter.objects.get()
        assert letter.receiver == f"tests.delivery.test_careful.{receive.__name__}"
        assert letter.pk_text == str(note.pk)
        assert re.search(error, letter.error), letter.error
        assert notes.consume() == []

    def test_constraints_are_as_deferred_for_the_next_receiver_as_they_were(self, notes: Stream) -> None:
        """In the careful path, into which the first receiver sends the batch, a child may still come first."""

        def child_first(**kwargs: Any) -> None:
            Permission.objects.create(content_type_id=2_000_000_000, codename="x", name="x")
            execute("INSERT INTO django_content_type (id, app_label, model) VALUES (2000000000, 'a', 'b')")

        post_wal_change.connect(swallow, sender=Note, operations=["insert"])
        post_wal_change.connect(child_first, sender=Note)
        Note.objects.create(text="a")
        notes.consume()
        assert Permission.objects.filter(content_type_id=2_000_000_000).count() == 1
        assert DeadLetter.objects.get().receiver.endswith(".swallow")

    def test_suspect_that_fails_at_commit_every_time_keeps_the_stream_going(self, notes: Stream) -> None:
        post_wal_change.connect(violate_at_commit, sender=Note)
        Note.objects.bulk_create(Note(text=str(number)) for number in range(30))
        notes.consume()
        assert DeadLetter.objects.count() == 30
        assert len(effects()) == 30
        assert not Permission.objects.filter(codename="x").exists()

    def test_receiver_that_closes_the_connection_every_time_keeps_the_stream_going(self, notes: Stream) -> None:
        post_wal_change.connect(close, sender=Note)
        Note.objects.bulk_create(Note(text=str(number)) for number in range(6))
        notes.consume()
        assert DeadLetter.objects.count() == 6
        assert effects() == [str(number) for number in range(6)]

    def test_connection_that_dies_under_a_receiver_is_not_its_failure(self, notes: Stream) -> None:
        calls: list[int] = []

        def terminate(**kwargs: Any) -> None:
            calls.append(1)
            if len(calls) <= 2:  # in the fast path, and in the session after that
                pid = execute("SELECT pg_backend_pid()")[0][0]
                with psycopg.connect(database_dsn(), autocommit=True) as other:
                    other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
                Note.objects.count()

        post_wal_change.connect(terminate, sender=Note)
        Note.objects.create(text="a")
        notes.consume()
        assert effects() == ["a"]
        assert not DeadLetter.objects.exists()


@pytest.mark.integration
class TestOtherEvents:
    def test_truncate_that_a_receiver_can_not_take_becomes_a_letter(self, notes: Stream) -> None:
        def fail(**kwargs: Any) -> None:
            raise LookupError

        post_wal_truncate.connect(fail, sender=Note)
        execute("TRUNCATE testapp_note RESTART IDENTITY")
        Note.objects.create(text="after")
        notes.consume()
        letter = DeadLetter.objects.get()
        assert (letter.kind, letter.model, letter.operation, letter.pk_text) == ("truncate", "testapp.Note", "", "")
        assert letter.payload["restart_identity"] is True
        assert effects() == ["after"]

    @pytest.mark.parametrize("is_transactional", [True, False])
    def test_message_that_a_receiver_can_not_take_becomes_a_letter(self, notes: Stream, is_transactional: bool) -> None:
        def fail(**kwargs: Any) -> None:
            raise LookupError

        wal_message.connect(fail)
        execute("SELECT pg_logical_emit_message(%s, 'app', '\\x00ff'::bytea)", [is_transactional])
        Note.objects.create(text="after")
        notes.consume()
        letter = DeadLetter.objects.get()
        assert (letter.kind, letter.model, letter.payload["prefix"]) == ("message", "", "app")
        assert letter.payload["content"] == "AP8="
        assert ("transaction" in letter.payload) is is_transactional
        assert effects() == ["after"]

    def test_excluded_values_are_in_no_letter(self, notes: Stream) -> None:
        def fail(**kwargs: Any) -> None:
            raise LookupError

        notes.configure(EXCLUDE={"testapp.Note": ["text"]}, MAX_ATTEMPTS=1)
        post_wal_change.disconnect(record, sender=Note)
        post_wal_change.connect(fail, sender=Note)
        note = Note.objects.create(text="secret 1")
        Note.objects.update(text="secret 2")
        note.delete()
        notes.consume()
        assert [*DeadLetter.objects.values_list("operation", flat=True)] == ["insert", "update", "delete"]
        for letter in DeadLetter.objects.values():
            assert "secret" not in str(letter)
        columns = DeadLetter.objects.latest("pk").payload["relation"]["columns"]
        assert [name for _, name, *_ in columns] == ["id"]

    def test_excluded_primary_key_is_in_no_letter(self, notes: Stream) -> None:
        def fail(**kwargs: Any) -> None:
            raise LookupError

        notes.configure(EXCLUDE={"testapp.Note": ["id"]}, MAX_ATTEMPTS=1)
        post_wal_change.disconnect(record, sender=Note)
        post_wal_change.connect(fail, sender=Note)
        Note.objects.create(pk=987654321)
        notes.consume()
        assert "987654321" not in str(DeadLetter.objects.values().get())

    def test_primary_key_that_does_not_decode_does_not_jam_the_stream(
        self, notes: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(value: Any, expression: Any, connection: Any) -> Any:
            raise ValueError("no counterpart")

        monkeypatch.setattr(Note._meta.pk, "from_db_value", refuse, raising=False)
        post_wal_change.disconnect(record, sender=Note)
        post_wal_change.connect(lambda change, **kwargs: change.pk, sender=Note, weak=False)
        execute("INSERT INTO testapp_note (id, text) VALUES (5, 'a')")
        notes.consume()
        assert {*DeadLetter.objects.values_list("pk_text", flat=True)} == {"5"}


@pytest.mark.slow
@pytest.mark.integration
def test_receiver_that_fails_on_every_change_does_not_slow_the_stream_to_a_crawl(
    stream: Stream, capsys: pytest.CaptureFixture[str]
) -> None:
    called_at: list[float] = []

    def work(*, change: WalChange[Note], **kwargs: Any) -> None:
        called_at.append(time.monotonic())
        Effect.objects.create(change_id=change.id, text=change.instance.text)

    def fail(*, change: WalChange[Note], **kwargs: Any) -> None:
        work(change=change)
        raise LookupError("every time")

    def consume(receive: Receive) -> tuple[float, float]:
        """Return how long all of it took, and how long the last 4000 changes."""
        Note.objects.bulk_create(Note(text=str(number)) for number in range(count))
        called_at.clear()
        post_wal_change.connect(receive, sender=Note)
        started = time.monotonic()
        stream.consume()
        post_wal_change.disconnect(receive, sender=Note)
        return time.monotonic() - started, called_at[-1] - called_at[-4000]

    count = 5000
    stream.configure(MAX_ATTEMPTS=5, MODELS=["testapp.Note"])
    stream.set_up()
    (works, works_later), (fails, fails_later) = consume(work), consume(fail)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{count} changes: {works:.2f} s where the receiver works, {fails:.2f} s where it always fails "
            f"({fails / works:.1f} times as long); once it is suspect, {fails_later / works_later:.1f} times as long\n"
        )
    assert DeadLetter.objects.count() == count
    assert DeadLetter.objects.values("change_id").distinct().count() == count
    assert DeadLetter.objects.filter(attempts=5).count() == SUSPECT_AFTER
    assert Effect.objects.count() == count


def test_name_of_a_receiver_is_its_path_and_a_number_from_the_second_on() -> None:
    made = [Target(print, path) for path in ("a", "b", "a", "a")]
    assert [letters.receiver_name(target, made) for target in made] == ["a", "b", "a#2", "a#3"]

"""Replay: exactly once in the database, one receiver only, and every reason why it can't be."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction

from django_walsignals import UNKNOWN, WalChange, post_wal_change, post_wal_truncate, wal_message
from django_walsignals.delivery import letters, replay
from django_walsignals.delivery.replay import Outcome, Result, Selection
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.models import DeadLetter
from tests.ledger.models import Effect
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


def replay_all() -> list[Result]:
    return list(replay.replay(DeadLetter.objects.all()))


def outcomes() -> list[Outcome]:
    return [result.outcome for result in replay_all()]


def effects() -> list[str]:
    return [*Effect.objects.order_by("pk").values_list("text", flat=True)]


class Mood:
    """Whether the receivers below fail."""

    fails: bool = True
    heard: list[Any] = []  # noqa: RUF012  # emptied by the fixture


def receive(*, change: WalChange[Note], **kwargs: Any) -> None:
    Mood.heard.append(change)
    Effect.objects.create(change_id=change.id, note_id=change.pk, text=change.instance.text)
    if Mood.fails:
        raise LookupError("not today\nnor tomorrow")


def other(*, change: WalChange[Note], **kwargs: Any) -> None:
    Effect.objects.create(text=f"other {change.instance.text}")


def receive_truncate(*, truncate: Any, **kwargs: Any) -> None:
    Mood.heard.append(truncate)
    if Mood.fails:
        raise LookupError


def receive_message(*, prefix: str, content: bytes, transaction: Any, **kwargs: Any) -> None:
    Mood.heard.append((prefix, content, transaction and transaction.xid))
    if Mood.fails:
        raise LookupError


@pytest.fixture
def notes(stream: Stream) -> Iterator[Stream]:
    """Give a stream of notes that is set up, with a receiver that fails and one that works."""
    Mood.fails = True
    Mood.heard.clear()
    stream.configure(MAX_ATTEMPTS=1)
    post_wal_change.connect(receive, sender=Note)
    post_wal_change.connect(other, sender=Note)
    stream.set_up()
    yield stream
    Mood.heard.clear()


@pytest.fixture
def dead(notes: Stream) -> Stream:
    """Give a stream with three letters of one note, and a receiver that works by now."""
    note = Note.objects.create(text="one")
    note.text = "two"
    note.save()
    note.delete()
    notes.consume()
    assert DeadLetter.objects.count() == 3
    Effect.objects.all().delete()
    Mood.fails = False
    Mood.heard.clear()
    return notes


class TestReplay:
    def test_it_runs_just_the_failed_receiver_in_order_and_ends_the_letters(self, dead: Stream) -> None:
        assert outcomes() == [Outcome.REPLAYED] * 3
        assert effects() == ["one", "two", "two"]
        assert not DeadLetter.objects.exists()
        inserted, updated, deleted = Mood.heard
        assert (inserted.operation, updated.operation, deleted.operation) == ("insert", "update", "delete")
        assert updated.diff == {"text": ("one", "two")}
        assert updated.old.text == "one"
        assert deleted.pk == inserted.pk
        assert inserted.transaction.commit_lsn < updated.transaction.commit_lsn
        assert inserted.transaction.end_lsn is not None
        assert replay_all() == []

    def test_change_is_the_one_that_was_delivered(self, notes: Stream) -> None:
        Note.objects.create(text="ü \N{GRINNING FACE}\n'\"\\")
        notes.consume()
        Mood.fails = False
        replay_all()
        first, again = Mood.heard[0], Mood.heard[-1]
        assert again == first
        assert again.instance.text == first.instance.text
        assert (again.id, again.ordinal, again.table, again.stream) == (
            first.id,
            first.ordinal,
            first.table,
            first.stream,
        )
        assert repr(again.transaction) == repr(first.transaction)

    def test_receiver_that_fails_again_keeps_its_letter_and_leaves_no_effect(self, dead: Stream) -> None:
        Mood.fails = True
        before = DeadLetter.objects.first()
        assert before is not None
        results = replay_all()
        assert [result.outcome for result in results] == [Outcome.FAILED] * 3
        assert str(results[0]) == f"{before.pk}: failed again: LookupError: not today"
        after = DeadLetter.objects.get(pk=before.pk)
        assert after.attempts == before.attempts + 1
        assert after.last_failed_at > before.last_failed_at
        assert after.first_failed_at == before.first_failed_at
        assert "receive" in after.traceback
        assert effects() == []

    def test_one_that_fails_does_not_hold_up_the_others(self, dead: Stream) -> None:
        def fail_on_update(*, change: WalChange[Note], **kwargs: Any) -> None:
            if change.operation == "update":
                raise LookupError
            Effect.objects.create(text=change.operation)

        post_wal_change.disconnect(receive, sender=Note)
        fail_on_update.__qualname__ = "receive"
        post_wal_change.connect(fail_on_update, sender=Note)
        assert outcomes() == [Outcome.REPLAYED, Outcome.FAILED, Outcome.REPLAYED]
        assert effects() == ["insert", "delete"]

    def test_violation_at_commit_is_the_receivers_failure(self, dead: Stream) -> None:
        def violate(**kwargs: Any) -> None:
            Permission.objects.create(content_type_id=123456, codename="x", name="x")

        self._replace(violate)
        assert outcomes() == [Outcome.FAILED] * 3
        assert "foreign key" in DeadLetter.objects.latest("pk").error

    def test_receiver_that_closes_the_connection_or_exits_has_failed(self, dead: Stream) -> None:
        def close(*, change: WalChange[Note], **kwargs: Any) -> None:
            if change.operation == "insert":
                connection.close()
            raise SystemExit(3)

        self._replace(close)
        assert outcomes() == [Outcome.FAILED] * 3
        errors = [*DeadLetter.objects.values_list("error", flat=True)]
        assert errors == ["SystemExit: 3"] * 3

    def test_commit_hooks_run_after_the_letter_has_ended(self, dead: Stream) -> None:
        left: list[int] = []

        def hook(**kwargs: Any) -> None:
            transaction.on_commit(lambda: left.append(DeadLetter.objects.count()))

        self._replace(hook)
        replay_all()
        assert left == [2, 1, 0]

    def test_two_at_a_time_have_each_effect_once(self, dead: Stream) -> None:
        """The letter in hand is passed over by the other, and is gone for one who comes later."""
        inside, go_on = threading.Event(), threading.Event()
        results: list[Result] = []

        def slow(*, change: WalChange[Note], **kwargs: Any) -> None:
            Effect.objects.create(text=change.operation)
            if change.operation == "insert":
                inside.set()
                assert go_on.wait(15)

        def work() -> None:
            results.extend(replay_all())
            connection.close()

        self._replace(slow)
        rival = threading.Thread(target=work)
        rival.start()
        assert inside.wait(15)
        assert outcomes() == [Outcome.BUSY, Outcome.REPLAYED, Outcome.REPLAYED]
        assert replay.discard(DeadLetter.objects.all()) == 0
        go_on.set()
        rival.join()
        assert [result.outcome for result in results] == [Outcome.REPLAYED, Outcome.GONE, Outcome.GONE]
        assert sorted(effects()) == ["delete", "insert", "update"]
        assert not DeadLetter.objects.exists()

    def test_it_can_not_run_inside_a_transaction(self, dead: Stream) -> None:
        with transaction.atomic(), pytest.raises(ConfigurationError, match="can't run inside"):
            replay_all()

    def test_later_letter_of_the_same_path_is_its_own_receivers(self, notes: Stream) -> None:
        post_wal_change.disconnect(receive, sender=Note)
        calls: list[str] = []

        def make(name: str) -> Any:
            def made(**kwargs: Any) -> None:
                calls.append(name)
                if Mood.fails and name == "second":
                    raise LookupError

            return made

        for name in ("first", "second"):
            post_wal_change.connect(make(name), sender=Note, weak=False)
        Note.objects.create(text="a")
        notes.consume()
        Mood.fails = False
        calls.clear()
        assert outcomes() == [Outcome.REPLAYED]
        assert calls == ["second"]

    def _replace(self, receiver: Any) -> None:
        """Connect another receiver under the path of the one that failed."""
        post_wal_change.disconnect(receive, sender=Note)
        receiver.__qualname__ = "receive"
        post_wal_change.connect(receiver, sender=Note, weak=False)


class TestRefused:
    def test_receiver_that_is_no_longer_connected(self, dead: Stream) -> None:
        post_wal_change.disconnect(receive, sender=Note)
        result = replay_all()[0]
        assert result.outcome is Outcome.REFUSED
        assert "tests.delivery.test_replay.receive is no longer connected to testapp.Note" in result.reason
        assert DeadLetter.objects.count() == 3

    def test_receiver_whose_filters_no_longer_let_it_pass_is_done(self, dead: Stream) -> None:
        post_wal_change.disconnect(receive, sender=Note)
        post_wal_change.connect(receive, sender=Note, operations=["delete"])
        first, second, third = replay_all()
        assert first.outcome is second.outcome is third.outcome is Outcome.REPLAYED
        assert "filters" in first.reason
        assert third.reason == ""
        assert len(effects()) == 1

    @pytest.mark.parametrize(
        ("column", "value", "reason"),
        [
            ("stream", "elsewhere", "There is no stream 'elsewhere'"),
            ("model", "testapp.Gone", "testapp.Gone, which no app has any more"),
            ("payload", {}, "payload can't be read"),
            ("change_id", "nonsense", "payload can't be read"),
        ],
    )
    def test_letter_that_today_means_nothing(self, dead: Stream, column: str, value: Any, reason: str) -> None:
        DeadLetter.objects.update(**{column: value}) if column != "change_id" else DeadLetter.objects.filter(
            pk=DeadLetter.objects.earliest("pk").pk
        ).update(change_id=value)
        result = replay_all()[0]
        assert result.outcome is Outcome.REFUSED
        assert reason in result.reason


class TestOtherKinds:
    def test_truncate(self, notes: Stream) -> None:
        post_wal_truncate.connect(receive_truncate, sender=Note)
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE testapp_note")
        notes.consume()
        Mood.fails = False
        assert outcomes() == [Outcome.REPLAYED]
        first, again = Mood.heard[0], Mood.heard[-1]
        assert first[:4] == again[:4]
        assert first.id == again.id

    @pytest.mark.parametrize("is_transactional", [True, False])
    def test_message(self, notes: Stream, is_transactional: bool) -> None:
        wal_message.connect(receive_message)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_logical_emit_message(%s, 'app', '\\x00ff'::bytea)", [is_transactional])
        Note.objects.create(text="after")
        notes.consume()
        Mood.fails = False
        assert replay_all()[0].outcome is Outcome.REPLAYED
        wanted = [heard for heard in Mood.heard if isinstance(heard, tuple)]
        assert wanted[0] == wanted[-1]
        assert wanted[0][:2] == ("app", b"\x00\xff")
        assert (wanted[0][2] is not None) is is_transactional


class TestExcluded:
    def test_excluded_columns_stay_unknown(self, notes: Stream) -> None:
        notes.configure(EXCLUDE={"testapp.Note": ["text"]}, MAX_ATTEMPTS=1)
        Note.objects.create(text="secret")

        def look(*, change: WalChange[Note], **kwargs: Any) -> None:
            Mood.heard.append(change)
            if Mood.fails:
                raise LookupError

        for receiver in (receive, other):
            post_wal_change.disconnect(receiver, sender=Note)
        post_wal_change.connect(look, sender=Note)
        notes.consume()
        Mood.fails = False
        assert outcomes() == [Outcome.REPLAYED]
        assert Mood.heard[-1].unknown_fields == {"text"}
        assert [*Mood.heard[-1].diff] == ["id"]

    def test_what_is_excluded_since_is_neither_decoded_nor_shown(self, dead: Stream) -> None:
        letter = DeadLetter.objects.earliest("pk")
        assert "one" in str(letters.shown_diff(letter))
        dead.configure(EXCLUDE={"testapp.Note": ["text"]}, MAX_ATTEMPTS=1)
        assert "one" not in str(letters.shown_diff(letter))
        letter.change_id = "can't be decoded"
        shown = letters.shown_diff(letter)
        assert shown.is_raw
        assert [name for name, *_ in shown.rows] == ["id"]


class TestShownDiff:
    def test_each_operation(self, dead: Stream) -> None:
        inserted, updated, deleted = map(letters.shown_diff, DeadLetter.objects.order_by("pk"))
        assert inserted.rows[1:] == [("text", "", "one")]
        assert updated.rows == [("text", "one", "two")]
        assert deleted.rows[1:] == [("text", "two", "")]
        assert not (inserted.is_raw or updated.is_raw or deleted.is_raw)

    def test_model_that_is_gone_is_shown_raw(self, dead: Stream) -> None:
        DeadLetter.objects.update(model="testapp.Gone")
        shown = [letters.shown_diff(letter) for letter in DeadLetter.objects.order_by("pk")]
        assert all(each.is_raw for each in shown)
        assert shown[1].rows == [("text", "one", "two")]

    def test_unknown_and_null_are_told_apart(self, dead: Stream) -> None:
        letter = DeadLetter.objects.order_by("pk")[1]
        letter.payload["old"] = {"id": letter.payload["new"]["id"]}
        letter.payload["new"]["text"] = None
        assert letters.shown_diff(letter).rows == [("text", "(unknown)", "NULL")]
        assert UNKNOWN is not None

    def test_letter_without_a_row_has_no_diff(self, notes: Stream) -> None:
        letter = DeadLetter(kind="message", change_id="0/1/1", payload={"prefix": "", "content": ""}, stream="default")
        assert letters.shown_diff(letter) == ([], False)


class TestSelection:
    def test_everything_said_must_match(self, dead: Stream) -> None:
        pk = DeadLetter.objects.earliest("pk").pk
        (found,) = Selection(ids=(pk,), model="TESTAPP.note", stream="default").letters()
        assert [letter.pk for letter in found] == [pk]

    def test_databases_number_their_letters_each(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(settings.DATABASES, "elsewhere", settings.DATABASES["default"])
        settings.WALSIGNALS = {"one": {}, "two": {"CHECKPOINT_DATABASE": "elsewhere"}}
        with pytest.raises(ConfigurationError, match="name the stream with --stream"):
            Selection(ids=(1,)).letters()

"""The real pipeline in the test's own process."""

import pytest
from django.db import DataError, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test import TransactionTestCase

from django_walsignals import on_change, on_update
from django_walsignals.conf import get_stream
from django_walsignals.exceptions import ConfigurationError, DeliveryError
from django_walsignals.models import Checkpoint, DeadLetter
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication import commands
from django_walsignals.replication.connection import ReplicationConnection
from django_walsignals.replication.parameters import replication_parameters
from django_walsignals.testing import WalStream, consume_pending, drop_stream, make_change, send_change, set_up_stream
from django_walsignals.testing.consuming import slot_name
from tests.ledger.models import Effect
from tests.testapp.models import Note

pytestmark = [pytest.mark.integration]


@pytest.fixture
def dropped(transactional_db):
    """Leave nothing on the server."""
    yield
    drop_stream()


def our_slots():
    with connection.cursor() as cursor:
        cursor.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
        return [name for (name,) in cursor.fetchall() if name.startswith("walsignals_test_")]


def our_publications():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pubname FROM pg_publication WHERE pubname LIKE 'walsignals_test_%'")
        return [name for (name,) in cursor.fetchall()]


@pytest.mark.usefixtures("dropped")
class TestConsumePending:
    def test_delivers_what_was_committed_however_it_was_written(self):
        heard = []
        on_change(Note)(heard.append)
        set_up_stream()
        Note.objects.bulk_create([Note(text="a"), Note(text="b")])
        Note.objects.update(text="z")

        delivered = consume_pending()

        assert delivered == heard
        assert [str(change.operation) for change in delivered] == ["insert", "insert", "update", "update"]
        assert consume_pending() == []

    def test_the_first_call_sets_the_stream_up(self):
        on_change(Note)(lambda change: None)
        Note.objects.create(text="before")

        assert consume_pending() == []
        Note.objects.create(text="after")
        assert [change.instance.text for change in consume_pending()] == ["after"]

    def test_set_up_anew_nothing_from_before_is_in_it(self):
        on_change(Note)(lambda change: None)
        set_up_stream()
        Note.objects.create(text="before")
        set_up_stream()

        assert consume_pending() == []

    def test_after_a_flush_the_stream_starts_anew(self):
        on_change(Note)(lambda change: None)
        set_up_stream()
        Note.objects.create(text="another test's")
        Checkpoint.objects.all().delete()  # as TransactionTestCase flushes every table

        assert consume_pending() == []

    def test_a_change_that_only_a_condition_refused_was_not_delivered(self):
        on_change(Note, when=lambda change: change.instance.text == "wanted")(lambda change: None)
        set_up_stream()
        Note.objects.bulk_create([Note(text="wanted"), Note(text="other")])

        assert [change.instance.text for change in consume_pending()] == ["wanted"]

    def test_a_change_of_two_receivers_is_listed_once(self):
        on_change(Note)(lambda change: None)
        on_change(Note)(lambda change: None)
        set_up_stream()
        Note.objects.create()

        assert len(consume_pending()) == 1

    def test_async_receivers_run(self):
        heard = []

        @on_change(Note)
        async def receive(change):
            heard.append(change.pk)

        set_up_stream()
        note = Note.objects.create()
        consume_pending()
        assert heard == [note.pk]

    def test_what_receivers_write_comes_with_the_next_call(self):
        @on_update(Note)
        def echo(change):
            Effect.objects.create(change_id=change.id)

        on_change(Effect)(lambda change: None)
        set_up_stream()
        Note.objects.create().save()

        assert [change.model for change in (*consume_pending(), *consume_pending())] == [Note, Effect]

    def test_a_made_change_and_the_real_one_say_the_same(self):
        on_change(Note)(lambda change: None)
        set_up_stream()
        note = Note.objects.create(text="a")
        Note.objects.update(text="b")
        real = consume_pending()[1]
        made = make_change(Note(pk=note.pk, text="b"), old=Note(pk=note.pk, text="a"))

        for name in (
            "operation",
            "pk",
            "diff",
            "changed_fields",
            "unknown_fields",
            "table",
            "stream",
            "using",
            "model",
        ):
            assert getattr(real, name) == getattr(made, name), name
        assert real.instance == made.instance and real.old.text == made.old.text
        assert len(send_change(real)) == len(send_change(made)) == 1


@pytest.mark.usefixtures("dropped")
class TestFailure:
    def test_a_receiver_s_own_exception_is_raised_after_one_call(self):
        calls = []

        @on_change(Note)
        def fails(change):
            calls.append(change.pk)
            Effect.objects.create(change_id=change.id)
            raise LookupError("mine")

        set_up_stream()
        Note.objects.create()

        with pytest.raises(LookupError, match="mine") as caught:
            consume_pending()
        assert caught.traceback[-1].name == "fails"
        assert len(calls) == 1
        assert not Effect.objects.exists() and not DeadLetter.objects.exists()

    def test_the_changes_come_again(self):
        poison = [True]

        @on_change(Note)
        def fails_once(change):
            if poison:
                raise LookupError

        set_up_stream()
        Note.objects.create()
        with pytest.raises(LookupError):
            consume_pending()
        poison.clear()
        assert len(consume_pending()) == 1

    def test_a_database_error_is_no_outage(self):
        @on_change(Note)
        def fails(change):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(1/0)")

        set_up_stream()
        Note.objects.create()
        with pytest.raises(DataError, match="division by zero"):
            consume_pending()

    def test_a_swallowed_database_error_is_told(self):
        @on_change(Note)
        def swallows(change):
            with connection.cursor() as cursor:
                try:
                    cursor.execute("SELECT 1/0")
                except Exception:  # noqa: BLE001
                    return

        set_up_stream()
        Note.objects.create()
        with pytest.raises(DeliveryError, match="can't commit"):
            consume_pending()


@pytest.mark.usefixtures("dropped")
class TestStream:
    def test_names_are_the_process_s_own_and_nothing_is_left(self):
        on_change(Note)(lambda change: None)
        set_up_stream()
        name = slot_name(connection.settings_dict["NAME"], "default")
        assert our_slots() == our_publications() == [name]
        assert name != get_stream().slot

        drop_stream()
        assert our_slots() == our_publications() == []
        assert not Checkpoint.objects.exists()
        drop_stream()

    def test_a_slot_still_in_use_is_freed(self):
        on_change(Note)(lambda change: None)
        set_up_stream()
        [name] = our_slots()

        walsender = ReplicationConnection.open(replication_parameters(connection.get_connection_params(), {}))
        walsender.start(commands.start_replication(name, LSN(0), [name]), name)
        drop_stream()
        walsender.close()
        assert our_slots() == []

    def test_what_is_listened_to_later_is_in_it_from_then_on(self):
        with WalStream() as stream:
            stream.listen(Note)
            Note.objects.create()
            Effect.objects.create(change_id="before")
            stream.listen("ledger.Effect")
            Effect.objects.create(change_id="after")
            Note.objects.create()

            assert [change.model for change in stream.consume()] == [Note, Effect, Note]
            Note.objects.create()
            assert len(stream.consume()) == 1
            assert len(stream.changes) == 4
        assert our_slots() == []
        assert send_change(make_change(Note(pk=1))) == []

    def test_nothing_to_publish_is_told(self):
        with pytest.raises(ConfigurationError, match="Nothing is to be published"):
            set_up_stream()

    @pytest.mark.parametrize("function", [consume_pending, set_up_stream, drop_stream])
    def test_inside_a_transaction_nothing_can_work(self, function):
        with pytest.raises(TransactionManagementError, match="capture_wal_changes"), transaction.atomic():
            function()


class TestTransactionTestCase(TransactionTestCase):
    """As users without pytest write it."""

    def setUp(self):
        on_change(Note)(lambda change: None)
        set_up_stream()
        self.addCleanup(drop_stream)

    def test_consumes(self):
        Note.objects.bulk_create([Note(text="a")])
        self.assertEqual([change.instance.text for change in consume_pending()], ["a"])  # noqa: PT009

    test_consumes_nothing_of_the_test_before = test_consumes


@pytest.mark.parametrize(
    ("database", "stream"),
    [("test_x", "default"), ("test_x", "audit"), ("test_X", "default"), ("Ünï" * 30, "x" * 63), ("a" * 63, "b")],
)
def test_slot_names_fit(database, stream):
    name = slot_name(database, stream)
    assert len(name) <= 63
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


def test_slot_names_differ_where_something_does(monkeypatch):
    names = {slot_name(database, stream) for database in ("test_x", "test_X", "test_x_gw0") for stream in ("a", "b")}
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
    names.add(slot_name("test_x", "a"))
    assert len(names) == 7

"""In a TestCase: what the ORM's signals tell is captured, and what they don't is an error."""

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.db.transaction import TransactionManagementError
from django.test import TestCase

from django_walsignals import FieldDiff, on_change, on_update
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.testing import UnseenChanges, capture_wal_changes, consume_pending
from tests.testapp.models import Note
from tests.testing.models import Review, Theatre, Venue

pytestmark = [pytest.mark.integration, pytest.mark.django_db]


def told(changes):
    return [(str(change.operation), change.model, change.pk) for change in changes]


class TestSeen:
    def test_save_and_delete(self):
        with capture_wal_changes(Note) as changes:
            note = Note.objects.create(text="a")
            pk = note.pk
            note.text = "b"
            note.save()
            note.delete()

        assert told(changes) == [("insert", Note, pk), ("update", Note, pk), ("delete", Note, pk)]
        assert changes[1].diff == {"text": FieldDiff("a", "b")}
        assert changes[2].instance.text == "b"
        assert len({change.transaction.commit_lsn for change in changes}) == 3

    def test_values_are_read_from_the_database(self, tables):
        place = Venue.objects.create(name="x")
        with capture_wal_changes(Venue) as changes:
            place.floors = F("floors") + 1
            place.save(update_fields=["floors"])

        assert changes[0].diff == {"floors": FieldDiff(1, 2)}
        assert changes[0].instance.opened_at == place.opened_at

    def test_a_save_that_changes_nothing_is_an_update(self):
        note = Note.objects.create(text="a")
        with capture_wal_changes(Note) as changes:
            note.save()
            note.save(update_fields=[])

        assert [change.changed_fields for change in changes] == [frozenset()]

    def test_a_save_that_inserts_a_chosen_key(self):
        with capture_wal_changes(Note) as changes:
            Note(pk=77, text="a").save()

        assert told(changes) == [("insert", Note, 77)]

    def test_get_or_create_and_update_or_create(self):
        with capture_wal_changes(Note) as changes:
            Note.objects.get_or_create(pk=5, defaults={"text": "a"})
            Note.objects.update_or_create(pk=5, defaults={"text": "b"})

        assert [str(change.operation) for change in changes] == ["insert", "update"]

    def test_what_django_cascades_to(self, tables):
        place = Venue.objects.create(name="x")
        reviews = {place.reviews.create(text=text).pk for text in "ab"}
        with capture_wal_changes(Venue, Review) as changes:
            place_id, _ = place.pk, place.delete()

        assert {change.pk for change in changes.of(Review, "delete")} == reviews
        assert told(changes)[-1] == ("delete", Venue, place_id)
        assert len({change.transaction.commit_lsn for change in changes}) == 1

    def test_a_queryset_s_delete(self):
        Note.objects.create(text="a")
        with capture_wal_changes(Note) as changes:
            Note.objects.all().delete()

        assert [change.instance.text for change in changes] == ["a"]

    def test_parent_and_child_have_a_change_each(self, tables):
        with capture_wal_changes(Venue, Theatre) as changes:
            made = Theatre.objects.create(name="x", stars=1)
            made.name = "y"
            made.save(update_fields=["name"])
            pk, _ = made.pk, made.delete()

        assert told(changes) == [
            ("insert", Venue, pk),
            ("insert", Theatre, pk),
            ("update", Venue, pk),
            ("delete", Theatre, pk),
            ("delete", Venue, pk),
        ]
        assert "name" in changes[1].unknown_fields

    def test_many_to_many(self):
        user = User.objects.create(username="u")
        first, second = (Group.objects.create(name=name) for name in "ab")
        through = User.groups.through
        with capture_wal_changes(through) as changes:
            user.groups.add(first, second)
            user.groups.add(first)
            second.user_set.remove(user)
            user.groups.set([second])
            user.groups.clear()

        operations = [(str(change.operation), change.instance.group_id) for change in changes]
        assert sorted(operations[:2]) == [("insert", first.pk), ("insert", second.pk)]
        assert operations[2] == ("delete", second.pk)
        assert operations[3:] == [("delete", first.pk), ("insert", second.pk), ("delete", second.pk)]

    def test_excluded_fields_are_unknown(self):
        with capture_wal_changes(User) as changes:
            User.objects.create(username="u", password="secret")

        assert "password" in changes[0].unknown_fields
        assert "secret" not in repr(changes[0].rows)

    def test_atomic_blocks_are_transactions(self):
        with capture_wal_changes(Note) as changes:
            Note.objects.create()
            with transaction.atomic():
                Note.objects.create()
                with transaction.atomic():
                    Note.objects.create()

        assert [change.ordinal for change in changes] == [1, 1, 2]
        assert changes[0].transaction is not changes[1].transaction is changes[2].transaction

    def test_models_are_those_that_receivers_name(self):
        on_change(Note)(lambda change: None)
        with capture_wal_changes() as changes:
            Note.objects.create()
            Group.objects.bulk_create([Group(name="a")])

        assert [change.model for change in changes] == [Note]

    def test_sent_to_receivers_when_asked(self):
        heard = []
        on_update(Note, fields=["text"])(heard.append)
        with capture_wal_changes(send=True) as changes:
            note = Note.objects.create()
            note.text = "b"
            note.save()
            assert heard == []

        assert heard == changes[1:]


class TestRolledBack:
    def test_savepoints_take_their_changes_with_them(self):
        with capture_wal_changes(Note) as changes:
            kept = Note.objects.create()
            with transaction.atomic():
                Note.objects.create()
                Note.objects.bulk_create([Note(), Note()])
                with transaction.atomic():
                    Note.objects.create()
                transaction.set_rollback(True)
            pk = kept.pk
            with transaction.atomic():
                kept.delete()
                transaction.set_rollback(True)

        assert told(changes) == [("insert", Note, pk)]

    def test_a_failed_statement(self):
        Note.objects.create(pk=1)
        with capture_wal_changes(Note) as changes:
            with pytest.raises(DatabaseError), transaction.atomic():
                Note.objects.create(pk=1)
            Note.objects.create(pk=2)

        assert told(changes) == [("insert", Note, 2)]

    def test_behind_a_savepoint_before_the_block(self):
        sid = connection.savepoint()
        with capture_wal_changes(Note) as changes:
            Note.objects.create()
            Note.objects.bulk_create([Note()])
            connection.savepoint_rollback(sid)

        assert changes == []


def upsert(note):
    Note.objects.bulk_create(
        [Note(pk=note.pk, text="z")], update_conflicts=True, unique_fields=["pk"], update_fields=["text"]
    )


def raw(sql):
    def run(note):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    return run


def copy(note):
    with connection.cursor() as cursor, cursor.copy("COPY testapp_note (text) FROM STDIN") as rows:
        rows.write_row(["copied"])


class TestUnseen:
    @pytest.mark.parametrize(
        ("write", "said"),
        [
            (lambda note: Note.objects.bulk_create([Note(), Note()]), "testapp_note: 2 rows by INSERT"),
            (lambda note: Note.objects.update(text="z"), "testapp_note: 1 row by UPDATE"),
            (lambda note: Note.objects.bulk_update([note], ["text"]), "testapp_note: 1 row by UPDATE"),
            (upsert, "testapp_note: 1 row by INSERT"),
            (lambda note: Note.objects.all()._raw_delete("default"), "testapp_note: 1 row by DELETE"),
            (raw("INSERT INTO public.testapp_note (text) VALUES ('x')"), "testapp_note: 1 row by INSERT"),
            (raw("  delete from only testapp_note"), "testapp_note: 1 row by DELETE"),
            (raw("WITH a AS (UPDATE testapp_note SET text='z' RETURNING 1) SELECT 1"), "testapp_note: 1 row by UPDATE"),
            (raw('TRUNCATE ledger_effect, "testapp_note"'), "testapp_note: TRUNCATE"),
            (raw("DO $$BEGIN UPDATE testapp_note SET text='z'; END$$"), r"testapp_note: 1 row\(s\) by something else"),
            (copy, r"testapp_note: 1 row\(s\) by something else.*COPY"),
        ],
    )
    def test_is_an_error_that_names_the_table_and_the_way_out(self, write, said):
        note = Note.objects.create(text="a")
        with pytest.raises(UnseenChanges, match=said) as caught, capture_wal_changes(Note):  # noqa: PT012  # at its end
            note.save()
            write(note)
        assert "TransactionTestCase" in str(caught.value) and "consume_pending()" in str(caught.value)

    def test_a_cascade_in_the_database(self, tables):
        with connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE testing_review ADD FOREIGN KEY (place_id) REFERENCES testing_place ON UPDATE CASCADE"
                " ON DELETE CASCADE"
            )
        place = Venue.objects.create(name="x")
        place.reviews.create()
        with pytest.raises(UnseenChanges) as caught, capture_wal_changes(Venue, Review):
            Venue.objects.filter(pk=place.pk)._raw_delete("default")
        assert "testing_place: 1 row by DELETE" in str(caught.value)
        assert "testing_review: 1 row(s) by something else" in str(caught.value)

    def test_what_django_sets_to_null(self, tables):
        place = Venue.objects.create(name="x")
        first = place.reviews.create()
        place.reviews.create(reply_to=first)
        with pytest.raises(UnseenChanges, match="testing_review: 1 row by UPDATE"), capture_wal_changes(Review):
            first.delete()

    def test_can_be_a_warning(self):
        with (  # noqa: PT031  # at its end
            pytest.warns(UserWarning, match="testapp_note: 1 row by INSERT") as caught,
            capture_wal_changes(Note, on_unseen="warn") as changes,
        ):
            Note.objects.create()
            Note.objects.bulk_create([Note()])
        assert len(changes) == 1
        assert caught[0].filename == __file__

    def test_nothing_is_said_of_what_wrote_nothing(self):
        with capture_wal_changes(Note) as changes:
            Note.objects.filter(pk=-1).update(text="x")
            Note.objects.bulk_create([])
            Note.objects.select_for_update().first()
        assert changes == []

    def test_nothing_is_said_over_a_test_s_own_error(self):
        with pytest.raises(ZeroDivisionError), capture_wal_changes(Note):
            1 / len(Note.objects.bulk_create([Note()])[1:])

    def test_other_tables_and_other_times_are_no_matter(self):
        Note.objects.bulk_create([Note()])
        with capture_wal_changes(Note) as changes:
            Permission.objects.create(content_type=ContentType.objects.first(), codename="x", name="x")
        Note.objects.bulk_create([Note()])
        assert changes == []

    def test_reading_is_no_matter(self):
        Note.objects.create()
        with capture_wal_changes(Note) as changes, connection.cursor() as cursor:
            with cursor.copy("COPY testapp_note TO STDOUT") as rows:
                assert len(list(rows)) == 1
            cursor.execute(
                "WITH a AS (SELECT * FROM testapp_note) SELECT * FROM a JOIN testapp_note n USING (id) FOR UPDATE OF n"
            )
            cursor.execute("SELECT 'delete from testapp_note'")
        assert changes == []

    def test_the_list_may_be_cleared_in_the_block(self):
        with capture_wal_changes(Note) as changes:
            Note.objects.create()
            changes.clear()
            with transaction.atomic():
                Note.objects.create()
                transaction.set_rollback(True)
            kept = Note.objects.create()
        assert told(changes) == [("insert", Note, kept.pk)]

    def test_nothing_to_capture_is_told(self):
        with pytest.raises(ConfigurationError, match="nothing to capture"), capture_wal_changes():
            pass

    def test_a_choice_that_there_is_not(self):
        with pytest.raises(ValueError, match="on_unseen"), capture_wal_changes(Note, on_unseen="ignore"):
            pass


@pytest.mark.django_db(transaction=True)
def test_outside_a_transaction_it_is_refused():
    with pytest.raises(TransactionManagementError, match="consume_pending"), capture_wal_changes(Note):
        pass


class TestTestCase(TestCase):
    """As users without pytest write it."""

    def test_captures(self):
        with capture_wal_changes(Note) as changes:
            Note.objects.create(text="a")
        self.assertEqual([change.instance.text for change in changes], ["a"])  # noqa: PT009

    def test_refuses_the_real_stream(self):
        on_change(Note)(lambda change: None)
        with self.assertRaisesMessage(TransactionManagementError, "capture_wal_changes()"):
            consume_pending()

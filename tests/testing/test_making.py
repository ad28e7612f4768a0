"""Changes made by hand say what the WAL would have said."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist
from django.db.models import F

from django_walsignals import LSN, UNKNOWN, FieldDiff, Operation
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.testing import make_change, make_transaction
from tests.testapp.models import Note
from tests.testing.models import Coded, ProxyVenue, Theatre, Venue


class TestOperation:
    def test_without_old_it_is_an_insert_of_every_field(self):
        change = make_change(Note(pk=1, text="a"))

        assert change.operation is Operation.INSERT
        assert (change.pk, change.instance.text, change.old) == (1, "a", None)
        assert change.diff == {"id": FieldDiff(None, 1), "text": FieldDiff(None, "a")}
        assert change.changed_fields == {"id", "text"}
        assert change.unknown_fields == frozenset()

    def test_with_old_it_is_an_update_of_what_differs(self):
        change = make_change(Note(pk=1, text="b"), old=Note(pk=1, text="a"))

        assert change.operation is Operation.UPDATE
        assert change.old.text == "a"
        assert change.diff == {"text": FieldDiff("a", "b")}
        assert change.has_changed("text") and not change.has_changed("pk")

    def test_a_delete_has_the_row_that_was(self):
        change = make_change(Note(pk=1, text="a"), operation="delete")

        assert change.operation is Operation.DELETE
        assert change.old is change.instance
        assert change.diff["text"] == FieldDiff("a", None)

    def test_an_update_without_old_knows_of_the_key_only(self):
        change = make_change(Note(pk=1, text="b"), operation="update")

        assert change.old.pk == 1
        assert change.diff == {"text": FieldDiff(UNKNOWN, "b")}
        assert change.unknown_fields == frozenset()

    @pytest.mark.parametrize("operation", ["insert", "delete"])
    def test_one_row_operations_refuse_an_old_row(self, operation):
        with pytest.raises(ValueError, match="without old"):
            make_change(Note(pk=1), old=Note(pk=1), operation=operation)

    def test_an_old_row_of_another_model_is_refused(self):
        with pytest.raises(TypeError, match=r"testapp\.Coded"):
            make_change(Note(pk=1), old=Coded(pk="x"))


class TestValues:
    def test_values_are_what_a_query_would_give(self):
        change = make_change(Venue(pk="7", name="x", rating="4.5", photo="a.png", opened_at="2026-01-02T03:04Z"))
        made = change.instance

        assert (made.pk, made.rating, made.photo.name) == (7, Decimal("4.5"), "a.png")
        assert made.opened_at == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
        assert made.floors == 1
        assert not made._state.adding and made._state.db == "default"

    def test_the_change_keeps_its_values_when_the_instance_goes_on(self):
        place = Venue(pk=1, facts={"a": [1]}, opened_at=datetime(2026, 1, 1, tzinfo=UTC))
        change = make_change(place)
        place.facts["a"].append(2)
        change.instance.facts["b"] = 3

        assert change.diff["facts"].new == {"a": [1]}

    def test_a_key_is_given_as_the_database_would(self):
        first, second = make_change(Note()), make_change(Note())

        assert isinstance(first.pk, int) and first.pk != second.pk
        assert make_change(Note(text="b"), old=Note(pk=9, text="a")).pk == 9
        assert make_change(Note(text="b"), old=Note(pk=0, text="a")).pk == 0

    def test_a_key_that_no_database_would_give_is_asked_for(self):
        with pytest.raises(ValueError, match="needs its primary key code"):
            make_change(Coded(code=None))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"opened_at": datetime(2026, 1, 1, tzinfo=UTC), "rating": F("floors")}, "rating is an expression"),
            ({}, "opened_at is an expression"),
            ({"opened_at": "soon"}, "opened_at can't be 'soon'"),
        ],
    )
    def test_what_is_no_value_is_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            make_change(Venue(pk=1, **values))

    def test_a_proxy_s_change_is_its_table_s(self):
        assert make_change(ProxyVenue(pk=1, opened_at=datetime(2026, 1, 1, tzinfo=UTC))).model is Venue

    def test_a_child_s_row_does_not_hold_its_parent_s_columns(self):
        change = make_change(Theatre(venue_ptr_id=3, stars=2))

        assert change.pk == 3
        assert {"name", "rating", "id"} <= change.unknown_fields
        assert change.changed_fields == {"venue_ptr_id", "stars"}
        assert "name" in change.instance.get_deferred_fields()


class TestUnknown:
    def test_named_fields_are_unknown_in_both_rows(self):
        change = make_change(Note(pk=1, text="b"), old=Note(pk=1, text="a"), unknown=["text"])

        assert change.unknown_fields == {"text"}
        assert change.instance.get_deferred_fields() == {"text"}
        assert change.diff == {}

    def test_deferred_fields_are_unknown(self):
        change = make_change(Note.from_db("default", ["id"], [4]), operation="delete")

        assert change.unknown_fields == {"text"}
        assert change.diff["text"] == FieldDiff(UNKNOWN, None)

    def test_an_unknown_key_is_unknown(self):
        assert make_change(Note(pk=1, text="a"), operation="delete", unknown=["pk"]).pk is UNKNOWN

    def test_excluded_fields_are_nowhere(self):
        change = make_change(User(pk=1, username="u", password="secret"))

        assert "password" in change.unknown_fields
        assert "password" not in change.diff and "password" not in change.changed_fields
        assert change.has_changed("password")
        assert "secret" not in repr(change.rows)

    def test_fields_that_are_not_there_are_refused(self):
        with pytest.raises(FieldDoesNotExist, match="'body'"):
            make_change(Note(pk=1), unknown=["body"])
        with pytest.raises(TypeError, match="takes a list"):
            make_change(Note(pk=1), unknown="text")


class TestPlace:
    def test_each_change_is_a_later_transaction(self):
        first, second = make_change(Note(pk=1)), make_change(Note(pk=1))

        assert first.place < second.place and first.id != second.id
        assert first.ordinal == second.ordinal == 1
        assert first.transaction.end_lsn > first.transaction.commit_lsn
        assert second.transaction.commit_lsn > first.transaction.end_lsn

    def test_changes_of_one_transaction_are_numbered(self):
        buying = make_transaction(context={"user": 7})
        changes = [make_change(Note(pk=at), transaction=buying) for at in range(3)]

        assert [change.ordinal for change in changes] == [1, 2, 3]
        assert changes[0].transaction.context == {"user": 7}

    def test_an_id_can_be_chosen(self):
        at = make_transaction(commit_lsn=LSN.parse("0/ABC"), xid=5)

        assert make_change(Note(pk=1), transaction=at, ordinal=9).id == "0/ABC/9"

    def test_stream_and_database_are_those_of_the_settings(self, settings):
        settings.WALSIGNALS = {"audit": {"EXCLUDE": {"testapp.Note": ["text"]}}}
        change = make_change(Note(pk=1, text="a"), stream="audit")

        assert (change.stream, change.using) == ("audit", "default")
        assert change.unknown_fields == {"text"}
        assert make_change(Note(pk=1), stream="audit", using="other").using == "other"

    def test_a_stream_that_is_not_configured_is_refused(self):
        with pytest.raises(ConfigurationError, match="no stream 'audit'"):
            make_change(Note(pk=1), stream="audit")

"""The main path, on a real server: what is committed arrives, with its diff, once, at whoever wants it.

Written with the package's own `WalStream`, as a user's tests would be.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from django_walsignals import WalChange, on_change, on_delete, on_insert, on_update
from django_walsignals.changes import FieldDiff, Operation
from django_walsignals.testing import WalStream, make_change, send_change
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


@pytest.fixture
def notes(transactional_db: None, no_receivers: None) -> Iterator[WalStream]:
    with WalStream() as stream:
        stream.listen(Note)
        yield stream


def test_insert_update_and_delete_arrive_in_commit_order(notes: WalStream) -> None:
    note = Note.objects.create(text="a")
    Note.objects.filter(pk=note.pk).update(text="b")
    Note.objects.all().delete()
    inserted, updated, deleted = notes.consume()
    assert [change.operation for change in (inserted, updated, deleted)] == list(Operation)
    assert inserted.instance == note and inserted.instance.text == "a" and inserted.old is None
    assert updated.diff == {"text": FieldDiff("a", "b")}
    assert deleted.instance.text == "b" and deleted.old is deleted.instance
    assert notes.consume() == []


def test_change_tells_where_it_comes_from(notes: WalStream) -> None:
    Note.objects.bulk_create([Note(text="a"), Note(text="b")])
    first, second = notes.consume()
    assert first.transaction is second.transaction
    assert (first.ordinal, second.ordinal) == (1, 2)
    assert second.id == f"{second.transaction.commit_lsn}/2"
    assert first.transaction.commit_lsn < first.transaction.end_lsn
    assert (first.stream, first.using, str(first.table)) == ("default", "default", "public.testapp_note")


def test_each_receiver_hears_what_its_filters_let_through(notes: WalStream) -> None:
    heard: list[str] = []
    on_insert(Note)(lambda change: heard.append(f"insert {change.instance.text}"))
    on_update(Note, fields=["text"])(lambda change: heard.append(f"update {change.diff['text'].new}"))
    on_update(Note, fields=["id"])(lambda change: heard.append("never"))
    on_delete(Note, when=lambda change: change.instance.text == "c")(lambda change: heard.append("delete c"))

    @on_change(Note, operations=["delete"])
    async def deleted(change: WalChange[Note]) -> None:
        heard.append(f"async {await Note.objects.acount()}")

    note = Note.objects.create(text="a")
    note.save()  # writes the row again, as it is
    Note.objects.update(text="c")
    Note.objects.all().delete()
    notes.consume()
    assert heard == ["insert a", "update c", "delete c", "async 0"]


def test_many_to_many_rows_are_changes_of_their_through_model(transactional_db: None, no_receivers: None) -> None:
    user, group = User.objects.create(username="u"), Group.objects.create(name="g")
    with WalStream() as stream:
        stream.listen(User.groups.through)
        user.groups.add(group)
        user.groups.clear()
        added, removed = stream.consume()
    assert (added.operation, removed.operation) == (Operation.INSERT, Operation.DELETE)
    assert removed.diff["group_id"] == FieldDiff(group.pk, None)


def test_password_is_never_decoded_unless_asked_for(transactional_db: None, no_receivers: None) -> None:
    with WalStream() as stream:
        stream.listen(User)
        User.objects.create(username="u", password="a planted secret")
        (change,) = stream.consume()
    assert change.unknown_fields == {"password"}
    assert "a planted secret" not in f"{change.diff} {change!r} {change.instance.__dict__}"


def test_made_change_reaches_the_same_receivers_as_a_real_one(no_receivers: None) -> None:
    heard: list[Any] = []
    on_update(Note, fields=["text"])(lambda change: heard.append(change.diff))
    assert send_change(make_change(Note(pk=1, text="b"), old=Note(pk=1, text="a")))
    assert not send_change(make_change(Note(pk=1, text="a"), old=Note(pk=1, text="a")))
    assert heard == [{"text": FieldDiff("a", "b")}]

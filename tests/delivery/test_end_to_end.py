"""The main path, on a real server: what is committed arrives, with its diff, once."""

import pytest

from django_walsignals.changes import FieldDiff, Operation
from tests.streams import Stream
from tests.testapp.models import Note

pytestmark = pytest.mark.integration


def test_insert_update_and_delete_arrive_in_commit_order(stream: Stream) -> None:
    stream.listen(Note)
    stream.set_up()
    note = Note.objects.create(text="a")
    Note.objects.filter(pk=note.pk).update(text="b")
    Note.objects.all().delete()
    inserted, updated, deleted = stream.consume()
    assert [change.operation for change in (inserted, updated, deleted)] == list(Operation)
    assert inserted.instance == note and inserted.instance.text == "a" and inserted.old is None
    assert updated.diff == {"text": FieldDiff("a", "b")}
    assert deleted.instance.text == "b" and deleted.old is deleted.instance
    assert stream.consume() == []

"""NULL, unknown and unchanged never look alike, whatever the table's replica identity.

The rows of these tables have a value too long for its page (TOAST): an update that does not touch it leaves it out of
the WAL. https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY
"""

from __future__ import annotations

import copy
import pickle
import secrets
from collections.abc import Callable

import django
import pytest
from django.core.management import CommandError
from django.db import DatabaseError

from django_walsignals.changes import UNKNOWN, FieldDiff, WalChange
from tests.binding import models as m
from tests.binding.comparing import assert_as_orm
from tests.binding.conftest import MakeTables, run_sql
from tests.streams import Stream

pytestmark = pytest.mark.integration

LONG = secrets.token_hex(20_000)  # can't be compressed into a page
OTHER = secrets.token_hex(20_000)

Keep = Callable[[str], Stream]


@pytest.fixture
def identity(stream: Stream, tables: MakeTables) -> Keep:
    """Return a function that sets up a stream of the model's table with this REPLICA IDENTITY, left as it is."""

    def set_up(kind: str) -> Stream:
        tables(m.Keyless)
        run_sql("ALTER TABLE binding_identity ALTER COLUMN big SET STORAGE EXTERNAL")
        run_sql("CREATE UNIQUE INDEX binding_code ON binding_identity (code)")
        run_sql(f"ALTER TABLE binding_identity REPLICA IDENTITY {kind}")
        stream.configure(REPLICA_IDENTITY="keep")
        stream.listen(m.Keyless)
        stream.set_up()
        assert run_sql("SELECT relreplident FROM pg_class WHERE relname = 'binding_identity'") == [
            ({"DEFAULT": "d", "FULL": "f", "NOTHING": "n"}.get(kind, "i"),)
        ]
        return stream

    return set_up


def make_row(big: str | None = LONG) -> m.Keyless:
    return m.Keyless.objects.create(code="a", other=1, big=big)


def unknown_of(change: WalChange[m.Keyless]) -> set[str]:
    """Give the fields that the instance lacks, which are the ones that are said to be unknown."""
    assert change.instance.get_deferred_fields() == change.unknown_fields
    return set(change.unknown_fields)


def test_full_has_everything_on_both_sides(identity: Keep) -> None:
    stream = identity("FULL")
    row = make_row()
    m.Keyless.objects.update(other=2)
    read = m.Keyless.objects.get()
    m.Keyless.objects.update(id=row.id + 1)
    m.Keyless.objects.update(big=None)
    m.Keyless.objects.all().delete()
    inserted, other, moved, emptied, deleted = stream.consume()
    assert [unknown_of(change) for change in (inserted, other, moved, emptied, deleted)] == [set()] * 5
    assert_as_orm(other.instance, read)
    assert other.instance.big == other.old.big == LONG
    assert other.diff == {"other": FieldDiff(1, 2)}
    assert moved.diff == {"id": FieldDiff(row.id, row.id + 1)}
    assert (moved.pk, moved.old.pk, moved.instance.big, moved.old.big) == (row.id + 1, row.id, LONG, LONG)
    assert emptied.diff == {"big": FieldDiff(LONG, None)}
    assert deleted.instance.big is None and deleted.diff["big"] == FieldDiff(None, None)


def test_full_tells_a_long_value_written_again_from_one_that_changed(identity: Keep) -> None:
    stream = identity("FULL")
    make_row()
    run_sql("UPDATE binding_identity SET big = big")
    m.Keyless.objects.update(big=OTHER)
    _, same, changed = stream.consume()
    assert same.diff == {} and same.changed_fields == frozenset() and same.instance.big == LONG
    assert changed.diff == {"big": FieldDiff(LONG, OTHER)}


def test_default_does_not_know_what_an_update_changed_nor_a_long_value_it_left_alone(identity: Keep) -> None:
    stream = identity("DEFAULT")
    row = make_row()
    m.Keyless.objects.update(other=2)
    inserted, updated = stream.consume()
    assert unknown_of(inserted) == set() and inserted.instance.big == LONG
    assert unknown_of(updated) == {"big"}
    assert updated.diff == {"code": FieldDiff(UNKNOWN, "a"), "other": FieldDiff(UNKNOWN, 2)}
    assert not updated.has_changed("big"), "a long value that is not in the WAL was not changed"
    assert not updated.has_changed("id")
    assert updated.pk == updated.old.pk == row.pk
    assert updated.old.get_deferred_fields() == {"code", "other", "big"}


def test_default_tells_a_long_value_that_changed_or_became_null(identity: Keep) -> None:
    stream = identity("DEFAULT")
    make_row()
    m.Keyless.objects.update(big=OTHER)
    m.Keyless.objects.update(big=None)
    m.Keyless.objects.update(other=3)
    _, changed, emptied, other = stream.consume()
    assert changed.diff["big"] == FieldDiff(UNKNOWN, OTHER) and unknown_of(changed) == set()
    assert emptied.diff["big"] == FieldDiff(UNKNOWN, None) and unknown_of(emptied) == set()
    assert emptied.instance.big is None
    assert other.diff["big"] == FieldDiff(UNKNOWN, None), "a NULL is in the WAL, and may be new"
    assert other.instance.big is None and unknown_of(other) == set()


def test_default_knows_the_old_key_of_a_row_whose_key_changed(identity: Keep) -> None:
    stream = identity("DEFAULT")
    row = make_row()
    m.Keyless.objects.update(id=row.id + 1)
    _, moved = stream.consume()
    assert (moved.pk, moved.old.pk) == (row.id + 1, row.id)
    assert moved.diff == {
        "id": FieldDiff(row.id, row.id + 1),
        "code": FieldDiff(UNKNOWN, "a"),
        "other": FieldDiff(UNKNOWN, 1),
    }
    assert unknown_of(moved) == {"big"} and not moved.has_changed("big")
    assert moved.old.get_deferred_fields() == {"code", "other", "big"}


def test_default_knows_the_key_alone_of_a_deleted_row(identity: Keep) -> None:
    stream = identity("DEFAULT")
    row = make_row(None)
    m.Keyless.objects.all().delete()
    _, deleted = stream.consume()
    assert deleted.pk == row.pk and deleted.instance is deleted.old
    assert unknown_of(deleted) == {"code", "other", "big"}, "the NULLs of a key's row are not the row's NULLs"
    assert deleted.diff == {
        "id": FieldDiff(row.pk, None),
        "code": FieldDiff(UNKNOWN, None),
        "other": FieldDiff(UNKNOWN, None),
        "big": FieldDiff(UNKNOWN, None),
    }


def test_an_index_knows_its_own_columns_of_the_row_before(identity: Keep) -> None:
    stream = identity("USING INDEX binding_code")
    row = make_row()
    m.Keyless.objects.update(other=2)
    m.Keyless.objects.update(code="b")
    m.Keyless.objects.update(id=row.id + 1)
    m.Keyless.objects.all().delete()
    _, other, coded, moved, deleted = stream.consume()
    assert other.diff == {"id": FieldDiff(UNKNOWN, row.id), "other": FieldDiff(UNKNOWN, 2)}
    assert coded.diff == {
        "id": FieldDiff(UNKNOWN, row.id),
        "code": FieldDiff("a", "b"),
        "other": FieldDiff(UNKNOWN, 2),
    }
    assert moved.pk == row.id + 1, "the key that changed is in the new row only"
    assert moved.diff["id"] == FieldDiff(UNKNOWN, row.id + 1) and moved.has_changed("pk")
    assert moved.old.get_deferred_fields() == {"id", "other", "big"} and moved.old.code == "b"
    for change in (other, coded, moved):
        assert unknown_of(change) == {"big"} and not change.has_changed("big")
    assert deleted.pk is UNKNOWN
    assert unknown_of(deleted) == {"id", "other", "big"} and deleted.instance.code == "b"
    assert "pk=UNKNOWN" in repr(deleted)
    with pytest.raises(AttributeError):
        _ = deleted.instance.pk  # an error, not None: that would be a row without a key


def test_a_table_without_identity_is_refused_before_its_writes_would_fail(identity: Keep) -> None:
    with pytest.raises(CommandError, match="REPLICA IDENTITY FULL") as refusal:
        identity("NOTHING")
    assert refusal.value.returncode == 1
    assert "binding_identity" in str(refusal.value) and "testapp.Keyless" in str(refusal.value)
    make_row()
    assert m.Keyless.objects.update(other=2) == 1, "nothing was published, nothing breaks"


def test_an_identity_whose_index_is_gone_is_refused(stream: Stream, tables: MakeTables) -> None:
    tables(m.Keyless)
    run_sql("CREATE UNIQUE INDEX binding_code ON binding_identity (code)")
    run_sql("ALTER TABLE binding_identity REPLICA IDENTITY USING INDEX binding_code; DROP INDEX binding_code")
    stream.configure(REPLICA_IDENTITY="keep")
    stream.listen(m.Keyless)
    with pytest.raises(CommandError, match="no replica identity"):
        stream.set_up()


def test_full_is_set_where_nothing_says_otherwise_and_cures_a_table_without_identity(
    stream: Stream, tables: MakeTables
) -> None:
    tables(m.Keyless)
    run_sql("ALTER TABLE binding_identity DROP CONSTRAINT binding_identity_pkey, REPLICA IDENTITY NOTHING")
    stream.listen(m.Keyless)
    stream.set_up()
    make_row("short")
    m.Keyless.objects.update(other=2)
    assert stream.consume()[1].diff == {"other": FieldDiff(1, 2)}


def test_rows_that_were_added_under_nothing_are_whole(identity: Keep) -> None:
    """Without an identity a published table takes inserts, and nothing else."""
    stream = identity("FULL")
    run_sql("ALTER TABLE binding_identity REPLICA IDENTITY NOTHING")
    row = make_row()
    with pytest.raises(DatabaseError, match="does not have a replica identity"):
        m.Keyless.objects.update(other=2)
    run_sql("ALTER TABLE binding_identity REPLICA IDENTITY FULL")
    m.Keyless.objects.update(other=3)
    inserted, updated = stream.consume()
    assert (inserted.operation, inserted.pk) == ("insert", row.pk)
    assert unknown_of(inserted) == set() and inserted.instance.big == LONG
    assert updated.diff == {"other": FieldDiff(1, 3)}


def test_an_identity_that_changes_while_streaming_holds_from_there_on(identity: Keep) -> None:
    stream = identity("DEFAULT")
    make_row()
    m.Keyless.objects.update(other=2)
    run_sql("ALTER TABLE binding_identity REPLICA IDENTITY FULL")
    m.Keyless.objects.update(other=3)
    run_sql("ALTER TABLE binding_identity REPLICA IDENTITY USING INDEX binding_code")
    m.Keyless.objects.update(other=4)
    _, by_key, full, by_index = stream.consume()
    assert by_key.diff["other"] == FieldDiff(UNKNOWN, 2) and unknown_of(by_key) == {"big"}
    assert full.diff == {"other": FieldDiff(2, 3)} and unknown_of(full) == set()
    assert by_index.diff["other"] == FieldDiff(UNKNOWN, 4) and by_index.diff["id"].old is UNKNOWN


def test_reading_an_unknown_field_is_an_error_where_django_can_make_it_one(identity: Keep) -> None:
    stream = identity("DEFAULT")
    make_row()
    m.Keyless.objects.update(other=2)
    m.Keyless.objects.filter(other=2).update(big=OTHER)
    _, updated, _ = stream.consume()
    if django.VERSION >= (6, 1):
        from django.core.exceptions import FieldFetchBlocked

        with pytest.raises(FieldFetchBlocked, match=r"Keyless\.big is unknown"):
            _ = updated.instance.big
    else:
        assert updated.instance.big == OTHER, "as any deferred field: a query for today's value"
    updated.instance.refresh_from_db(fields=["big"])
    assert updated.instance.big == OTHER, "asked for by name, it is fetched"


def test_a_relation_of_a_row_with_unknown_fields_can_be_followed(stream: Stream, tables: MakeTables) -> None:
    tables(m.Target, m.CoreFields)
    run_sql("ALTER TABLE binding_core ALTER COLUMN text SET STORAGE EXTERNAL")
    stream.configure(REPLICA_IDENTITY="keep")
    stream.listen(m.CoreFields)
    stream.set_up()
    row = m.CoreFields.objects.create(text=LONG, foreign=m.Target.objects.create(code="x"))
    m.CoreFields.objects.filter(pk=row.pk).update(integer=1)
    _, updated = stream.consume()
    assert updated.unknown_fields == {"text"}
    assert updated.instance.foreign == m.Target.objects.get()


def test_an_instance_with_unknown_fields_can_be_copied_pickled_and_saved_in_part(identity: Keep) -> None:
    stream = identity("DEFAULT")
    make_row()
    m.Keyless.objects.update(other=2)
    _, updated = stream.consume()
    for twin in (pickle.loads(pickle.dumps(updated.instance)), copy.deepcopy(updated.instance)):
        assert twin == updated.instance and twin.get_deferred_fields() == {"big"}
    updated.instance.other = 7
    updated.instance.save()
    saved = m.Keyless.objects.get()
    assert (saved.other, saved.big) == (7, LONG), "a field that is not known is not written"


def test_an_excluded_field_is_unknown_and_in_no_diff(stream: Stream, tables: MakeTables) -> None:
    tables(m.Keyless)
    stream.configure(EXCLUDE={"testapp.Keyless": ["code"]})
    stream.listen(m.Keyless)
    stream.set_up()
    make_row("x")
    m.Keyless.objects.update(code="b")
    m.Keyless.objects.all().delete()
    changes = stream.consume()
    assert len(changes) == 3
    for change in changes:
        assert unknown_of(change) == {"code"}
        assert "code" not in change.diff and "code" not in change.changed_fields


def test_an_excluded_field_is_unknown_beside_those_that_the_row_does_not_hold(identity: Keep) -> None:
    stream = identity("DEFAULT")
    stream.configure(REPLICA_IDENTITY="keep", EXCLUDE={"testapp.Keyless": ["code"]})
    row = make_row(None)
    m.Keyless.objects.all().delete()
    _, deleted = stream.consume()
    assert unknown_of(deleted) == {"code", "other", "big"}
    assert deleted.pk == row.pk and "code" not in deleted.diff

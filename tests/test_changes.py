"""What a receiver gets: immutable, computed once and only when asked for, and UNKNOWN like nothing else."""

import copy
import gc
import pickle
import weakref
from collections import Counter
from datetime import UTC, datetime
from itertools import product
from types import MappingProxyType
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist

from django_walsignals.changes import (
    UNKNOWN,
    FieldDiff,
    Operation,
    Row,
    Table,
    Transaction,
    Unknown,
    WalChange,
    WalTruncate,
)
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import UNCHANGED
from tests.testapp.models import Note

COMMITTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD: Row = [b"1", b"secret before"]
NEW: Row = [b"1", b"secret after"]


class FakeBinding:
    """A binding of two columns, which counts how often each thing is asked of it."""

    model = Note
    table = Table("public", "testapp_note")
    stream = "default"
    using = "default"
    absent: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def attnames(self, field: str) -> tuple[str, ...]:
        return {"id": ("id",), "pk": ("id",), "text": ("text",)}.get(field, ())

    def pk(self, row: Row) -> Any:
        self.calls["pk"] += 1
        return int(row[0])

    def instance(self, row: Row) -> Note:
        self.calls["instance"] += 1
        return Note(pk=int(row[0]), text=row[1].decode())

    def unknown_fields(self, row: Row) -> frozenset[str]:
        self.calls["unknown_fields"] += 1
        return frozenset({"text"} if row[1] is UNKNOWN else ())

    def changed_fields(self, old: Row | None, new: Row) -> frozenset[str]:
        self.calls["changed_fields"] += 1
        return frozenset(name for name, a, b in zip(("id", "text"), old or ((), ()), new, strict=True) if a != b)

    def diff(self, old: Row | None, new: Row | None) -> dict[str, FieldDiff]:
        self.calls["diff"] += 1
        return {"text": FieldDiff(old and old[1], new and new[1])}


@pytest.fixture
def binding() -> FakeBinding:
    return FakeBinding()


def transaction(commit_lsn: int = 0x16_B374D848) -> Transaction:
    return Transaction(xid=7, commit_lsn=LSN(commit_lsn), committed_at=COMMITTED, context={"user": "secret user"})


def change(
    binding: FakeBinding, operation: Operation = Operation.UPDATE, *, commit_lsn: int = 0x16_B374D848, ordinal: int = 2
) -> WalChange[Note]:
    old = None if operation is Operation.INSERT else OLD
    new = None if operation is Operation.DELETE else NEW
    return WalChange(binding, operation, old, new, transaction(commit_lsn), ordinal)


def public(value: object) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


class TestImmutability:
    @pytest.mark.parametrize("name", public(WalChange))
    def test_no_attribute_of_a_change_can_be_assigned_or_deleted(self, binding: FakeBinding, name: str) -> None:
        made = change(binding)
        with pytest.raises(AttributeError):
            setattr(made, name, None)
        with pytest.raises(AttributeError):
            delattr(made, name)

    @pytest.mark.parametrize("name", public(Transaction))
    def test_no_attribute_of_a_transaction_can_be_assigned_or_deleted(self, name: str) -> None:
        made = transaction()
        with pytest.raises(AttributeError):
            setattr(made, name, None)
        with pytest.raises(AttributeError):
            delattr(made, name)

    @pytest.mark.parametrize("name", ["old", "new", "extra"])
    def test_no_attribute_of_a_diff_can_be_assigned(self, name: str) -> None:
        with pytest.raises(AttributeError):
            setattr(FieldDiff(1, 2), name, 3)

    def test_no_attribute_can_be_added(self, binding: FakeBinding) -> None:
        for made in (change(binding), transaction(), Table("a", "b")):
            with pytest.raises(AttributeError):
                made.extra = 1  # type: ignore[union-attr]

    def test_the_diff_cannot_be_changed(self, binding: FakeBinding) -> None:
        with pytest.raises(TypeError):
            change(binding).diff["text"] = FieldDiff(1, 2)  # type: ignore[index]

    def test_the_context_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            transaction().context["user"] = "me"  # type: ignore[index]

    def test_the_context_is_a_copy(self) -> None:
        given = {"user": "a"}
        made = Transaction(xid=1, commit_lsn=LSN(1), committed_at=COMMITTED, context=given)
        given["user"] = "b"
        assert made.context == {"user": "a"}


class TestLaziness:
    LAZY = ("pk", "instance", "old", "diff", "changed_fields", "unknown_fields")

    def test_nothing_is_computed_before_it_is_asked_for(self, binding: FakeBinding) -> None:
        made = change(binding)
        assert (made.operation, made.model, made.table) == (Operation.UPDATE, Note, binding.table)
        assert (made.stream, made.using, made.ordinal, made.id) == ("default", "default", 2, "16/B374D848/2")
        assert made.transaction.xid == 7
        assert not binding.calls

    @pytest.mark.parametrize("operation", Operation)
    @pytest.mark.parametrize("name", LAZY)
    def test_everything_is_computed_once(self, binding: FakeBinding, operation: Operation, name: str) -> None:
        made = change(binding, operation)
        first = getattr(made, name)
        assert getattr(made, name) is first
        assert sum(binding.calls.values()) <= 1

    def test_what_is_computed_to_none_is_not_computed_again(self, binding: FakeBinding) -> None:
        made = change(binding, Operation.INSERT)
        assert made.old is made.old is None
        assert not binding.calls

    def test_one_thing_asked_for_computes_no_other(self, binding: FakeBinding) -> None:
        made = change(binding)
        for count, name in enumerate(("pk", "changed_fields", "diff", "unknown_fields", "instance"), start=1):
            getattr(made, name)
            assert binding.calls.total() == count
        assert set(binding.calls.values()) == {1}

    def test_whether_a_field_has_changed_decodes_nothing(self, binding: FakeBinding) -> None:
        made = change(binding)
        assert made.has_changed("text") and not made.has_changed("id") and not made.has_changed("pk")
        assert binding.calls == {"changed_fields": 1}


class TestRows:
    def test_an_insert_has_a_row_after_and_none_before(self, binding: FakeBinding) -> None:
        made = change(binding, Operation.INSERT)
        assert made.instance.text == "secret after"
        assert made.old is None
        assert made.diff == {"text": FieldDiff(None, b"secret after")}
        assert made.changed_fields == {"id", "text"}

    def test_an_update_has_a_row_before_and_a_row_after(self, binding: FakeBinding) -> None:
        made = change(binding, Operation.UPDATE)
        assert made.instance.text == "secret after"
        assert made.old is not None and made.old.text == "secret before"
        assert made.diff == {"text": FieldDiff(b"secret before", b"secret after")}
        assert made.changed_fields == {"text"}

    def test_a_delete_has_the_row_that_was(self, binding: FakeBinding) -> None:
        made = change(binding, Operation.DELETE)
        assert made.instance.text == "secret before"
        assert made.old is made.instance
        assert made.diff == {"text": FieldDiff(b"secret before", None)}
        assert made.changed_fields == {"id", "text"}

    def test_an_update_without_an_old_row_has_none_before(self, binding: FakeBinding) -> None:
        made = WalChange(binding, Operation.UPDATE, None, NEW, transaction(), 1)
        assert made.old is None

    def test_a_field_that_is_not_there_is_an_error(self, binding: FakeBinding) -> None:
        with pytest.raises(
            FieldDoesNotExist, match=r"testapp.Note has no field named 'txet' in table public.testapp_note"
        ):
            change(binding).has_changed("txet")


class TestIdentity:
    def test_the_id_is_the_commit_position_and_the_ordinal(self, binding: FakeBinding) -> None:
        assert change(binding, commit_lsn=0x1_0000_0002, ordinal=3).id == "1/2/3"

    def test_the_same_change_delivered_again_is_equal(self, binding: FakeBinding) -> None:
        one, again = change(binding), change(FakeBinding())
        assert one == again
        assert len({one, again}) == 1

    def test_another_change_is_not_equal(self, binding: FakeBinding) -> None:
        elsewhere = FakeBinding()
        elsewhere.stream = "audit"
        others = [change(binding, ordinal=3), change(binding, commit_lsn=1), change(elsewhere)]
        assert change(binding) not in others
        assert len({change(binding), *others}) == 4

    def test_a_change_equals_nothing_else(self, binding: FakeBinding) -> None:
        made = change(binding)
        assert made != made.id
        assert made.__eq__(made.id) is NotImplemented

    def test_it_can_be_held_weakly(self, binding: FakeBinding) -> None:
        made = change(binding)
        held = weakref.ref(made)
        assert held() is made
        del made
        gc.collect()
        assert held() is None

    def test_it_is_generic_in_its_model(self) -> None:
        assert WalChange[Note].__args__ == (Note,)  # type: ignore[attr-defined]


class TestRepr:
    @pytest.mark.parametrize("operation", Operation)
    def test_a_change_shows_its_key_and_no_other_value(self, binding: FakeBinding, operation: Operation) -> None:
        made = change(binding, operation)
        for lazy in TestLaziness.LAZY:
            getattr(made, lazy)
        assert repr(made) == f"<WalChange 16/B374D848/2 {operation} testapp.Note pk=1>"

    def test_a_transaction_does_not_show_its_context(self) -> None:
        assert repr(transaction()) == "<Transaction 7 at 16/B374D848, committed 2026-01-02T03:04:05+00:00>"

    def test_a_table_prints_as_people_write_it(self) -> None:
        assert str(Table("shop", "order")) == "shop.order"


class TestTransaction:
    def test_has_no_end_until_it_is_known(self) -> None:
        made = transaction()
        assert made.end_lsn is None
        made.finish(LSN(9))
        assert made.end_lsn == LSN(9)

    def test_has_an_empty_context_by_default(self) -> None:
        made = Transaction(xid=1, commit_lsn=LSN(1), committed_at=COMMITTED)
        assert made.context == {}
        assert isinstance(made.context, MappingProxyType)


class TestTruncate:
    def test_the_tables_of_one_statement_share_an_id(self) -> None:
        one, other = (
            WalTruncate(Note, Table("public", name), True, False, transaction(), 4, "default", "default")
            for name in ("a", "b")
        )
        assert one.id == other.id == "16/B374D848/4"
        assert one != other


class TestOperation:
    @pytest.mark.parametrize("operation", Operation)
    def test_is_its_name(self, operation: Operation) -> None:
        assert operation == operation.name.lower() == str(operation)


class TestUnknown:
    def test_is_a_singleton_through_copy_and_pickle(self) -> None:
        assert copy.copy(UNKNOWN) is copy.deepcopy(UNKNOWN) is Unknown.UNKNOWN is UNKNOWN
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(UNKNOWN, protocol)) is UNKNOWN

    def test_no_other_can_be_made(self) -> None:
        assert Unknown("unknown") is UNKNOWN
        with pytest.raises(ValueError, match="is not a valid Unknown"):
            Unknown("other")

    def test_is_false(self) -> None:
        assert not UNKNOWN

    def test_shows_its_name(self) -> None:
        assert repr(UNKNOWN) == "UNKNOWN"
        assert repr(FieldDiff(UNKNOWN, 1)) == "FieldDiff(old=UNKNOWN, new=1)"

    @pytest.mark.parametrize("other", [None, False, 0, "", b"", (), "unknown", "UNKNOWN", UNCHANGED, object()])
    def test_equals_nothing_else(self, other: object) -> None:
        assert other != UNKNOWN
        assert other != UNKNOWN
        assert len({UNKNOWN, other}) == 2

    def test_null_unknown_and_unchanged_are_three(self) -> None:
        values = (None, UNKNOWN, UNCHANGED)
        assert [(one, other) for one, other in product(values, values) if one == other] == [(v, v) for v in values]

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            UNKNOWN.value = 1  # type: ignore[misc]

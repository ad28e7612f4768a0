"""What a receiver gets: `WalChange` and the small types it is made of.

A change holds its row as the WAL had it; decoding and comparing happen on first use, through the binding of its table
(`RowBinding`, which ``binding.plan`` implements). Nothing here talks to a database.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model

from django_walsignals.protocol.lsn import LSN
from django_walsignals.transactions import Transaction as Transaction  # noqa: PLC0414  # it is a part of a change

M = TypeVar("M", bound=Model)


class Operation(enum.StrEnum):
    """What happened to a row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Unknown(enum.Enum):
    """The type of `UNKNOWN`."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> Literal[False]:
        return False


#: A value that the WAL does not hold. It is not None, which is a NULL in the row.
UNKNOWN: Final = Unknown.UNKNOWN


class FieldDiff(NamedTuple):
    """A field's value before and after; either may be `UNKNOWN`, and is None where there was or is no row."""

    old: Any
    new: Any


class Table(NamedTuple):
    """A table by its name at the time of the change."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


Row = Sequence[Any]
"""A row as the binding keeps it: not decoded, one entry a column of the relation."""


class RowBinding(Protocol[M]):
    """What a change needs to know of its table; one object for all rows of a table between two Relation messages."""

    model: type[M]
    table: Table
    stream: str
    using: str

    #: The fields, by attname, that no row of this table holds.
    absent: frozenset[str]

    def attnames(self, field: str) -> tuple[str, ...]:
        """Resolve a field's name or attname, or "pk"; empty if the model has no such field in this table."""
        ...

    def pk(self, row: Row) -> Any:
        """Decode a row's primary key; `UNKNOWN` where the row does not hold it."""
        ...

    def instance(self, row: Row) -> M:
        """Build a model instance of a row, with its unknown fields deferred."""
        ...

    def unknown_fields(self, row: Row) -> frozenset[str]:
        """Name the fields, by attname, whose value the row does not hold."""
        ...

    def changed_fields(self, old: Row | None, new: Row) -> frozenset[str]:
        """Name the fields, by attname, that differ or may differ, without decoding a value."""
        ...

    def diff(self, old: Row | None, new: Row | None) -> dict[str, FieldDiff]:
        """Decode what differs: for a row that came or went, every field."""
        ...


_UNSET: Final[Any] = object()


class WalChange(Generic[M]):
    """One row inserted, updated or deleted, as the WAL has it.

    Immutable; everything costly is computed once, when it is first asked for.

    ``id`` is unique, ordered, and the same on every redelivery: use it as the idempotency key for effects outside the
    checkpoint's database.
    """

    __slots__ = (
        "__weakref__",
        "_binding",
        "_changed_fields",
        "_diff",
        "_instance",
        "_new",
        "_old",
        "_old_instance",
        "_operation",
        "_ordinal",
        "_pk",
        "_transaction",
        "_unknown_fields",
    )

    def __init__(
        self,
        binding: RowBinding[M],
        operation: Operation,
        old: Row | None,
        new: Row | None,
        transaction: Transaction,
        ordinal: int,
    ) -> None:
        self._binding = binding
        self._operation = operation
        self._old = old
        self._new = new
        self._transaction = transaction
        self._ordinal = ordinal
        self._instance: M = _UNSET
        self._old_instance: M | None = _UNSET
        self._diff: Mapping[str, FieldDiff] = _UNSET
        self._changed_fields: frozenset[str] = _UNSET
        self._pk: Any = _UNSET
        self._unknown_fields: frozenset[str] = _UNSET

    @property
    def operation(self) -> Operation:
        """What happened to the row."""
        return self._operation

    @property
    def model(self) -> type[M]:
        """The concrete model of the row's table."""
        return self._binding.model

    @property
    def table(self) -> Table:
        """The table, by its name at the time of the change."""
        return self._binding.table

    @property
    def stream(self) -> str:
        """The alias of the stream that the change came through."""
        return self._binding.stream

    @property
    def using(self) -> str:
        """The alias of the database that the change was made in."""
        return self._binding.using

    @property
    def transaction(self) -> Transaction:
        """The transaction that the change was committed in."""
        return self._transaction

    @property
    def ordinal(self) -> int:
        """The change's number in its transaction, from 1; changes that nobody receives count too."""
        return self._ordinal

    @property
    def id(self) -> str:
        """``"<commit LSN>/<ordinal>"``: the idempotency key."""
        return f"{self._transaction.commit_lsn}/{self._ordinal}"

    @property
    def place(self) -> tuple[LSN, int]:
        """Commit LSN and ordinal: `id`, in a form that orders."""
        return self._transaction.commit_lsn, self._ordinal

    @property
    def binding(self) -> RowBinding[M]:
        """How the row is decoded."""
        return self._binding

    @property
    def rows(self) -> tuple[Row | None, Row | None]:
        """The row before and after, not decoded."""
        return self._old, self._new

    @property
    def _row(self) -> Row:
        return self._old if self._new is None else self._new  # type: ignore[return-value]  # one of them is there

    @property
    def pk(self) -> Any:
        """The primary key of `instance`; `UNKNOWN` where a delete's old row does not hold it."""
        if self._pk is _UNSET:
            self._pk = self._binding.pk(self._row)
        return self._pk

    @property
    def instance(self) -> M:
        """The row after an insert or update; the row that was, for a delete. Unknown fields are deferred."""
        if self._instance is _UNSET:
            self._instance = self._binding.instance(self._row)
        return self._instance

    @property
    def old(self) -> M | None:
        """The row before an update or delete, else None. Unknown fields are deferred."""
        if self._old_instance is _UNSET:
            if self._new is None:
                self._old_instance = self.instance
            else:
                self._old_instance = None if self._old is None else self._binding.instance(self._old)
        return self._old_instance

    @property
    def diff(self) -> Mapping[str, FieldDiff]:
        """By attname: what differs (update), or every field (insert, delete).

        Where the WAL does not hold the old value, the field is listed with `UNKNOWN` for it: it may have changed.
        """
        if self._diff is _UNSET:
            self._diff = MappingProxyType(self._binding.diff(self._old, self._new))
        return self._diff

    @property
    def changed_fields(self) -> frozenset[str]:
        """The attnames that `diff` lists, without decoding a value."""
        if self._changed_fields is _UNSET:
            old = None if self._new is None else self._old
            self._changed_fields = self._binding.changed_fields(old, self._row)
        return self._changed_fields

    @property
    def unknown_fields(self) -> frozenset[str]:
        """The attnames of `instance` that the WAL does not hold; they are deferred there."""
        if self._unknown_fields is _UNSET:
            self._unknown_fields = self._binding.unknown_fields(self._row)
        return self._unknown_fields

    def has_changed(self, field: str) -> bool:
        """Say whether a field, by name or attname, differs or may differ.

        It may where the WAL does not hold it at all (``fields=`` filters judge likewise); else it is in
        `changed_fields`. Raises ``FieldDoesNotExist`` for a field that the model's own table does not have.
        """
        attnames = self._binding.attnames(field)
        if not attnames:
            raise FieldDoesNotExist(f"{self.model._meta.label} has no field named {field!r} in table {self.table}")
        return not (self.changed_fields | self._binding.absent).isdisjoint(attnames)

    def __repr__(self) -> str:
        return f"<WalChange {self.id} {self.operation} {self.model._meta.label} pk={self.pk!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WalChange):
            return NotImplemented
        return (self.stream, self.id) == (other.stream, other.id)

    def __hash__(self) -> int:
        return hash((self.stream, self.id))


class WalTruncate(NamedTuple):
    """A table emptied by TRUNCATE. One statement may empty several: they share ``id``."""

    model: type[Model]
    table: Table
    cascade: bool
    restart_identity: bool
    transaction: Transaction
    ordinal: int
    stream: str
    using: str

    @property
    def place(self) -> tuple[LSN, int]:
        """Commit LSN and ordinal."""
        return self.transaction.commit_lsn, self.ordinal

    @property
    def id(self) -> str:
        """``"<commit LSN>/<ordinal>"``."""
        return f"{self.transaction.commit_lsn}/{self.ordinal}"

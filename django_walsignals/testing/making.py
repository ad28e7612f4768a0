"""Make a change by hand, for the test of one receiver: no server, no database, no commit."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import AutoField, Field, FileField, Model, Value
from django.db.models.expressions import DatabaseDefault

from django_walsignals.changes import UNKNOWN, M, Operation, Row, WalChange
from django_walsignals.conf import DEFAULT_STREAM, get_stream
from django_walsignals.contexts import context as current_context
from django_walsignals.protocol.lsn import LSN
from django_walsignals.signals import OperationName
from django_walsignals.testing.rows import FieldRows, concrete, rows_of
from django_walsignals.transactions import Transaction

#: Where the WAL of made transactions starts, and how far apart they lie, in bytes: any numbers that grow.
_FIRST_LSN: Final = 0x1000000
_COMMIT_SIZE: Final = 0x30
_TRANSACTION_SIZE: Final = 0x100

_numbers = itertools.count(1)
_keys = itertools.count(1)
_ordinals: Counter[LSN] = Counter()


def make_transaction(
    *,
    xid: int | None = None,
    commit_lsn: LSN | None = None,
    committed_at: datetime | None = None,
    context: Mapping[str, Any] | None = None,
) -> Transaction:
    """Make a transaction, later than all those made before; give it to each of its changes.

    Its context is that of the block this runs in (``with context(…)``) unless given.

    >>> buying = make_transaction(context={"user": 7})
    >>> changes = [make_change(order, transaction=buying), make_change(item, transaction=buying)]
    """
    number = next(_numbers)
    lsn = LSN(_FIRST_LSN + number * _TRANSACTION_SIZE) if commit_lsn is None else commit_lsn
    made = Transaction(
        xid=number if xid is None else xid,
        commit_lsn=lsn,
        committed_at=committed_at or datetime.now(UTC),
        context=current_context.current() if context is None else context,
    )
    made.finish(LSN(lsn + _COMMIT_SIZE))
    return made


def make_change(
    instance: M,
    *,
    old: M | None = None,
    operation: OperationName | None = None,
    transaction: Transaction | None = None,
    ordinal: int | None = None,
    stream: str = DEFAULT_STREAM,
    using: str | None = None,
    unknown: Collection[str] = (),
) -> WalChange[M]:
    """Make the change that the WAL would have brought for these instances, which need not be saved.

    >>> make_change(Order(pk=1, status="new"))  # an insert
    >>> make_change(Order(pk=1, status="paid"), old=Order(pk=1, status="new"))  # an update of its status
    >>> make_change(order, operation="delete")  # the row that was
    >>> make_change(order, operation="update")  # of the row before, only the key

    ``unknown`` names fields that the WAL does not hold, in either row; fields that are deferred on an instance are
    unknown too, and those that the stream's EXCLUDE takes out. An instance without a key gets one where the key is an
    ``AutoField``, as the database would give it. Values go through ``Field.to_python``; what else a database does to
    them, such as rounding, is not imitated. Without ``transaction`` and ``ordinal`` each change is a transaction of
    its own, or the next one of the transaction given. ``using`` is the stream's database unless given.

    Raises ``ValueError`` for rows that no change could have (an insert with an old row, a missing key, an expression
    as a value), ``TypeError`` for an ``old`` of another model, ``FieldDoesNotExist`` for an ``unknown`` one, and
    `ConfigurationError` for a stream that is not configured.
    """
    binding = rows_of(type(instance), get_stream(stream), using)
    if old is not None and concrete(type(old)) is not binding.model:
        raise TypeError(f"old is a {old._meta.label}, and instance a {instance._meta.label}")
    done = _operation(operation, old)
    hidden = _attnames(binding, unknown)
    key = {} if old is None else {name: old.__dict__.get(name) for name in binding.attnames("pk")}
    row = binding.row(_values(binding, instance, hidden, key))
    before = None if old is None else binding.row(_values(binding, old, hidden, {}))
    return build_change(binding, done, before, row, transaction, ordinal)


def build_change(
    binding: FieldRows[M],
    operation: Operation,
    before: Row | None,
    row: Row,
    transaction: Transaction | None = None,
    ordinal: int | None = None,
) -> WalChange[M]:
    """Put rows where the operation has them; ``row`` is the one that was, for a delete."""
    if operation is Operation.DELETE:
        rows: tuple[Row | None, Row | None] = (row, None)
    elif operation is Operation.UPDATE:
        rows = (binding.only_key(row) if before is None else before, row)
    else:
        rows = (None, row)
    place = transaction or make_transaction()
    return WalChange(binding, operation, *rows, place, _next_ordinal(place) if ordinal is None else ordinal)


def _next_ordinal(transaction: Transaction) -> int:
    _ordinals[transaction.commit_lsn] += 1
    return _ordinals[transaction.commit_lsn]


def _operation(name: OperationName | None, old: Model | None) -> Operation:
    """Infer the operation, or check the one given."""
    if name is None:
        return Operation.INSERT if old is None else Operation.UPDATE
    operation = Operation(name)
    if old is not None and operation is not Operation.UPDATE:
        raise ValueError(f"{operation} has one row: give it as instance, without old")
    return operation


def _attnames(binding: FieldRows[Any], names: Collection[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"unknown takes a list, such as [{names!r}]")
    found: set[str] = set()
    for name in names:
        if not binding.attnames(name):
            raise FieldDoesNotExist(f"{binding.model._meta.label} has no field named {name!r} in its own table")
        found.update(binding.attnames(name))
    return frozenset(found)


def _values(binding: FieldRows[Any], instance: Model, hidden: frozenset[str], key: Mapping[str, Any]) -> dict[str, Any]:
    """Read an instance's loaded fields, by attname; ``key`` is its primary key where it has none itself."""
    values: dict[str, Any] = {}
    for field in binding.fields:
        if field.attname in hidden or field.attname not in instance.__dict__:
            continue
        value = _plain(field, instance.__dict__[field.attname])
        if value is None and field in binding.model._meta.pk_fields:
            value = key.get(field.attname)
            value = _new_key(field) if value is None else value
        values[field.attname] = value
    return values


def _new_key(field: Field[Any, Any]) -> int:
    if isinstance(field, AutoField) or field.get_internal_type().endswith("AutoField"):
        return next(_keys)
    raise ValueError(f"{field.model._meta.label} needs its primary key {field.name}: every row has one")


def _plain(field: Field[Any, Any], value: Any) -> Any:
    """Make of an attribute what a query would have given for it."""
    if isinstance(value, DatabaseDefault):
        value = value.expression  # type: ignore[attr-defined]  # django-stubs does not know it
        value = value.value if isinstance(value, Value) else value
    if hasattr(value, "resolve_expression"):
        raise ValueError(f"{field.model._meta.label}.{field.name} is an expression: give the value that it would have")
    if value is None or value is UNKNOWN:
        return value
    if isinstance(field, FileField):
        return str(value)
    try:
        return field.to_python(value)
    except ValidationError as exc:
        raise ValueError(f"{field.model._meta.label}.{field.name} can't be {value!r}: {exc.messages[0]}") from exc

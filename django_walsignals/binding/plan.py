"""How a relation's rows become field values: resolved once a Relation message, an index loop for each row.

Values are what the ORM would give: psycopg's loaders with the adapters of Django's connection, then the converters of
the database backend and of the field, in the order in which a query applies them. There is no table of types here.

A row, here, is a list with one entry a column of the relation: text, None for NULL, or `UNKNOWN` (see ``builder``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field
from psycopg import abc
from psycopg.adapt import Transformer
from psycopg.pq import Format

from django_walsignals.binding.deferred import ExcludedFields, block_deferred_fields
from django_walsignals.changes import UNKNOWN, FieldDiff, M, Row, Table
from django_walsignals.protocol.messages import Relation

logger = logging.getLogger(__name__)

#: PostgreSQL cuts a longer name to this, in the application's queries too (NAMEDATALEN - 1).
_MAX_NAME_BYTES: Final = 63


class BoundField(NamedTuple):
    """A field, and the column of the relation, counted from 0, that feeds it."""

    attname: str
    at: int
    type_oid: int
    load: Callable[[bytes], Any]
    convert: Callable[[Any], Any] | None


class TablePlan(Generic[M]):
    """The binding of one relation to one model, for as long as its Relation message holds."""

    def __init__(
        self,
        relation: Relation,
        model: type[M],
        connection: BaseDatabaseWrapper,
        *,
        stream: str,
        excluded: Mapping[str, Collection[str]] = MappingProxyType({}),
        base_types: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Compile the plan.

        ``excluded`` names the columns that must never be decoded, by table (``db_table``), ``base_types`` the type under
        each domain by OID.
        """
        self.relation = relation
        self.model = model
        self.table = Table(relation.namespace, relation.name)
        self.stream = stream
        self.using = connection.alias
        #: Columns whose values must not be written down anywhere.
        self.excluded_columns = frozenset(map(stored_name, excluded.get(model._meta.db_table, ())))
        self._excluded_fields = ExcludedFields.of_columns(model, excluded)
        own = model._meta.local_concrete_fields
        self._attnames_of: dict[str, tuple[str, ...]] = {
            name: (field.attname,) for field in own for name in (field.name, field.attname)
        }
        self._attnames_of["pk"] = tuple(field.attname for field in model._meta.pk_fields)
        transformer = Transformer(connection.connection)
        columns = {
            column.name: (at, base_types.get(column.type_oid, column.type_oid))
            for at, column in enumerate(relation.columns)
            if column.name not in self.excluded_columns
        }
        self._fields = tuple(
            _bind(field, *columns[name], connection, transformer)
            for field in own
            if (name := stored_name(str(field.column))) in columns
        )
        #: Where those are in a row.
        self.excluded_at = [at for at, column in enumerate(relation.columns) if column.name in self.excluded_columns]
        self._by_attname = {field.attname: field for field in self._fields}
        self._attnames = [field.attname for field in self._fields]
        self.absent = frozenset(field.attname for field in model._meta.concrete_fields) - {*self._attnames}
        self._pick = _picker([field.at for field in self._fields])
        transformer.set_loader_types([field.type_oid for field in self._fields], Format.TEXT)
        self._load_record = transformer.load_sequence
        self._converters = [(at, field.convert) for at, field in enumerate(self._fields) if field.convert]
        self._undecodable: set[str] = set()

    def keep_back(self, row: Row | None) -> Row | None:
        """Forget the values of excluded columns, so that nothing that is kept or shown of a row can hold one."""
        if row is None:
            return None
        kept = list(row)
        for at in self.excluded_at:
            kept[at] = UNKNOWN
        return kept

    def attnames(self, field: str) -> tuple[str, ...]:
        """Resolve a field's name or attname, or "pk"; empty if this table has no column for it."""
        return self._attnames_of.get(field, ())

    def indexes(self, fields: Iterable[str]) -> tuple[int, ...] | None:
        """Find the columns of these fields, leaving out other models' fields; None if one has no column in the WAL."""
        attnames = {attname for name in fields for attname in self.attnames(name)}
        if not attnames <= self._by_attname.keys():
            return None
        return tuple(sorted(self._by_attname[attname].at for attname in attnames))

    def pk(self, row: Row) -> Any:
        """Decode the primary key of a row; a tuple for a composite one, `UNKNOWN` where the row does not hold it."""
        fields = [self._by_attname.get(field.attname) for field in self.model._meta.pk_fields]
        values = tuple(UNKNOWN if field is None else self._value(field, row) for field in fields)
        if any(value is UNKNOWN for value in values):
            return UNKNOWN
        return values[0] if len(values) == 1 else values

    def instance(self, row: Row) -> M:
        """Build the instance that the ORM would have made of this row, its unknown fields deferred."""
        values, is_whole = self._values(row)
        if is_whole and not self.absent:
            return self.model.from_db(self.using, self._attnames, values)
        known = {name: value for name, value in zip(self._attnames, values, strict=True) if value is not UNKNOWN}
        instance = self.model.from_db(self.using, [*known], [*known.values()])
        block_deferred_fields(instance, self._excluded_fields)
        return instance

    def unknown_fields(self, row: Row) -> frozenset[str]:
        """Name the fields that are deferred on this row's instance."""
        values, is_whole = self._values(row)
        if is_whole:
            return self.absent
        values_by_name = zip(self._attnames, values, strict=True)
        return self.absent | {name for name, value in values_by_name if value is UNKNOWN}

    def changed_fields(self, old: Row | None, new: Row) -> frozenset[str]:
        """Name the fields that differ or may differ: every field where there is no old row.

        Values are compared as the database writes them. A value unknown on both sides is an unchanged TOAST value.
        """
        if old is None:
            return frozenset(self._attnames)
        return frozenset(field.attname for field in self._fields if old[field.at] != new[field.at])

    def diff(self, old: Row | None, new: Row | None) -> dict[str, FieldDiff]:
        """Decode what differs, in the order of the model's fields."""
        if old is None or new is None:
            row = new if old is None else old
            return {} if row is None else self._diff_of_one(row, is_new=old is None)
        return {
            field.attname: FieldDiff(self._value(field, old), self._value(field, new))
            for field in self._fields
            if old[field.at] != new[field.at]
        }

    def _diff_of_one(self, row: Row, *, is_new: bool) -> dict[str, FieldDiff]:
        """List every field of a row that came or went."""
        values, _ = self._values(row)
        named = zip(self._attnames, values, strict=True)
        return {name: FieldDiff(None, value) if is_new else FieldDiff(value, None) for name, value in named}

    def _values(self, row: Row) -> tuple[list[Any], bool]:
        """Decode a whole row, in the order of the model's fields; say whether there is a value for each."""
        record = self._pick(row)
        if UNKNOWN not in record:
            try:
                values = list(self._load_record(record))
            except psycopg.DataError:
                pass  # one of them has no counterpart in Python: take them one by one
            else:
                for at, convert in self._converters:
                    values[at] = convert(values[at])
                return values, True
        return [self._value(field, row) for field in self._fields], False

    def _value(self, field: BoundField, row: Row) -> Any:
        """Decode one value; `UNKNOWN` for one that the row does not hold or that Python has no value for."""
        data = row[field.at]
        if data is UNKNOWN:
            return UNKNOWN
        try:
            value = None if data is None else field.load(data)
        except psycopg.DataError:
            self._report_undecodable(field.attname)
            return UNKNOWN
        return value if field.convert is None else field.convert(value)

    def _report_undecodable(self, attname: str) -> None:
        """Say once a field that a value, such as a date of ``infinity``, has no counterpart in Python; not which value."""
        if attname not in self._undecodable:
            self._undecodable.add(attname)
            label = self.model._meta.label
            logger.warning("%s.%s is deferred where psycopg has no Python value for what it holds", label, attname)


def stored_name(column: str) -> str:
    """Spell a column as the catalogue does: without the quotes that it may bring, and not longer than names may be."""
    if column.startswith('"') and column.endswith('"'):
        column = column[1:-1].replace('""', '"')
    return column.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")


def _bind(
    field: Field[Any, Any], at: int, type_oid: int, connection: BaseDatabaseWrapper, transformer: abc.Transformer
) -> BoundField:
    """Resolve how a field's value is made of its column's text."""
    loader = transformer.get_loader(type_oid, Format.TEXT)
    return BoundField(field.attname, at, type_oid, loader.load, _converter(field, connection))


def _converter(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    """Chain the converters that a query would apply to this field, the backend's first; None if there are none."""
    column = field.get_col(field.model._meta.db_table)
    chain = [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]
    if not chain:
        return None

    def convert(value: Any) -> Any:
        for step in chain:
            value = step(value, column, connection)
        return value

    return convert


def _picker(indexes: list[int]) -> Callable[[Row], Row]:
    """Make the fastest function that picks these columns of a row."""
    if len(indexes) == 1:
        return lambda row: (row[indexes[0]],)
    return itemgetter(*indexes) if indexes else lambda row: ()

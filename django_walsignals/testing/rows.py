"""Rows in memory: the binding of a model whose rows are field values, and need no decoding.

It answers as ``binding.plan.TablePlan`` does for the same row, so a receiver can't tell one from the other. A row is
a tuple with one entry a concrete field of the model's own table, `UNKNOWN` for what the WAL would not hold; excluded
fields are held to be columns that never came.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Generic

from django.db.models import Field, Model

from django_walsignals.binding.deferred import ExcludedFields, block_deferred_fields
from django_walsignals.changes import UNKNOWN, FieldDiff, M, Row, Table
from django_walsignals.conf import StreamConfig
from django_walsignals.selection import excluded_columns


class FieldRows(Generic[M]):
    """The `RowBinding` of one model over rows of field values."""

    def __init__(
        self,
        model: type[M],
        *,
        stream: str,
        using: str,
        excluded: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """``excluded`` names the columns that are never on an instance or in a diff, by table."""
        self.model = concrete(model)
        self._excluded_fields = ExcludedFields.of_columns(self.model, excluded)
        self.table = _table(self.model)
        self.stream = stream
        self.using = using
        self.fields: tuple[Field[Any, Any], ...] = tuple(
            field for field in self._own if field.attname not in self._excluded_fields.attnames
        )
        self._at = {field.attname: at for at, field in enumerate(self.fields)}
        self.absent = frozenset(field.attname for field in self.model._meta.concrete_fields) - self._at.keys()
        self._attnames_of: dict[str, tuple[str, ...]] = {
            name: (field.attname,) for field in self._own for name in (field.name, field.attname)
        }
        self._attnames_of["pk"] = tuple(field.attname for field in self.model._meta.pk_fields)

    @property
    def _own(self) -> Iterable[Field[Any, Any]]:
        return self.model._meta.local_concrete_fields

    def attnames(self, field: str) -> tuple[str, ...]:
        """Resolve a field's name or attname, or "pk"; empty if this table has no column for it."""
        return self._attnames_of.get(field, ())

    def indexes(self, fields: Iterable[str]) -> tuple[int, ...] | None:
        """Find the entries of these fields in a row; None if one is excluded."""
        attnames = {attname for name in fields for attname in self.attnames(name)}
        if not attnames <= self._at.keys():
            return None
        return tuple(sorted(self._at[attname] for attname in attnames))

    def pk(self, row: Row) -> Any:
        """Take the primary key out of a row; a tuple for a composite one."""
        attnames = self._attnames_of["pk"]
        values = tuple(row[self._at[name]] if name in self._at else UNKNOWN for name in attnames)
        if any(value is UNKNOWN for value in values):
            return UNKNOWN
        return values[0] if len(values) == 1 else values

    def instance(self, row: Row) -> M:
        """Build an instance of a row, its unknown fields deferred."""
        known = {name: copy_value(row[at]) for name, at in self._at.items() if row[at] is not UNKNOWN}
        instance = self.model.from_db(self.using, [*known], [*known.values()])
        if self.unknown_fields(row):
            block_deferred_fields(instance, self._excluded_fields)
        return instance

    def unknown_fields(self, row: Row) -> frozenset[str]:
        """Name the fields that are deferred on this row's instance."""
        return self.absent | {name for name, at in self._at.items() if row[at] is UNKNOWN}

    def changed_fields(self, old: Row | None, new: Row) -> frozenset[str]:
        """Name the fields that differ, every field where there is no old row."""
        return frozenset(name for name, at in self._at.items() if old is None or old[at] != new[at])

    def diff(self, old: Row | None, new: Row | None) -> dict[str, FieldDiff]:
        """List what differs, in the order of the model's fields; all of a row that came or went."""
        return {
            name: FieldDiff(_value(old, at), _value(new, at))
            for name, at in self._at.items()
            if old is None or new is None or old[at] != new[at]
        }

    def row(self, values: dict[str, Any]) -> tuple[Any, ...]:
        """Make a row of values by attname; a field that is not among them is unknown."""
        return tuple(copy_value(values.get(field.attname, UNKNOWN)) for field in self.fields)

    def only_key(self, row: Row) -> tuple[Any, ...]:
        """Make the row before an update of which nothing came but that its key is the same."""
        key = self._attnames_of["pk"]
        return tuple(row[at] if name in key else UNKNOWN for name, at in self._at.items())


def rows_of(model: type[M], config: StreamConfig, using: str | None = None) -> FieldRows[M]:
    """Bind a model as a stream would: without what its EXCLUDE takes out."""
    return FieldRows(model, stream=config.alias, using=using or config.database, excluded=excluded_columns(config))


def concrete(model: type[M]) -> type[M]:
    """Resolve a proxy to the model of its table."""
    return model._meta.concrete_model or model  # type: ignore[return-value]  # django-stubs loses the type


def copy_value(value: Any) -> Any:
    """Copy a value, so that a JSON document changed later does not change the row."""
    return bytes(value) if isinstance(value, memoryview) else copy.deepcopy(value)


def _value(row: Row | None, at: int) -> Any:
    return None if row is None else copy_value(row[at])


def _table(model: type[Model]) -> Table:
    """Name a model's table; its schema is a guess, since only a server knows the search path."""
    return Table("public", str(model._meta.db_table).strip('"'))

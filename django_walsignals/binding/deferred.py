"""Fields that a change does not hold: deferred on the instance, and not to be read from a later state of the row.

There are two kinds. What the WAL does not hold is *unknown*: Django 6.1 and later can refuse to fetch such a field, and
before that, reading one runs a query for today's value, as for any deferred field (``change.unknown_fields`` says which
they are). What EXCLUDE names is a secret, and a query that nobody asked for must not fetch it: reading it is a
``FieldError`` whatever the Django. ``refresh_from_db(fields=[…])`` and ``Model.objects.get(pk=…)`` fetch either kind on
purpose; assigning, saving, comparing, copying and pickling work as for any instance with deferred fields.

The attribute of an excluded field is replaced, on the model that has it, by one that looks for the mark that an
instance from the WAL bears: fetch modes are not asked for a key, nor for an instance whose key was taken away. Models
without excluded fields are left as they are, and so are instances that a query made.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.core.exceptions import FieldError
from django.db.models import Model
from django.db.models.query_utils import DeferredAttribute

#: Where an instance's ``_state`` says which fields are excluded: it is copied and pickled with the instance.
_MARK: Final = "walsignals_excluded"

if TYPE_CHECKING:
    FETCH_KNOWN: Any = None
else:
    try:
        from django.core.exceptions import FieldFetchBlocked
        from django.db.models.fetch_modes import FetchMode
    except ImportError:  # Django 5.2 and 6.0 have no fetch modes
        FETCH_KNOWN = None
    else:

        class FetchKnown(FetchMode):
            """Block a deferred field, as ``FETCH_RAISE`` does, but follow relations: those are other rows."""

            __slots__ = ()

            def fetch(self, fetcher: Any, instance: Model) -> None:
                """Fetch a related instance; raise ``FieldFetchBlocked`` for a field of this row."""
                if isinstance(fetcher, DeferredAttribute):
                    raise FieldFetchBlocked(_why_not(instance, fetcher.field.attname))
                fetcher.fetch_one(instance)

            def __reduce__(self) -> str:
                return "FETCH_KNOWN"

        FETCH_KNOWN = FetchKnown()


class ExcludedFields:
    """The fields of a model, by attname, that EXCLUDE names, with those of the tables that the model inherits from.

    Making one, and so unpickling an instance that bears it in another process, is what guards the model's attributes.
    """

    __slots__ = ("attnames", "model")

    def __init__(self, model: type[Model], attnames: Collection[str]) -> None:
        self.model = model
        self.attnames = frozenset(attnames)
        for attname in self.attnames:
            _guard(model, attname)

    @classmethod
    def of_columns(cls, model: type[Model], excluded: Mapping[str, Collection[str]]) -> ExcludedFields:
        """Find the fields of the columns that are excluded, given by table (``db_table``)."""
        return cls(
            model,
            [
                field.attname
                for field in model._meta.concrete_fields
                if str(field.column) in excluded.get(field.model._meta.db_table, ())
            ],
        )

    @classmethod
    def of_label(cls, label: str, attnames: Collection[str]) -> ExcludedFields:
        """Make again what was pickled."""
        return cls(apps.get_model(label), attnames)

    def __reduce__(self) -> tuple[Any, ...]:
        return ExcludedFields.of_label, (self.model._meta.label, sorted(self.attnames))


class GuardedAttribute(DeferredAttribute):
    """The attribute of an excluded field, which an instance from the WAL does not fetch."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        """Return the field's value; raise ``FieldError`` rather than run a query for it."""
        if instance is not None and (attname := self.field.attname) not in instance.__dict__:
            excluded = getattr(instance._state, _MARK, None)  # noqa: SLF001
            if excluded is not None and attname in excluded.attnames:
                raise FieldError(_why_not(instance, attname))
        return super().__get__(instance, cls)


def block_deferred_fields(instance: Model, excluded: ExcludedFields) -> None:
    """Make reading an excluded field of this instance an error, and reading an unknown one too, where Django can."""
    if FETCH_KNOWN is not None:
        instance._state.fetch_mode = FETCH_KNOWN  # noqa: SLF001  # where Django's own from_db puts it
    if excluded.attnames:
        setattr(instance._state, _MARK, excluded)  # noqa: SLF001  # it goes where the instance goes


def _guard(model: type[Model], attname: str) -> None:
    """Replace a field's attribute by its like that is guarded; an attribute that is not Django's is let be."""
    field = model._meta.get_field(attname)
    owner: Any = field.model
    found = inspect.getattr_static(owner, attname, None)
    if isinstance(found, DeferredAttribute) and not isinstance(found, GuardedAttribute):
        kind = type(found)
        setattr(owner, attname, type(f"Guarded{kind.__name__}", (GuardedAttribute, kind), {})(field))


def _why_not(instance: Model, attname: str) -> str:
    model = type(instance).__qualname__
    excluded = getattr(instance._state, _MARK, None)  # noqa: SLF001
    if excluded is None or attname not in excluded.attnames:
        return f"{model}.{attname} is unknown: the WAL does not hold it for this change."
    return (
        f"{model}.{attname} is excluded: EXCLUDE in the setting WALSIGNALS names it, so that no change holds it. "
        f"To read today's value on purpose, use {model}.objects.get(pk=…)."
    )

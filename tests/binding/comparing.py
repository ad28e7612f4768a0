"""What two instances of a row look like, field by field, so that nothing passes for equal that is not."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Model

from tests.binding.fields import Vector


def shown(value: Any) -> Any:
    """Spell a value with its type: 1 is not True, NaN is NaN, -0.0 is not 0.0, and a time has its zone and fold."""
    match value:
        case memoryview():
            return "memoryview", bytes(value)
        case Vector():
            return "Vector", [shown(item) for item in list.__iter__(value)]
        case list() | tuple():
            return type(value), [shown(item) for item in value]
        case dict():
            return "dict", {key: shown(item) for key, item in value.items()}
        case datetime():
            return value.replace(tzinfo=None, fold=0), str(value.tzinfo), value.utcoffset(), value.fold
        case _:
            return type(value), repr(value)


def fields_of(instance: Model) -> dict[str, Any]:
    """Spell the fields that an instance holds, without fetching one that it does not."""
    deferred = instance.get_deferred_fields()
    names = [field.attname for field in instance._meta.concrete_fields if field.attname not in deferred]
    return {name: shown(getattr(instance, name)) for name in names}


def assert_as_orm(instance: Model, expected: Model) -> None:
    """Fail unless all fields of the instance are what the ORM read, with the same fields deferred."""
    assert type(instance) is type(expected)
    assert instance.get_deferred_fields() == expected.get_deferred_fields()
    seen, wanted = fields_of(instance), fields_of(expected)
    assert {name: seen[name] for name in wanted if seen[name] != wanted[name]} == {
        name: wanted[name] for name in wanted if seen[name] != wanted[name]
    }
    assert instance._state.db == expected._state.db
    assert instance._state.adding is expected._state.adding is False

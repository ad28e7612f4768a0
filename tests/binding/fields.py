"""Fields as projects write them: converted, encrypted, of a type of their own, with values that compare in odd ways."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import models


class Money:
    """An amount with its currency."""

    def __init__(self, amount: Decimal, currency: str) -> None:
        self.amount = amount
        self.currency = currency

    def __repr__(self) -> str:
        return f"Money({self.amount} {self.currency})"


class MoneyField(models.TextField):
    """Money, kept as text."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Money | None:
        return None if value is None else Money(Decimal(value.split()[0]), value.split()[1])

    def get_prep_value(self, value: Money | None) -> str | None:
        return None if value is None else f"{value.amount} {value.currency}"


class EncryptedField(models.BinaryField):
    """Text that the database sees scrambled only, as the encrypted fields of third parties do it."""

    KEY = 0x5A

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        return None if value is None else bytes(byte ^ self.KEY for byte in bytes(value)).decode()

    def get_db_prep_value(self, value: str | None, connection: Any, prepared: bool = False) -> Any:
        scrambled = None if value is None else bytes(byte ^ self.KEY for byte in value.encode())
        return super().get_db_prep_value(scrambled, connection, prepared)


class Vector(list[float]):
    """A vector that compares by element, as numpy's arrays do, and has no truth value."""

    __hash__ = None

    def __eq__(self, other: object) -> Any:
        return Vector(1.0 if value == other else 0.0 for value in self)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array with more than one element is ambiguous.")


class VectorField(models.Field):
    """A vector, kept as an array."""

    def db_type(self, connection: Any) -> str:
        return "double precision[]"

    def from_db_value(self, value: Iterable[float] | None, expression: Any, connection: Any) -> Vector | None:
        return None if value is None else Vector(value)


class CountedField(models.TextField):
    """Text that counts how often it is decoded, and fails on demand."""

    decoded = 0
    fails = False

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        type(self).decoded += 1
        if self.fails:
            raise AssertionError(f"{value!r} was decoded, though nobody needs it")
        return value


class DatabaseTypeField(models.Field):
    """A column of whatever type: a domain, an enum, one of an extension."""

    def __init__(self, database_type: str = "text", **kwargs: Any) -> None:
        self.database_type = database_type
        super().__init__(**kwargs)

    def db_type(self, connection: Any) -> str:
        return self.database_type


class ExactNumbers(json.JSONDecoder):
    """A JSON decoder that keeps numbers as they are written."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(parse_float=Decimal, **kwargs)

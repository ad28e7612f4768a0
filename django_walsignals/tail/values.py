"""Values as text that can do nothing to a terminal, and tells NULL, an empty text and an unknown value apart.

A text is in quotes, as Python writes it; what can't be printed (control characters, escapes, marks that turn the
direction of writing) is spelled out everywhere.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from django_walsignals.changes import UNKNOWN

#: How a value is shown that the WAL does not hold, and a NULL: neither is in quotes, as a text would be.
UNKNOWN_SIGN: Final = "?"
NULL: Final = "NULL"

_ELLIPSIS: Final = "…"


class Encoder(DjangoJSONEncoder):
    """Django's JSON, with bytes in base64, and as text what JSON has no type for."""

    def default(self, o: Any) -> Any:
        """Encode one value that the standard library can't."""
        if isinstance(o, bytes | memoryview | bytearray):
            return base64.b64encode(bytes(o)).decode()
        try:
            return super().default(o)
        except TypeError:
            return str(o)


def as_json(value: Any) -> str:
    """Write a value as JSON in one line; what is not a finite number becomes a text."""
    return json.dumps(_finite(value), cls=Encoder)


def _finite(value: Any) -> Any:
    """Replace what only Python's JSON knows: NaN and infinity, and keys that are no texts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def printable(text: str) -> str:
    """Spell out what a terminal would not just print."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(value: Any) -> str:
    """Write a value for people, in one line; a moment in the current time zone."""
    if value is UNKNOWN:
        return UNKNOWN_SIGN
    if value is None:
        return NULL
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, bytes | memoryview | bytearray):
        return repr(bytes(value))
    if isinstance(value, Mapping | list):
        return printable(json.dumps(_finite(value), cls=Encoder, ensure_ascii=False))
    if isinstance(value, datetime) and timezone.is_aware(value):
        value = timezone.localtime(value)
    return printable(str(value))


def cut(text: str, room: int | None, start: int = 0) -> str:
    """Cut a text to so many characters, with a mark where something is missing."""
    if start:
        text = _ELLIPSIS + text[start + 1 :]
    return text if room is None or len(text) <= room else text[: max(room - 1, 0)] + _ELLIPSIS


def shown_pair(old: Any, new: Any, room: int | None) -> tuple[str, str]:
    """Write a value before and after, so that where they begin to differ can be seen in ``room`` characters."""
    before, after = shown(old), shown(new)
    if room is None or len(before) + len(after) <= room:
        return before, after
    half = max(room // 2, 1)
    start = max(_first_difference(before, after) - half // 3, 0)
    start = start if min(len(before), len(after)) > half else 0
    length = len(before) - start
    of_old = max(half, room - (len(after) - start)) if length > half else length
    return cut(before, of_old, start), cut(after, room - min(length, of_old), start)


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))

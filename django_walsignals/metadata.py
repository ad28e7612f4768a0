"""The application's metadata in the WAL: how a message holds it, written and read back.

A message is one JSON object in ASCII, so that neither the database's encoding nor a NUL can spoil it. Whoever may write
in the database may write such a message: what is read is checked as something foreign.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

#: The prefix of messages that this library writes for itself; those that start with it and a dot are its own too.
OWN_PREFIX: Final = "walsignals"

#: The prefix of messages that say in which context the changes behind them were made.
CONTEXT_PREFIX: Final = f"{OWN_PREFIX}.context"

#: Bytes of one message: it is written with each transaction, kept in memory with each change, and in each dead letter.
MAX_BYTES: Final = 16 * 1024

#: Containers within containers: each is a level of recursion in whatever reads it.
MAX_DEPTH: Final = 32

#: No metadata, as a message says it.
EMPTY: Final = "{}"


def is_reserved(prefix: str) -> bool:
    """Say whether a message of this prefix is the library's own, and none of the application's."""
    return prefix == OWN_PREFIX or prefix.startswith(f"{OWN_PREFIX}.")


def encode_value(key: str, value: Any) -> str:
    """Write one value as JSON; raise ``TypeError``, which names the key, for one that JSON has no form for."""
    if value is None or type(value) in (str, int, bool):
        return json.dumps(value)  # what most are; no encoder is made for it
    try:
        text = json.dumps(value, cls=DjangoJSONEncoder, allow_nan=False)
        _refuse_deep(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"context({key}=…) can't be written as JSON: {exc}") from exc
    return text


def join(values: Mapping[str, str]) -> str:
    """Make a message of values that are JSON already; raise ``ValueError`` for more than a message may hold."""
    text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items()) + "}"
    if len(text) > MAX_BYTES:
        largest = max(values, key=lambda key: len(values[key]))
        raise ValueError(
            f"The context is {len(text)} bytes of JSON, and {MAX_BYTES} is all that it may have; "
            f"{largest!r} is the largest value. Store what is large in a table, and put its key here."
        )
    return text


def decode(content: bytes) -> dict[str, Any]:
    """Read a message back; raise ``ValueError`` for anything that `join` would not have written."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content)} bytes are more than {MAX_BYTES}")
    try:
        found = json.loads(content.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    _refuse_deep(found)
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str | float) -> float:
    """Read a number that jsonb can hold, too: a dead letter will have to."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return number


def _refuse_deep(value: Any, left: int = MAX_DEPTH) -> None:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if children and not left:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    for child in children:
        _refuse_deep(child, left - 1)

"""The settings, read lazily into one typed, frozen object a stream, and forgotten when a test overrides them.

Only Django's settings are read, and only here. What is wrong with them is found by `problems`, which the system checks
report; reading a stream that has a problem raises `ConfigurationError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.db.models import Q

from django_walsignals.exceptions import ConfigurationError

SETTING: Final = "WALSIGNALS"
DEFAULT_STREAM: Final = "default"
ALL_MODELS: Final = "__all__"

#: "Replication slot names … can only contain lower-case letters, numbers, and the underscore character."
_SLOT_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")

ReplicaIdentity = Literal["full", "keep"]
OnError = Literal["dead_letter", "stop"]


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream: one publication, one slot, one checkpoint, one running consumer.

    ``models`` is None (every model that a receiver names), ``"__all__"``, or labels such as ``shop.Order`` and
    ``auth.*``. ``exclude`` maps a lower-case model label to names of fields, and ``rows`` to the condition that a row must
    meet to be published.
    """

    alias: str
    database: str
    checkpoint_database: str
    slot: str
    publication: str
    models: Literal["__all__"] | tuple[str, ...] | None = None
    exclude: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rows: Mapping[str, Q] = field(default_factory=dict)
    replica_identity: ReplicaIdentity = "full"
    replication_options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 1000
    max_attempts: int = 5
    on_error: OnError = "dead_letter"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a setting: ``kind`` is a short name for the system check that reports it."""

    kind: Literal["shape", "key", "value", "slot"]
    message: str
    hint: str


_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "DATABASE": "default",
        "CHECKPOINT_DATABASE": None,
        "SLOT": None,
        "PUBLICATION": None,
        "MODELS": None,
        "EXCLUDE": None,
        "ROWS": {},
        "REPLICA_IDENTITY": "full",
        "REPLICATION_OPTIONS": {},
        "BATCH_SIZE": 1000,
        "MAX_ATTEMPTS": 5,
        "ON_ERROR": "dead_letter",
    }
)


def stream_aliases() -> tuple[str, ...]:
    """Name the configured streams; raise `ConfigurationError` for a setting in which nothing can be read."""
    _refuse_shape()
    return tuple(_raw())


@cache
def get_stream(alias: str = DEFAULT_STREAM) -> StreamConfig:
    """Read one stream's settings; raise `ConfigurationError` for an unknown alias or a setting that can't be."""
    _refuse_shape()
    raw = _raw()
    if alias not in raw:
        raise ConfigurationError(f"There is no stream {alias!r} in {SETTING}{suggest(alias, raw)}")
    if found := list(_stream_problems(alias, raw[alias])):
        raise ConfigurationError("; ".join(f"{problem.message} {problem.hint}" for problem in found))
    return _build(alias, {**_DEFAULTS, **raw[alias]})


@cache
def source_databases() -> frozenset[str]:
    """Name the databases whose WAL some stream reads; empty for a setting in which nothing can be read."""
    if _shape_problem():
        return frozenset()
    return frozenset(str(stream.get("DATABASE", _DEFAULTS["DATABASE"])) for stream in _raw().values())


def problems() -> Iterator[Problem]:
    """Say everything that is wrong with the setting as a whole."""
    if shape := _shape_problem():
        yield shape
        return
    for alias, stream in _raw().items():
        yield from _stream_problems(alias, stream)
    for key in ("SLOT", "PUBLICATION"):
        yield from _shared_names(key)


def suggest(word: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """End a sentence about an unknown word: with the known one that it resembles, if any."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1)
    return f": did you mean {by_lower[close[0]]!r}?" if close else "."


def _raw() -> Mapping[str, Mapping[str, Any]]:
    value = getattr(settings, SETTING, None)
    return value or {DEFAULT_STREAM: {}}


def _build(alias: str, values: Mapping[str, Any]) -> StreamConfig:
    models = values["MODELS"]
    return StreamConfig(
        alias=alias,
        database=values["DATABASE"],
        checkpoint_database=values["CHECKPOINT_DATABASE"] or values["DATABASE"],
        slot=values["SLOT"] or f"walsignals_{alias}",
        publication=values["PUBLICATION"] or f"walsignals_{alias}",
        models=models if models is None or models == ALL_MODELS else tuple(models),
        exclude=_exclude(values["EXCLUDE"]),
        rows=MappingProxyType({label.lower(): condition for label, condition in values["ROWS"].items()}),
        replica_identity=cast(ReplicaIdentity, values["REPLICA_IDENTITY"]),
        replication_options=MappingProxyType(dict(values["REPLICATION_OPTIONS"])),
        batch_size=values["BATCH_SIZE"],
        max_attempts=values["MAX_ATTEMPTS"],
        on_error=cast(OnError, values["ON_ERROR"]),
    )


def is_default_exclude(label: str, names: Collection[str]) -> bool:
    """Say whether that is what EXCLUDE holds where nobody sets it: a user model without a password is no mistake then."""
    return label == settings.AUTH_USER_MODEL.lower() and {*names} == {"password"}


def _exclude(value: Mapping[str, list[str]] | None) -> Mapping[str, frozenset[str]]:
    """Take the user model's password out unless the setting says otherwise."""
    chosen = {settings.AUTH_USER_MODEL: ["password"]} if value is None else value
    return MappingProxyType({label.lower(): frozenset(names) for label, names in chosen.items()})


def _shape_problem() -> Problem | None:
    value = getattr(settings, SETTING, {})
    if isinstance(value, Mapping) and all(_is_stream(*item) for item in value.items()):
        return None
    return Problem("shape", f"{SETTING} must be a dict of dicts.", 'Write WALSIGNALS = {"default": {…}}.')


def _is_stream(alias: object, stream: object) -> bool:
    return isinstance(alias, str) and isinstance(stream, Mapping)


def _refuse_shape() -> None:
    if shape := _shape_problem():
        raise ConfigurationError(f"{shape.message} {shape.hint}")


def _stream_problems(alias: str, stream: Mapping[str, Any]) -> Iterator[Problem]:
    where = f"{SETTING}[{alias!r}]"
    for key in [key for key in stream if key not in _DEFAULTS]:
        yield Problem(
            "key",
            f"{where} has an unknown key {key!r}{suggest(key, _DEFAULTS)}",
            f"Known keys: {', '.join(_DEFAULTS)}.",
        )
    chosen = stream.get("SLOT")
    slot = f"walsignals_{alias}" if chosen is None else chosen
    if not isinstance(slot, str) or not _SLOT_NAME.fullmatch(slot):
        yield Problem(
            "slot",
            f"{where}: {slot!r} can't name a replication slot.",
            "PostgreSQL allows lower-case letters, digits and the underscore there, at most 63 of them: set SLOT.",
        )
    for key, expected, is_valid in _RULES:
        if key in stream and not is_valid(stream[key]):
            yield Problem("value", f"{where}: {key} can't be {stream[key]!r}.", f"It must be {expected}.")


def _shared_names(key: str) -> Iterator[Problem]:
    """Find streams that would fight over a slot, or each take the other's tables out of a publication."""
    owners: dict[tuple[Any, ...], str] = {}
    for alias, stream in _raw().items():
        name = str(stream.get(key) or f"walsignals_{alias}")
        place = (name, *_place(key, stream))
        if place in owners:
            both = f"{SETTING}[{owners[place]!r}] and {SETTING}[{alias!r}]"
            yield Problem("slot", f"{both} have the same {key} {name!r}.", "Give each stream a name of its own.")
        owners[place] = alias


def _place(key: str, stream: Mapping[str, Any]) -> tuple[str, ...]:
    """Say whose names of this kind must differ: a server has one list of slots, a database one of publications."""
    entry = settings.DATABASES.get(str(stream.get("DATABASE", "default")), {})
    options = entry.get("OPTIONS") or {}
    server = (entry.get("HOST"), entry.get("PORT"), *(options.get(name) for name in ("service", "host", "port")))
    return tuple(str(part or "") for part in (server if key == "SLOT" else (*server, entry.get("NAME"))))


def _is_label_list(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and item.count(".") == 1 for item in value)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_database(value: object) -> bool:
    return isinstance(value, str) and value in settings.DATABASES


def _is_publication(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and 0 < len(value.encode()) <= 63


def _is_exclude(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(label, str) and isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        for label, names in value.items()
    )


def _is_rows(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(label, str) and isinstance(condition, Q) for label, condition in value.items()
    )


_RULES: Final = (
    ("DATABASE", "an alias of DATABASES", _is_database),
    ("CHECKPOINT_DATABASE", "None or an alias of DATABASES", lambda value: value is None or _is_database(value)),
    (
        "PUBLICATION",
        "a name of at most 63 bytes",
        lambda value: value is None or _is_publication(value),
    ),
    (
        "MODELS",
        f"None, {ALL_MODELS!r}, or a list of labels such as 'shop.Order' and 'auth.*'",
        lambda value: value is None or value == ALL_MODELS or _is_label_list(value),
    ),
    ("EXCLUDE", "a dict from model labels to lists of field names", _is_exclude),
    ("ROWS", "a dict from model labels to Q objects, such as {'shop.Order': Q(archived=False)}", _is_rows),
    ("REPLICA_IDENTITY", "'full' or 'keep'", lambda value: value in ("full", "keep")),
    ("REPLICATION_OPTIONS", "a dict of connection parameters", lambda value: isinstance(value, Mapping)),
    ("BATCH_SIZE", "a positive whole number", _is_positive),
    ("MAX_ATTEMPTS", "a positive whole number", _is_positive),
    ("ON_ERROR", "'dead_letter' or 'stop'", lambda value: value in ("dead_letter", "stop")),
)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in (SETTING, "AUTH_USER_MODEL", "DATABASES"):
        get_stream.cache_clear()
        source_databases.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_walsignals.conf")

"""Receivers that would never be called, or not as they were meant to be: nothing else would ever tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.apps import apps
from django.core.checks import CheckMessage
from django.db.models import Model

from django_walsignals.checks.messages import report
from django_walsignals.conf import StreamConfig, get_stream, stream_aliases
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.selection import excluded_columns, published_models
from django_walsignals.signals import (
    Connected,
    WalSignal,
    post_wal_change,
    post_wal_truncate,
    wal_gap,
    wal_message,
)

Sender = type[Model] | None


def receiver_problems() -> Iterator[CheckMessage]:
    """Look at every receiver that is connected."""
    configs = [get_stream(alias) for alias in stream_aliases()]
    for signal in (post_wal_change, post_wal_truncate, wal_message, wal_gap):
        for sender, connected in _connections(signal):
            mine = [config for config in configs if connected.filter.stream in (None, config.alias)]
            if not mine:
                yield _unknown_stream(connected)
            elif sender is not None:
                yield from _with_sender(sender, connected, mine)


def _connections(signal: WalSignal) -> Iterator[tuple[Sender, Connected]]:
    return signal.connections(apps.get_models(include_auto_created=True, include_swapped=True))


def _unknown_stream(connected: Connected) -> CheckMessage:
    return report(
        "W002",
        f"{connected.path} is connected with stream={connected.filter.stream!r}, and WALSIGNALS has no such stream: it is "
        "never called.",
        f"Write one of {', '.join(map(repr, stream_aliases()))}, or add WALSIGNALS[{connected.filter.stream!r}].",
    )


def _with_sender(sender: type[Model], connected: Connected, mine: Sequence[StreamConfig]) -> Iterator[CheckMessage]:
    if connected.proxy is not None:
        yield report(
            "W005",
            f"{connected.path} is connected to the proxy {connected.proxy._meta.label}: it hears of every row of "
            f"{sender._meta.label}, as an instance of that.",
            f"Write sender={sender._meta.object_name}, and choose among its rows with when=.",
        )
    if not any(_may_bring(config, sender) for config in mine):
        yield _never_published(sender, connected, mine)
    for config in mine:
        yield from _excluded_fields(sender, connected, config)


def _may_bring(config: StreamConfig, sender: type[Model]) -> bool:
    """Say whether a stream publishes a model; one whose MODELS can't be read is reported for that alone."""
    try:
        return sender in published_models(config)
    except ConfigurationError:
        return True


def _never_published(sender: type[Model], connected: Connected, mine: Sequence[StreamConfig]) -> CheckMessage:
    label = sender._meta.label
    if sender._meta.swapped:
        hint = f"{label} is swapped out: write sender={sender._meta.swapped!r}."
    else:
        streams = " or ".join(f"WALSIGNALS[{config.alias!r}]['MODELS']" for config in mine)
        hint = f"Add {label!r} to {streams}, and see that DATABASE_ROUTERS let it into that stream's DATABASE."
    return report(
        "W003", f"{connected.path} is connected to {label}, which no stream publishes: it is never called.", hint
    )


def _excluded_fields(sender: type[Model], connected: Connected, config: StreamConfig) -> Iterator[CheckMessage]:
    """Find fields= that can't be told to differ: the receiver then hears of every update."""
    fields = connected.filter.fields
    if fields is None:
        return
    try:
        excluded = excluded_columns(config).get(sender._meta.db_table, frozenset())
    except ConfigurationError:
        return
    meta = sender._meta
    named = [field for field in meta.local_concrete_fields if fields & {field.name, field.attname}]
    named += [field for field in meta.pk_fields if "pk" in fields]
    if hidden := sorted({field.name for field in named if field.column in excluded}):
        yield report(
            "W004",
            f"{connected.path} is connected with fields= that name {', '.join(hidden)} of {meta.label}, and EXCLUDE of "
            f"stream {config.alias!r} keeps that from it: it hears of every update.",
            f"Take {', '.join(hidden)} out of fields=, or out of WALSIGNALS[{config.alias!r}]['EXCLUDE'].",
        )

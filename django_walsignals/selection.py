"""Which models there are, and which of them a stream publishes.

The setting MODELS says so; where it is None, the receivers do: each model that one of them names as its sender.
Tables of this library are never published: a checkpoint that is itself a change would give cause for the next
checkpoint, for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from django.apps import apps
from django.db import models, router

from django_walsignals.conf import ALL_MODELS, StreamConfig, is_default_exclude, suggest
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.signals import post_wal_change, post_wal_truncate

OWN_LABEL: Final = "walsignals"

Models = tuple[type[models.Model], ...]


def concrete_models() -> Models:
    """List the models that have a table of their own, the managed ones first; many-to-many through tables count."""
    every = apps.get_models(include_auto_created=True)
    with_tables = [model for model in every if not model._meta.proxy and not model._meta.swapped]
    return tuple(sorted(with_tables, key=lambda model: not model._meta.managed))


def foreign_models() -> Models:
    """List the models that are not ours: a change of our own tables is nobody's business, whoever publishes them."""
    return tuple(model for model in concrete_models() if model._meta.app_label != OWN_LABEL)


def published_models(config: StreamConfig) -> Models:
    """List the models that a stream publishes; raise `ConfigurationError` for one that does not exist or is ours."""
    excluded_columns(config)
    row_conditions(config)
    candidates = concrete_models()
    if config.models == ALL_MODELS:
        return tuple(model for model in candidates if _may_be_chosen(model, config))
    if config.models is not None:
        chosen = {model for label in config.models for model in _of_label(label, config)}
    else:
        named = (signal.senders(candidates, config.alias) for signal in (post_wal_change, post_wal_truncate))
        chosen = {model for group in named for model in group if router.allow_migrate_model(config.database, model)}
    if ours := [model._meta.label for model in chosen if model._meta.app_label == OWN_LABEL]:
        raise ConfigurationError(f"{', '.join(ours)} can't be published: each checkpoint would be a change of its own.")
    return tuple(model for model in candidates if model in chosen)


def is_explicit(config: StreamConfig, model: type[models.Model]) -> bool:
    """Say whether a model was asked for by name, so that a missing table is a mistake and not a matter of course."""
    labels = {label.lower() for label in config.models} if isinstance(config.models, tuple) else set()
    return config.models is None or model._meta.label_lower in labels


def _may_be_chosen(model: type[models.Model], config: StreamConfig) -> bool:
    return model._meta.app_label != OWN_LABEL and router.allow_migrate_model(config.database, model)


def _of_label(label: str, config: StreamConfig) -> Iterator[type[models.Model]]:
    app_label, _, name = label.partition(".")
    try:
        app_config = apps.get_app_config(app_label)
        if name != "*":
            model = app_config.get_model(name)
            yield model._meta.concrete_model or model
            return
    except LookupError:
        known = tuple(model._meta.label for model in concrete_models())
        raise ConfigurationError(f"MODELS names {label!r}, which no app has{suggest(label, known)}") from None
    every = app_config.get_models(include_auto_created=True)
    yield from (model for model in every if not model._meta.proxy and _may_be_chosen(model, config))


def excluded_columns(config: StreamConfig) -> Mapping[str, frozenset[str]]:
    """List the columns that must never be decoded, by table (``db_table``).

    A proxy or a child of multi-table inheritance may name a field that another model's table holds: it counts there.
    Raises `ConfigurationError` for a model or a field that there is not.
    """
    found: dict[str, set[str]] = {}
    for label, names in config.exclude.items():
        for field in _excluded_fields(label, names):
            table = (field.model._meta.concrete_model or field.model)._meta.db_table
            found.setdefault(table, set()).add(str(field.column))
    return {table: frozenset(columns) for table, columns in found.items()}


def row_conditions(config: StreamConfig) -> Mapping[str, models.Q]:
    """List the conditions that rows must meet to be published, by table; raise `ConfigurationError` for no such model."""
    found: dict[str, models.Q] = {}
    for label, condition in config.rows.items():
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):
            known = tuple(model._meta.label for model in concrete_models())
            raise ConfigurationError(f"ROWS names {label!r}, which no app has{suggest(label, known)}") from None
        table = (model._meta.concrete_model or model)._meta.db_table
        found[table] = found[table] & condition if table in found else condition
    return found


def _excluded_fields(label: str, names: Collection[str]) -> Iterator[models.Field[Any, Any]]:
    is_default = is_default_exclude(label, names)
    try:
        known = apps.get_model(label)._meta.concrete_fields
    except (LookupError, ValueError):
        if is_default:
            return
        raise ConfigurationError(f"EXCLUDE names {label!r}, which no app has.") from None
    by_name = {name: field for field in known for name in (field.name, field.attname)}
    if (unknown := set(names) - by_name.keys()) and not is_default:
        raise ConfigurationError(f"EXCLUDE names {label}.{', '.join(sorted(unknown))}, which is no field of it.")
    yield from (by_name[name] for name in names if name in by_name)

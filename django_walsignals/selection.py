"""Which models there are, and which of them a stream publishes.

The setting MODELS says so; where it is None, the receivers do: each model that one of them names as its sender.
Tables of this library are never published: a checkpoint that is itself a change would give cause for the next
checkpoint, for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.apps import apps
from django.db import models, router

from django_walsignals.conf import ALL_MODELS, StreamConfig, suggest
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.signals import post_wal_change, post_wal_truncate

OWN_LABEL: Final = "walsignals"

Models = tuple[type[models.Model], ...]


def concrete_models() -> Models:
    """List the models that have a table of their own, the managed ones first; many-to-many through tables count."""
    every = apps.get_models(include_auto_created=True)
    with_tables = [model for model in every if not model._meta.proxy and not model._meta.swapped]
    return tuple(sorted(with_tables, key=lambda model: not model._meta.managed))


def published_models(config: StreamConfig) -> Models:
    """List the models that a stream publishes; raise `ConfigurationError` for one that does not exist or is ours."""
    _refuse_unknown_excluded(config)
    candidates = concrete_models()
    if config.models == ALL_MODELS:
        return tuple(model for model in candidates if _may_be_chosen(model, config))
    if config.models is not None:
        chosen = {model for label in config.models for model in _of_label(label, config)}
    else:
        named = (signal.senders(candidates, config.alias) for signal in (post_wal_change, post_wal_truncate))
        chosen = {model for models_of_signal in named for model in models_of_signal}
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


def _refuse_unknown_excluded(config: StreamConfig) -> None:
    for label, names in config.exclude.items():
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):
            if apps.is_installed("django.contrib.auth") or not label.startswith("auth."):
                raise ConfigurationError(f"EXCLUDE names {label!r}, which no app has.") from None
            continue
        known = {name for field in model._meta.concrete_fields for name in (field.name, field.attname)}
        if unknown := names - known:
            raise ConfigurationError(f"EXCLUDE names {label}.{', '.join(sorted(unknown))}, which is no field of it.")

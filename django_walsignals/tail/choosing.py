"""Which models are looked at, and through which publication.

Nothing of the application may break because somebody looks: a table whose UPDATE and DELETE would fail once it is
published is left out, or refused where it was asked for by name. A publication that is there and brings all of these
tables whole is used as it is; else one is made for the while.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from django.apps import apps
from django.db import connections, models

from django_walsignals.conf import ALL_MODELS, DEFAULT_STREAM, StreamConfig, get_stream, stream_aliases, suggest
from django_walsignals.exceptions import ConfigurationError, WalSignalsError
from django_walsignals.provisioning.ddl import Report
from django_walsignals.provisioning.plan import make_plan
from django_walsignals.provisioning.setup import StreamSetUp
from django_walsignals.provisioning.tables import read_tables
from django_walsignals.provisioning.temporary import temporary_name
from django_walsignals.replication.catalogue import Server
from django_walsignals.selection import Models, concrete_models, foreign_models, published_models


class UsageError(WalSignalsError):
    """What was asked for is not there; the message names what is."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Watched:
    """The models to look at, and a stream's settings that bring them; ``is_temporary``: its publication is to be made."""

    config: StreamConfig
    models: Models
    is_temporary: bool


#: So many changes are shown before a Ctrl-C is looked for: a tenth of a second's work.
_BATCH_SIZE: Final = 100


def base_config(stream: str | None, database: str | None) -> StreamConfig:
    """Take the settings of a stream, of the first stream of a database, or of the default stream.

    Where no stream reads the database, the default one's settings are bent to it. What is temporary keeps no checkpoint,
    and never tries again.
    """
    config = get_stream(stream or _stream_of(database))
    if database is not None and config.database != database:
        if database not in connections:
            raise UsageError(f"There is no database {database!r} in DATABASES{suggest(database, tuple(connections))}")
        config = replace(config, database=database, publication=f"walsignals_{database}", replication_options={})
    return replace(
        config,
        checkpoint_database=config.database,
        rows={},
        batch_size=min(config.batch_size, _BATCH_SIZE),
        max_attempts=1,
        on_error="stop",
    )


def _stream_of(database: str | None) -> str:
    aliases = stream_aliases()
    default = DEFAULT_STREAM if DEFAULT_STREAM in aliases else aliases[0]
    if database is None or get_stream(default).database == database:
        return default
    return next((alias for alias in aliases if get_stream(alias).database == database), default)


def choose(config: StreamConfig, labels: Sequence[str], server: Server, report: Report) -> Watched:
    """Find the models meant: those named, else those the stream publishes, else every one.

    ``report`` is called with a line for each that is left out. Raises `UsageError` for a label that no model has, and
    `ConfigurationError` for a model that can't be published.
    """
    named = [spelled for label in labels for spelled in _spellings(label)]
    if named:
        config = replace(config, models=tuple(named))
    wanted = published_models(config) or published_models(replace(config, models=ALL_MODELS))
    explicit = {label.lower() for label in named if not label.endswith(".*")}
    safe = tuple(_safe(config, wanted, explicit, server, report))
    if not safe:
        raise ConfigurationError(
            f"There is no table to look at in database {config.database!r}. Run: manage.py migrate"
        )
    config = replace(config, models=tuple(model._meta.label for model in safe), replica_identity="keep")
    if _is_covered(config, server, report):
        return Watched(config, safe, is_temporary=False)
    return Watched(replace(config, publication=temporary_name()), safe, is_temporary=True)


def _spellings(label: str) -> Iterator[str]:
    """Spell a label, given in any case, as its app and model do."""
    apps_by_name = {config.label.lower(): config for config in apps.get_app_configs()}
    app_label, _, name = label.partition(".")
    app = apps_by_name.get(app_label.lower())
    known = tuple(model._meta.label for model in foreign_models())
    by_lower = {model._meta.label_lower: model._meta.label for model in concrete_models()}
    proxies = {model._meta.label_lower: model._meta.label for model in apps.get_models() if model._meta.proxy}
    if app is not None and name == "*":
        yield f"{app.label}.*"
    elif found := by_lower.get(label.lower()) or proxies.get(label.lower()):
        yield found
    else:
        groups = tuple(f"{name.partition('.')[0]}.*" for name in known)
        same_name = tuple(name for name in known if name.lower().endswith(f".{label.lower()}"))
        meant = f": did you mean {same_name[0]!r}?" if same_name else suggest(label, (*known, *groups))
        raise UsageError(f"No app has a model {label!r}{meant}")


def _safe(
    config: StreamConfig, wanted: Models, explicit: Collection[str], server: Server, report: Report
) -> Iterator[type[models.Model]]:
    """Pick the models that can be published without harm; one that was named is left to be refused later."""
    config = replace(config, replica_identity="keep", models=ALL_MODELS)
    facts = read_tables(connections[config.database], wanted, config.publication)
    usable = {model: list(group) for model, group in groupby(facts, key=lambda fact: fact.model)}
    for model in wanted:
        if model._meta.label_lower in explicit:
            yield model
        elif model in usable:
            try:
                plan = make_plan(config, usable[model], None, server_version=server.version)
            except ConfigurationError as exc:
                report(f"left out: {exc}")
            else:
                yield from [model] if plan.tables else []


def _is_covered(config: StreamConfig, server: Server, report: Report) -> bool:
    """Say whether the stream's own publication brings all there is to see, with the excluded columns or without."""
    either = (config, replace(config, exclude={}))
    return any(not StreamSetUp(each, server, report).plan().steps for each in either)

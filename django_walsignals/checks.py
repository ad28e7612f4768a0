"""System checks: a mistake in the settings is an error with an id, and a hint that names what mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning
from django.db import connections

from django_walsignals.conf import get_stream, problems, stream_aliases
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.selection import published_models

_ID: Final = {
    "shape": "walsignals.E001",
    "key": "walsignals.E002",
    "value": "walsignals.E003",
    "slot": "walsignals.E004",
}


@register("walsignals")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report every problem of the setting; look at the streams themselves only where it has none."""
    found: list[CheckMessage] = [
        Error(problem.message, hint=problem.hint, id=_ID[problem.kind]) for problem in problems()
    ]
    return found or [message for alias in stream_aliases() for message in _check_stream(alias)]


def _check_stream(alias: str) -> Iterator[CheckMessage]:
    config = get_stream(alias)
    connection = connections[config.database]
    if connection.vendor != "postgresql":
        yield CheckWarning(  # a build or a test run on another database is none of ours
            f"WALSIGNALS[{alias!r}] reads the database {config.database!r}, whose engine is {connection.vendor}.",
            hint="Only PostgreSQL has a WAL to read: set DATABASE to an alias with django.db.backends.postgresql.",
            id="walsignals.W001",
        )
    try:
        published_models(config)
    except ConfigurationError as exc:
        yield Error(str(exc), hint="Mend MODELS or EXCLUDE in the setting WALSIGNALS.", id="walsignals.E006")

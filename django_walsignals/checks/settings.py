"""What is wrong with the settings themselves; no database is asked."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Final

from django.apps import apps
from django.core.checks import CheckMessage
from django.db import connections

from django_walsignals.checks.messages import report
from django_walsignals.conf import StreamConfig, get_stream, problems, stream_aliases
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.selection import published_models, row_conditions

_NUMBER: Final = {"shape": "E001", "key": "E002", "value": "E003", "slot": "E004"}

#: The first whose connections can be given START_REPLICATION.
_PSYCOPG: Final = (3, 3)


def setting_problems() -> Iterator[CheckMessage]:
    """Report every problem of the setting as a whole."""
    for problem in problems():
        yield report(_NUMBER[problem.kind], problem.message, problem.hint)


def stream_problems() -> Iterator[CheckMessage]:
    """Look at the streams themselves; their settings are known to be readable."""
    configs = [get_stream(alias) for alias in stream_aliases()]
    has_driver = _psycopg_version() >= _PSYCOPG
    if not has_driver and any(_reads_postgresql(config) for config in configs):
        yield report(
            "E005",
            "Changes are read through psycopg 3.3 or later, which is not installed.",
            'Run: python -m pip install "psycopg[binary]>=3.3" (Django uses it in place of psycopg2 where it finds both).',
        )
    for config in configs:
        yield from _check_stream(config)
        if has_driver:
            yield from _replication_options(config)


def _psycopg_version() -> tuple[int, ...]:
    try:
        version = metadata.version("psycopg")
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in version.split(".")[:2])


def _reads_postgresql(config: StreamConfig) -> bool:
    return connections[config.database].vendor == "postgresql"


def _check_stream(config: StreamConfig) -> Iterator[CheckMessage]:
    if not _reads_postgresql(config):  # a build or a test run on another database is none of ours
        yield report(
            "W001",
            f"WALSIGNALS[{config.alias!r}] reads the database {config.database!r}, whose engine is "
            f"{connections[config.database].vendor}.",
            "Only PostgreSQL has a WAL to read: set DATABASE to an alias with django.db.backends.postgresql.",
        )
    try:
        published_models(config)
        row_conditions(config)
    except ConfigurationError as exc:
        yield report("E006", str(exc), "Mend MODELS, EXCLUDE or ROWS in the setting WALSIGNALS.")
    else:
        yield from _named_models(config)


def _named_models(config: StreamConfig) -> Iterator[CheckMessage]:
    """Find labels in MODELS that are good, and yet mean something else than they seem to."""
    for label in config.models if isinstance(config.models, tuple) else ():
        if label.endswith(".*"):
            continue
        meta = apps.get_model(label)._meta
        where = f"WALSIGNALS[{config.alias!r}]: MODELS names"
        if meta.swapped:
            yield report(
                "W006",
                f"{where} {meta.label}, which is swapped out for {meta.swapped} and has no table.",
                f"Write {meta.swapped!r} in place of {label!r}.",
            )
        elif meta.proxy and meta.concrete_model:
            concrete = meta.concrete_model._meta.label
            yield report(
                "W005",
                f"{where} the proxy {meta.label}: what is published is the whole table of {concrete}.",
                f"Write {concrete!r} in place of {label!r}.",
            )


def _replication_options(config: StreamConfig) -> Iterator[CheckMessage]:
    from django_walsignals.replication.parameters import libpq_keywords  # needs psycopg

    if unknown := sorted(str(key) for key in config.replication_options.keys() - libpq_keywords()):
        yield report(
            "E007",
            f"WALSIGNALS[{config.alias!r}]: REPLICATION_OPTIONS has {', '.join(map(repr, unknown))}, which libpq does not "
            "know.",
            "Write parameters of libpq, such as host, port, user, password, sslmode (in DATABASES they are HOST, PORT, …): "
            "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS",
        )

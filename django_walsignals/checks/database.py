"""What is wrong in the database of a stream that was set up there: a slot or a checkpoint of it, or a publication.

One that never was is let be: Django's test runner makes databases and runs these checks on each, and ``migrate`` runs
them on one where nothing of ours is yet. `before_start` is for the consumer, whose first start is just that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from django.core.checks import CheckMessage
from django.db import Error as DatabaseFailure
from django.db import connections

from django_walsignals.checks.facts import read_facts
from django_walsignals.checks.messages import number_of, report
from django_walsignals.checks.server import is_usable, server_problems
from django_walsignals.checks.setup import publication_problems, set_up_problems
from django_walsignals.checks.slot import slot_problems
from django_walsignals.checks.tables import (
    OWN_TABLES,
    checkpoint_rights,
    dead_letter_rights,
    read_checkpoint,
    read_own_table,
)
from django_walsignals.conf import StreamConfig, get_stream, stream_aliases
from django_walsignals.delivery.gaps import published_tables
from django_walsignals.models import Checkpoint, DeadLetter

#: What a start has no need to say: it makes it, or is about to find it out in words of its own, with its exit code.
_LEFT_TO_THE_START: Final = frozenset({"W010", "W014", "W018", "W021", "W022", "W025", "W027", "W028", "I001"})


def database_problems(aliases: Collection[str]) -> Iterator[CheckMessage]:
    """Look at every stream whose database is among these; a database that can't be asked is said so once."""
    silent: set[str] = set()
    for config in map(get_stream, stream_aliases()):
        if config.database not in aliases or config.database in silent or not _is_postgresql(config):
            continue
        try:
            yield from list(_problems(config))
        except DatabaseFailure as exc:
            silent.add(config.database)
            yield _unreachable(config, exc)


def before_start(config: StreamConfig) -> list[CheckMessage]:
    """Look at what a consumer would meet later only: its rights on our tables, and a slot or publication in danger."""
    table = read_own_table(config, Checkpoint)
    if table is None:
        return []
    facts = read_facts(config, OWN_TABLES)
    found = [
        *checkpoint_rights(config, table),
        *dead_letter_rights(config, read_own_table(config, DeadLetter)),
        *server_problems(config, facts),
        *(slot_problems(config, facts, has_checkpoint=True) if facts.slot else ()),
        *publication_problems(config, facts),
    ]
    return [message for message in found if number_of(message) not in _LEFT_TO_THE_START]


def _problems(config: StreamConfig) -> Iterator[CheckMessage]:
    table = read_own_table(config, Checkpoint)
    if table is None:
        return
    facts = read_facts(config, OWN_TABLES)
    checkpoint = None if "SELECT" in table.lacking else read_checkpoint(config)
    if facts.has_slot or checkpoint is not None:
        yield from server_problems(config, facts)
        yield from slot_problems(config, facts, has_checkpoint=checkpoint is not None)
        yield from checkpoint_rights(config, table)
        yield from dead_letter_rights(config, read_own_table(config, DeadLetter))
    elif not facts.has_publication:
        return
    if is_usable(facts):
        yield from publication_problems(config, facts)
        yield from set_up_problems(config, facts, () if checkpoint is None else published_tables(checkpoint))


def _is_postgresql(config: StreamConfig) -> bool:
    return all(connections[alias].vendor == "postgresql" for alias in (config.database, config.checkpoint_database))


def _unreachable(config: StreamConfig, exc: DatabaseFailure) -> CheckMessage:
    return report(
        "W030",
        f"The database of stream {config.alias!r} can't be asked: {' '.join(str(exc).split())}",
        f"See that it runs and that DATABASES is right: manage.py dbshell --database {config.database}",
    )

"""Whether publication and replica identities are as the settings want them, and who could mend that."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from django.core.checks import CheckMessage
from django.db import connections

from django_walsignals.checks.facts import Facts
from django_walsignals.checks.messages import report
from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.setup import StreamSetUp
from django_walsignals.replication.catalogue import Server

logger = logging.getLogger(__name__)

_NOT_OURS: Final = """
    SELECT n.nspname || '.' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = ANY (%s) AND NOT pg_has_role(c.relowner, 'USAGE')
    ORDER BY 1
"""


def publication_problems(config: StreamConfig, facts: Facts) -> Iterator[CheckMessage]:
    """Find a publication that holds what it must not."""
    if facts.all_tables or facts.own_published:
        what = "is FOR ALL TABLES" if facts.all_tables else "holds tables of django_walsignals"
        yield report(
            "W017",
            f"Publication {config.publication!r} of stream {config.alias!r} {what}: each checkpoint is then a change of "
            "its own, and a table without a primary key refuses UPDATE and DELETE.",
            f'Once, with the consumer stopped: DROP PUBLICATION "{config.publication}"; then manage.py walconsume '
            f"{config.alias} --accept-gap, which makes one of the tables in MODELS; or set PUBLICATION to another name.",
        )


def set_up_problems(config: StreamConfig, facts: Facts, known_tables: Collection[str]) -> Iterator[CheckMessage]:
    """Compare what is with what should be: what ``walsetup`` would do, were it run now."""
    try:
        server = Server(facts.version, facts.wal_level, facts.in_recovery)
        plan = StreamSetUp(config, server, logger.debug).plan(known_tables)
    except ConfigurationError as exc:
        yield report(
            "W029", f"Stream {config.alias!r}: {exc}", f"To see it whole: manage.py walsetup {config.alias} --check"
        )
        return
    connection = connections[config.database]
    statements = [step.statement.as_string(connection.connection) for step in plan.steps]
    identities = [statement for statement in statements if _is_of_table(statement)]
    others = [statement for statement in statements if not _is_of_table(statement)]
    hint = f"Run: manage.py walsetup {config.alias}"
    if others:
        what = f"Publication {config.publication!r} of stream {config.alias!r}"
        text = f"{what} is not as its settings want it: {_count(others)}."
        yield report("W012", text, hint)
    if identities:
        text = f"Stream {config.alias!r} wants old values of tables that do not log them: {_count(identities)}."
        yield report("W013", text, f"{hint} (or set REPLICA_IDENTITY to 'keep')")
    yield from _rights(config, facts, [str(table) for table in plan.tables], identities, others)


def _is_of_table(statement: str) -> bool:
    return statement.startswith("ALTER TABLE")


def _count(statements: Sequence[str]) -> str:
    """Show what is to be run: the first statement, and how many there are."""
    more = f"; and {len(statements) - 1} more" if len(statements) > 1 else ""
    return f"{statements[0]}{more}"


def _rights(
    config: StreamConfig, facts: Facts, tables: Sequence[str], identities: Sequence[str], others: Sequence[str]
) -> Iterator[CheckMessage]:
    """Say what the role lacks for what is to be done; nothing where nothing is."""
    lacking = []
    if others and not facts.has_publication and not facts.may_create:
        lacking.append(f"has no CREATE on database {facts.database}")
    if others and not facts.may_alter:
        lacking.append(f"does not own publication {config.publication}")
    if (identities or others) and (foreign := _not_owned(config, tables)):
        lacking.append(f"does not own {', '.join(foreign)}")
    if lacking:
        yield report(
            "W024",
            f"Role {facts.role} can't set up stream {config.alias!r}: it {', and '.join(lacking)}.",
            f"Have somebody who may run what this prints: manage.py walsetup {config.alias} --sql",
        )


def _not_owned(config: StreamConfig, tables: Sequence[str]) -> list[str]:
    with connections[config.database].cursor() as cursor:
        cursor.execute(_NOT_OURS, [list(tables)])
        return [name for (name,) in cursor.fetchall()]

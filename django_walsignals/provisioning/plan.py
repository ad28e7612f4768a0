"""The statements that lead from what is to what should be, in the order that PostgreSQL needs.

The publication's options first (a table with FULL and a generated column is safe only with them), then replica
identities (a published table without one refuses UPDATE), then the publication's tables, and the slot last: a change
that lies between a slot's start and its publication's creation could never be decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from psycopg.sql import Composed

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.tables import TableFacts
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Publication
from django_walsignals.selection import is_explicit


@dataclass(frozen=True, slots=True)
class Step:
    """A statement, and the line that says it was done."""

    statement: Composed
    done: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, what could not be done and why, and the tables that the stream will bring."""

    steps: Sequence[Step]
    remarks: Sequence[str]
    tables: Sequence[commands.TableRef]


def make_plan(
    config: StreamConfig,
    facts: Sequence[TableFacts],
    publication: Publication | None,
    known_tables: Collection[str] = (),
    *,
    server_version: int,
) -> Plan:
    """Compare what should be with what is; raise `ConfigurationError` for what would break the application's writes.

    A table that is in the publication and not wanted is taken out if it is among those known, as ``schema.name``: one
    that somebody else put there is let be.
    """
    usable = [fact for fact in facts if _is_usable(config, fact)]
    to_full = [fact for fact in usable if _should_be_full(config, fact)]
    # A partition is as its root is: each is written to under both names.
    blocked = {fact.model: fact for fact in to_full if fact.full_breaks_writes}
    for fact in usable:
        _refuse_broken_writes(fact, will_be_full=fact in to_full and fact.model not in blocked)
    with_generated = server_version >= 180000
    tables = [fact.table for fact in usable if fact.is_root]
    steps = [
        *_option_steps(config, publication, with_generated),
        *(
            Step(commands.set_replica_identity_full(fact.table), f"set REPLICA IDENTITY FULL on {fact.table}")
            for fact in to_full
            if fact.model not in blocked
        ),
        *_table_steps(config, publication, tables, known_tables, with_generated),
    ]
    remarks = [
        f"{fact.table} keeps its replica identity, so that old values are known of its key only: FULL would make the "
        f"application's UPDATE and DELETE fail, since {fact.full_breaks_writes}"
        for fact in blocked.values()
    ]
    return Plan(steps, remarks, tables)


def _is_usable(config: StreamConfig, fact: TableFacts) -> bool:
    if not fact.not_publishable:
        return True
    if fact.is_root and is_explicit(config, fact.model):
        raise ConfigurationError(
            f"{fact.model._meta.label} can't be published, because of {fact.table}: {fact.not_publishable}."
        )
    return False


def _should_be_full(config: StreamConfig, fact: TableFacts) -> bool:
    return config.replica_identity == "full" and fact.replica_identity != "f"


def _refuse_broken_writes(fact: TableFacts, *, will_be_full: bool) -> None:
    reason = advice = ""
    if fact.replica_identity == "f" and fact.has_virtual_generated:
        reason = fact.full_breaks_writes
        advice = f"ALTER TABLE {fact.table} REPLICA IDENTITY DEFAULT"
    elif not fact.has_identity and not will_be_full:
        reason = "it has no replica identity"
        advice = f"give it a primary key, or ALTER TABLE {fact.table} REPLICA IDENTITY FULL"
    if reason:
        raise ConfigurationError(
            f"Publishing {fact.table} ({fact.model._meta.label}) would make the application's UPDATE and DELETE fail: "
            f"{reason}. Take it out of MODELS, or: {advice}."
        )


def _option_steps(config: StreamConfig, publication: Publication | None, with_generated: bool) -> Iterator[Step]:
    if publication is None:
        return
    is_good = publication.via_root and publication.has_every_operation
    if not is_good or (with_generated and not publication.generated_columns):
        yield Step(
            commands.set_publication_options(config.publication, generated_columns=with_generated),
            f"set the options of publication {config.publication}",
        )


def _table_steps(
    config: StreamConfig,
    publication: Publication | None,
    wanted: Sequence[commands.TableRef],
    known_tables: Collection[str],
    with_generated: bool,
) -> Iterator[Step]:
    name = config.publication
    if publication is None:
        yield Step(
            commands.create_publication(name, wanted, generated_columns=with_generated),
            f"created publication {name} of {_listed(wanted)}",
        )
        return
    if publication.all_tables:
        return
    present = {table.table for table in publication.tables.values()}
    if added := [table for table in wanted if table not in present]:
        yield Step(commands.add_tables(name, added), f"added {_listed(added)} to publication {name}")
    if dropped := sorted(table for table in present - {*wanted} if str(table) in known_tables):
        yield Step(commands.drop_tables(name, dropped), f"took {_listed(dropped)} out of publication {name}")


def _listed(tables: Sequence[commands.TableRef]) -> str:
    return ", ".join(map(str, tables))

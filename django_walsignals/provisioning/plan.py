"""The statements that lead from what is to what should be, in the order that PostgreSQL needs.

The publication's options first (a table with FULL and a generated column is safe only with them). Then lists of columns
go where a table is about to be FULL, then replica identities change (a published table without one refuses UPDATE), then
the publication's tables, whose conditions may need an identity that is FULL. The slot comes last: a change that lies
between a slot's start and its publication's creation could never be decoded. So at no point in between would the
application's own UPDATE or DELETE fail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import models
from psycopg.sql import SQL, Composed

from django_walsignals.conf import StreamConfig
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.members import Choice, wanted_member
from django_walsignals.provisioning.publication import PublicationOptions, PublicationTables
from django_walsignals.provisioning.steps import Finding, Step
from django_walsignals.provisioning.tables import TableFacts
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Publication, PublishedTable
from django_walsignals.replication.commands import Member, TableRef
from django_walsignals.selection import is_explicit

#: ``pg_class.relreplident`` in words.
_IDENTITIES: Final = {"d": "default", "f": "full", "i": "an index", "n": "nothing"}

_NO_CHOICE: Final = Choice()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, what could not be done and why, and how it stands with each thing.

    ``remarks`` matter at each start, ``notes`` to whoever sets up. ``conditions`` are the models whose condition is new
    to the server, and the statement that would publish each.
    """

    steps: Sequence[Step]
    remarks: Sequence[str]
    notes: Sequence[str]
    tables: Sequence[TableRef]
    findings: Sequence[Finding]
    conditions: Sequence[tuple[type[models.Model], Composed]]

    def script(self) -> Composed:
        """All steps, for a person to run."""
        return SQL("; ").join(step.script() for step in self.steps)


def make_plan(
    config: StreamConfig,
    facts: Sequence[TableFacts],
    publication: Publication | None,
    known_tables: Collection[str] = (),
    *,
    server_version: int,
    choice: Choice = _NO_CHOICE,
) -> Plan:
    """Compare what should be with what is; raise `ConfigurationError` for what would break the application's writes.

    A table that is in the publication and not wanted is taken out if it is among those known, as ``schema.name``: one
    that somebody else put there is let be.
    """
    usable = [fact for fact in facts if _is_usable(config, fact)]
    to_full, blocked = _to_full(config, usable)
    for fact in usable:
        _refuse_broken_writes(fact, will_be_full=fact in to_full)
    full = {fact.table for fact in usable if fact.replica_identity == "f" or fact in to_full}
    roots = {fact.table: fact for fact in usable if fact.is_root}
    wanted = [wanted_member(root, _parts(root, usable), full, choice, publication) for root in roots.values()]
    members = [found.member for found in wanted]
    options = PublicationOptions(config.publication, publication, with_generated=server_version >= 180000)
    tables = PublicationTables(config.publication, members, _present(publication), known_tables, choice)
    return Plan(
        [*_steps(options, tables, [table for table, root in roots.items() if _turns(root, to_full)], to_full)],
        [_blocked_remark(fact) for fact in blocked],
        [found.note for found in wanted if found.note],
        list(roots),
        [
            options.finding(),
            *(_identity_finding(fact, will_be_full=fact in to_full) for fact in usable),
            *(() if publication is not None and publication.all_tables else tables.findings()),
        ],
        [
            (roots[member.table].model, _publishing(options, tables, member))
            for member in members
            if member.where and tables.differs(member)
        ],
    )


def _steps(
    options: PublicationOptions,
    tables: PublicationTables,
    turning: Collection[TableRef],
    to_full: Sequence[TableFacts],
) -> Iterator[Step]:
    """Order the steps; ``turning`` are the published tables that become FULL, or whose partitions do."""
    yield from options.steps()
    yield from tables.steps_to_widen(turning)
    yield from map(_full_step, to_full)
    if options.publication is None:
        yield options.creation(tables.members)
    elif not options.publication.all_tables:
        yield from tables.widened(turning).steps()


def _publishing(options: PublicationOptions, tables: PublicationTables, member: Member) -> Composed:
    """Write what would publish one table as it should be, where nothing else were to be done."""
    if options.publication is None:
        return options.creation([member]).statement
    return SQL("; ").join(step.statement for step in tables.of(member).steps())


def _to_full(config: StreamConfig, usable: Sequence[TableFacts]) -> tuple[list[TableFacts], list[TableFacts]]:
    """List the tables to be made FULL, and for each model that can't be the table that is in the way."""
    wanted = [fact for fact in usable if config.replica_identity == "full" and fact.replica_identity != "f"]
    # A partition is as its root is: each is written to under both names.
    blocked = {fact.model: fact for fact in wanted if fact.full_breaks_writes}
    return [fact for fact in wanted if fact.model not in blocked], list(blocked.values())


def _parts(root: TableFacts, usable: Sequence[TableFacts]) -> list[TableFacts]:
    return [fact for fact in usable if fact.model is root.model]


def _turns(root: TableFacts, to_full: Sequence[TableFacts]) -> bool:
    return any(fact.model is root.model for fact in to_full)


def _present(publication: Publication | None) -> dict[TableRef, PublishedTable]:
    return {} if publication is None else {table.table: table for table in publication.tables.values()}


def _blocked_remark(fact: TableFacts) -> str:
    return (
        f"{fact.table} keeps its replica identity, so that old values are known of its key only: FULL would make the "
        f"application's UPDATE and DELETE fail, since {fact.full_breaks_writes}"
    )


def _is_usable(config: StreamConfig, fact: TableFacts) -> bool:
    if not fact.not_publishable:
        return True
    if fact.is_root and is_explicit(config, fact.model):
        raise ConfigurationError(
            f"{fact.model._meta.label} can't be published, because of {fact.table}: {fact.not_publishable}."
        )
    return False


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


def _full_step(fact: TableFacts) -> Step:
    return Step(
        [commands.set_replica_identity_full(fact.table)],
        f"set REPLICA IDENTITY FULL on {fact.table}",
        f"the whole old row of {fact.table}, for updates and deletes",
    )


def _identity_finding(fact: TableFacts, *, will_be_full: bool) -> Finding:
    found = _IDENTITIES[fact.replica_identity]
    return Finding(f"replica identity of {fact.table}", "full" if will_be_full else found, found)

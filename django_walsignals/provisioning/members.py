"""As what a table is published: which of its columns, which of its rows, and why not fewer.

PostgreSQL takes a list of columns, or a condition on rows, that does not go with the table's replica identity, and then
refuses the application's UPDATE and DELETE. So a list is made only where the identity is an index whose columns are all
kept, and a condition is taken only where the identity holds what it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.filters import RowFilter
from django_walsignals.provisioning.tables import TableFacts
from django_walsignals.replication.catalogue import Publication, PublishedTable
from django_walsignals.replication.commands import Member, TableRef, set_replica_identity_full


@dataclass(frozen=True, slots=True)
class Choice:
    """What the settings say of columns and rows: excluded columns and conditions by ``db_table``."""

    excluded: Mapping[str, Collection[str]] = field(default_factory=dict)
    filters: Mapping[str, RowFilter] = field(default_factory=dict)
    #: The tables whose published condition is the one that the settings ask for.
    filters_in_place: Collection[TableRef] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A table as it should be published, and what is to be said of it."""

    member: Member
    note: str = ""


def wanted_member(
    root: TableFacts,
    parts: Sequence[TableFacts],
    full: Collection[TableRef],
    choice: Choice,
    publication: Publication | None,
) -> Wanted:
    """Say as what a table should be published; raise `ConfigurationError` where its condition would break writes.

    ``parts`` are the table and its partitions, ``full`` the tables whose identity is FULL, or is about to be.
    """
    condition = choice.filters.get(root.model._meta.db_table)
    where = "" if condition is None else condition.sql
    if condition is not None:
        _refuse_publication_without_conditions(root, publication)
        for part in parts:
            _refuse_broken_writes(part, condition, is_full=part.table in full)
    hidden = [column for column in root.columns if column in choice.excluded.get(root.model._meta.db_table, ())]
    if not hidden:
        return Wanted(Member(root.table, None, where))
    if reason := _against_list(parts, hidden, full, publication):
        return Wanted(Member(root.table, None, where), _note(root, hidden, reason))
    kept = tuple(column for column in root.columns if column not in hidden)
    return Wanted(Member(root.table, kept, where))


def is_member(wanted: Member, published: PublishedTable, choice: Choice) -> bool:
    """Say whether a table is published as it should be."""
    return has_columns(wanted, published) and has_rows(wanted, published, choice)


def has_columns(wanted: Member, published: PublishedTable) -> bool:
    """Say whether the columns that should be published are."""
    if wanted.columns is None or published.columns is None:
        return wanted.columns is published.columns
    return {*wanted.columns} == {*published.columns}


def has_rows(wanted: Member, published: PublishedTable, choice: Choice) -> bool:
    """Say whether the rows that should be published are."""
    return published.table in choice.filters_in_place or wanted.where == published.row_filter


def describe(columns: Sequence[str] | None, where: str) -> str:
    """Put into words what is published of a table."""
    return ("all columns" if columns is None else f"columns {', '.join(columns)}") + (
        f"; rows where {where}" if where else ""
    )


def _refuse_publication_without_conditions(root: TableFacts, publication: Publication | None) -> None:
    if publication is not None and (publication.all_tables or publication.has_schemas):
        whole = "ALL TABLES" if publication.all_tables else "TABLES IN SCHEMA"
        raise ConfigurationError(
            f"ROWS of {root.model._meta.label} can't be followed: the publication is FOR {whole}, which knows no "
            "conditions. Drop it, for one of the models' tables to be made in its place, or set PUBLICATION to another name."
        )


def _refuse_broken_writes(part: TableFacts, condition: RowFilter, *, is_full: bool) -> None:
    if not is_full and (outside := sorted(condition.columns - {*part.identity_columns})):
        raise ConfigurationError(
            f"ROWS of {part.model._meta.label}: the application's UPDATE and DELETE would fail, since {', '.join(outside)} "
            f"is no part of the replica identity of {part.table}. Either REPLICA_IDENTITY = 'full', or run: "
            f"{set_replica_identity_full(part.table).as_string(None)};"
        )


def _against_list(
    parts: Sequence[TableFacts], hidden: Sequence[str], full: Collection[TableRef], publication: Publication | None
) -> str:
    """Say why a list of columns can't be; empty if it can."""
    if publication is not None and (publication.all_tables or publication.has_schemas):
        return "a publication of all tables, or of a schema, takes no list of columns"
    if any(part.table in full for part in parts):
        return (
            "REPLICA IDENTITY FULL goes with no list of columns; to keep them on the server set REPLICA_IDENTITY to "
            "'keep' and the table to REPLICA IDENTITY DEFAULT (old values are then known of the key only)"
        )
    if any(not {*part.identity_columns}.isdisjoint(hidden) for part in parts):
        return "they are part of its replica identity"
    return ""


def _note(root: TableFacts, hidden: Sequence[str], reason: str) -> str:
    return (
        f"{root.table}: {', '.join(hidden)} (EXCLUDE) leaves the server in the stream, and is dropped by the consumer, "
        f"not decoded: {reason}"
    )

"""A stream's publication: its options and its tables, as they should be and as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from django_walsignals.provisioning.members import Choice, describe, has_columns, has_rows, is_member
from django_walsignals.provisioning.steps import Finding, Step
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Publication, PublishedTable
from django_walsignals.replication.commands import Member, TableRef


@dataclass(frozen=True, slots=True)
class PublicationOptions:
    """A publication's options, which hold for all of its tables."""

    name: str
    publication: Publication | None
    with_generated: bool

    def steps(self) -> Iterator[Step]:
        """Set the options of a publication that has others."""
        if self.publication is not None and not self.finding().is_good:
            yield Step(
                [commands.set_publication_options(self.name, generated_columns=self.with_generated)],
                f"set the options of publication {self.name}",
                "every kind of change, under the name of the partitioned table, with generated columns where they can be",
            )

    def creation(self, members: Sequence[Member]) -> Step:
        """Make the publication."""
        tables = _listed([member.table for member in members])
        return Step(
            [commands.create_publication(self.name, members, generated_columns=self.with_generated)],
            f"created publication {self.name} of {tables}",
            f"what the server publishes: the changes of {tables}",
        )

    def finding(self) -> Finding:
        """Say which options it has."""
        item, publication = f"publication {self.name}", self.publication
        if publication is None:
            return Finding(item, self._words(True, True, True), "missing")
        generated = publication.generated_columns
        found = self._words(publication.has_every_operation, publication.via_root, generated)
        return Finding(item, self._words(True, True, True), found)

    def _words(self, every_operation: bool, via_root: bool, generated: bool) -> str:
        words = [
            "every operation" if every_operation else "some operations",
            "via root" if via_root else "by partition",
        ]
        if self.with_generated:
            words.append("stored generated columns" if generated else "no generated columns")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class PublicationTables:
    """The tables that a publication should have, and those that it has."""

    name: str
    members: Sequence[Member]
    present: Mapping[TableRef, PublishedTable]
    known_tables: Collection[str]
    choice: Choice

    def differs(self, member: Member) -> bool:
        """Say whether a table is not published as it should be."""
        published = self.present.get(member.table)
        return published is None or not is_member(member, published, self.choice)

    def of(self, member: Member) -> Self:
        """Say how it stands with one table, where no other is to go."""
        return replace(self, members=[member], known_tables=())

    def steps_to_widen(self, tables: Collection[TableRef]) -> Iterator[Step]:
        """Take the lists of columns away from tables that are about to be FULL, and leave their rows as they are."""
        if listed := self._listed_among(tables):
            wide = [Member(table.table, None, table.row_filter) for table in listed]
            yield self._replacement(
                wide, "a list of columns and REPLICA IDENTITY FULL would make UPDATE and DELETE fail"
            )

    def widened(self, tables: Collection[TableRef]) -> Self:
        """Say how it stands after `steps_to_widen`."""
        wide = {table.table: replace(table, columns=None) for table in self._listed_among(tables)}
        return replace(self, present={**self.present, **wide})

    def steps(self) -> Iterator[Step]:
        """Add what is not there, change what is there otherwise, and take out what is not wanted any more."""
        if added := [member for member in self.members if member.table not in self.present]:
            tables = _listed([member.table for member in added])
            yield Step(
                [commands.add_tables(self.name, added)],
                f"added {tables} to publication {self.name}",
                f"what the server publishes: the changes of {tables} too",
            )
        if changed := [member for member in self.members if member.table in self.present and self.differs(member)]:
            yield self._replacement(changed, "the columns (EXCLUDE) and the rows (ROWS) that the settings ask for")
        if dropped := self._to_drop():
            yield Step(
                [commands.drop_tables(self.name, dropped)],
                f"took {_listed(dropped)} out of publication {self.name}",
                "no receiver, and no MODELS, names it any more",
            )

    def findings(self) -> Iterator[Finding]:
        """Say how it stands with each table."""
        for member in self.members:
            wanted, found = describe(member.columns, member.where), "not published"
            if (published := self.present.get(member.table)) is not None:
                columns = member.columns if has_columns(member, published) else published.columns
                where = member.where if has_rows(member, published, self.choice) else published.row_filter
                found = describe(columns, where)
            yield Finding(f"table {member.table}", wanted, found)
        for table in self._to_drop():
            published = self.present[table]
            yield Finding(f"table {table}", "not published", describe(published.columns, published.row_filter))

    def _listed_among(self, tables: Collection[TableRef]) -> list[PublishedTable]:
        return [
            self.present[table] for table in tables if table in self.present and self.present[table].columns is not None
        ]

    def _to_drop(self) -> list[TableRef]:
        wanted = {member.table for member in self.members}
        return sorted(table for table in self.present.keys() - wanted if str(table) in self.known_tables)

    def _replacement(self, members: Sequence[Member], reason: str) -> Step:
        # In one transaction, so that there is no moment at which the table is not published.
        tables = [member.table for member in members]
        return Step(
            [commands.drop_tables(self.name, tables), commands.add_tables(self.name, members)],
            f"changed what publication {self.name} has of {_listed(tables)}",
            reason,
        )


def _listed(tables: Sequence[TableRef]) -> str:
    return ", ".join(map(str, tables))

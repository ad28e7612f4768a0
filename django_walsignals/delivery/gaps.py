"""Whether the checkpoint's position is still good on this server, with this slot and this publication.

A position means nothing on another server, and a slot that was moved or made anew has let go of changes that were
never delivered. Each of these cases is told apart from facts that are stored beside the position, before a change is
dispatched.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django_walsignals.exceptions import GapError
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.catalogue import Publication, PublishedTable, Slot
from django_walsignals.replication.connection import SystemIdentity


class GapKind(enum.Enum):
    """What is missing, by what can still be read once the gap is accepted."""

    #: Everything before where the slot stands.
    POSITION = enum.auto()
    #: Everything before the publication was made.
    PUBLICATION = enum.auto()
    #: Some changes of a table; all others can be read from the checkpoint on.
    TABLE = enum.auto()


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap, and the words for it: what happened, between which positions."""

    stream: str
    kind: GapKind
    reason: str

    def error(self) -> GapError:
        """Make the error that refuses to go on."""
        return GapError(f"Stream {self.stream!r} has a gap: {self.reason} {accept_hint(self.stream)}")


def accept_hint(stream: str) -> str:
    """Say how to go on."""
    return f"To go on without what is missing, run: manage.py walconsume {stream} --accept-gap"


@dataclass(frozen=True, slots=True)
class Situation:
    """What is found at a start: server, slot and publication, and the tables that the stream wants, by name."""

    system: SystemIdentity
    slot: Slot | None
    publication: Publication | None
    wanted_tables: Collection[str]
    #: Where each earlier timeline of this server's history ended.
    timeline_ends: Mapping[int, LSN] = field(default_factory=dict)


def find_gap(checkpoint: Checkpoint, situation: Situation) -> Gap | None:
    """Find what is missing; the gap that loses most, where there are several."""
    for kind, reason in _gaps(checkpoint, situation):
        return Gap(checkpoint.stream, kind, reason)
    return None


def published_tables(checkpoint: Checkpoint) -> set[str]:
    """Name the tables that the publication held at the last start, as ``schema.name``."""
    return {name for name, *_ in checkpoint.publication.get("tables", {}).values()}


def _gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[tuple[GapKind, str]]:
    """List the gaps, those that lose most first."""
    reasons = [*_server_gaps(checkpoint, situation), *_timeline_gaps(checkpoint, situation)]
    reasons += _slot_gaps(checkpoint, situation.slot)
    publication_gaps = list(_publication_gaps(checkpoint, situation))
    yield from ((kind, reason) for kind, reason in publication_gaps if kind is GapKind.PUBLICATION)
    yield from ((GapKind.POSITION, reason) for reason in reasons)
    yield from publication_gaps


def _server_gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[str]:
    system = situation.system
    if checkpoint.system_identifier != system.system_identifier:
        yield (
            f"the checkpoint belongs to the database cluster {checkpoint.system_identifier}, and this is "
            f"{system.system_identifier} (restored from a dump, or upgraded), where its position {checkpoint.lsn} means "
            f"nothing; the log here ends at {system.flushed}."
        )
    elif checkpoint.lsn > system.flushed:
        yield (
            f"the checkpoint at {checkpoint.lsn} lies ahead of the server's log, which ends at {system.flushed}: the "
            "server was restored from an older backup."
        )


def _timeline_gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[str]:
    """Tell a failover, which is no gap, from one that left behind what we had delivered."""
    now, then = situation.system.timeline, checkpoint.timeline
    if checkpoint.system_identifier != situation.system.system_identifier or now == then:
        return
    end = situation.timeline_ends.get(then)
    if now < then or end is None:
        yield (
            f"the server is on timeline {now}, and the checkpoint at {checkpoint.lsn} on timeline {then}, which is no "
            "part of its history: this is an old primary, or one restored to a time before."
        )
    elif checkpoint.lsn > end:
        yield (
            f"the server went over to timeline {now} at {end}, before the checkpoint at {checkpoint.lsn}: the changes "
            "between the two were delivered, and the server no longer has them."
        )


def _slot_gaps(checkpoint: Checkpoint, slot: Slot | None) -> Iterator[str]:
    if slot is None:
        yield (
            f"its replication slot {checkpoint.slot!r} is gone (or SLOT was renamed: the old slot then still holds the "
            f"log), and with it the changes after {checkpoint.lsn}."
        )
    elif slot.lost:
        yield (
            f"the server has invalidated its replication slot {slot.name!r} ({slot.lost}), and removed log after "
            f"{checkpoint.lsn} that was not delivered."
        )
    elif slot.confirmed_flush is not None and slot.confirmed_flush > checkpoint.lsn:
        yield (
            f"its replication slot {slot.name!r} stands at {slot.confirmed_flush}, ahead of the checkpoint at "
            f"{checkpoint.lsn}: somebody moved it, consumed from it, or dropped it and made it anew. The changes "
            "between the two are missing."
        )


def _publication_gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[tuple[GapKind, str]]:
    stored, publication = checkpoint.publication, situation.publication
    if not stored or checkpoint.system_identifier != situation.system.system_identifier:
        return  # the oids of another cluster say nothing here
    if publication is None or publication.oid != stored["oid"]:
        yield (
            GapKind.PUBLICATION,
            "its publication was dropped" + (" and made anew" if publication else "") + f" after {checkpoint.lsn}: "
            f"changes between there and {situation.system.flushed} can't be read through it.",
        )
        return
    if not publication.has_every_operation:
        yield (
            GapKind.TABLE,
            f"its publication was changed, after {checkpoint.lsn}, to leave out some operations: such changes are missing.",
        )
    members = {str(oid): table for oid, table in publication.tables.items()}
    for oid, (name, membership, *then) in stored["tables"].items():
        member = members.get(oid)
        came_back = member is not None and member.membership != membership
        if came_back or (member is None and name in situation.wanted_tables):
            narrowed = "" if member is None else _narrowed(then, member)
            yield (
                GapKind.TABLE,
                (
                    f"table {name} was taken out of its publication (or dropped){narrowed} after {checkpoint.lsn}. Its "
                    f"changes from while it was out, up to {situation.system.flushed} at most, are missing."
                ),
            )


def _narrowed(then: Sequence[Any], now: PublishedTable) -> str:
    """Say what is published of a table that was not so ``then``; a fingerprint of an earlier version does not know."""
    if not then:
        return ""
    columns, row_filter = then
    said = ""
    if (hidden := _listed(columns)) != (shown := _listed(now.columns)):
        said += f", and put back with {shown} instead of {hidden},"
    if row_filter != now.row_filter:
        said += f", and put back with {_rows(now.row_filter)} instead of {_rows(row_filter)},"
    return said


def _listed(columns: Sequence[str] | None) -> str:
    return "all columns" if columns is None else f"the columns {', '.join(columns)}"


def _rows(row_filter: str) -> str:
    return f"the rows where {row_filter}" if row_filter else "all rows"

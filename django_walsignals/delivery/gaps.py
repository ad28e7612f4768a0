"""Whether the checkpoint's position is still good on this server, with this slot and this publication.

A position means nothing on another server, and a slot that was moved or made anew has let go of changes that were
never delivered. Each of these cases is told apart from facts that are stored beside the position, before a change is
dispatched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from django_walsignals.exceptions import GapError
from django_walsignals.models import Checkpoint
from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.catalogue import Publication, Slot
from django_walsignals.replication.connection import SystemIdentity


@dataclass(frozen=True, slots=True)
class Situation:
    """What is found at a start: server, slot and publication, and the tables that the stream wants, by name."""

    system: SystemIdentity
    slot: Slot | None
    publication: Publication | None
    wanted_tables: Collection[str]
    #: Where each earlier timeline of this server's history ended.
    timeline_ends: Mapping[int, LSN] = field(default_factory=dict)


def refuse_gap(checkpoint: Checkpoint, situation: Situation) -> None:
    """Raise `GapError`, which says what happened, between which positions, and what to run, if anything is missing."""
    for reason in _gaps(checkpoint, situation):
        raise GapError(
            f"Stream {checkpoint.stream!r} has a gap: {reason} Everything committed before {checkpoint.lsn} has been "
            "delivered. To go on without what lies in the gap, run: manage.py walconsume "
            f"{checkpoint.stream} --accept-gap"
        )


def _gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[str]:
    if checkpoint.system_identifier != situation.system.system_identifier:
        yield (
            f"the checkpoint belongs to the database cluster {checkpoint.system_identifier}, and this is "
            f"{situation.system.system_identifier} (restored from a dump, or upgraded). Positions of the two can't be "
            "compared."
        )
    if checkpoint.lsn > situation.system.flushed:
        yield (
            f"the checkpoint at {checkpoint.lsn} lies ahead of the server's log, which ends at "
            f"{situation.system.flushed}: the server was restored from an older backup."
        )
    yield from _timeline_gaps(checkpoint, situation)
    yield from _slot_gaps(checkpoint, situation.slot)
    yield from _publication_gaps(checkpoint, situation)


def _timeline_gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[str]:
    """Tell a failover, which is no gap, from one that left behind what we had delivered."""
    now, then = situation.system.timeline, checkpoint.timeline
    if checkpoint.system_identifier != situation.system.system_identifier or now == then:
        return
    end = situation.timeline_ends.get(then)
    if now < then or end is None:
        yield (
            f"the server is on timeline {now}, and the checkpoint on timeline {then}, which is no part of its history: "
            "this is an old primary, or one restored to a time before."
        )
    elif checkpoint.lsn > end:
        yield (
            f"the server went over to timeline {now} at {end}, before the checkpoint at {checkpoint.lsn}: the changes "
            "between the two were delivered, and the server no longer has them."
        )


def _slot_gaps(checkpoint: Checkpoint, slot: Slot | None) -> Iterator[str]:
    if slot is None:
        yield f"its replication slot {checkpoint.slot!r} is gone, and with it the changes after {checkpoint.lsn}."
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


def _publication_gaps(checkpoint: Checkpoint, situation: Situation) -> Iterator[str]:
    stored, publication = checkpoint.publication, situation.publication
    if not stored:
        return
    if publication is None or publication.oid != stored["oid"]:
        yield (
            "its publication was dropped" + (" and made anew" if publication else "") + f" after {checkpoint.lsn}: "
            "changes from before it was made again can't be read through it."
        )
        return
    members = {str(oid): table for oid, table in publication.tables.items()}
    for oid, (name, membership) in stored["tables"].items():
        member = members.get(oid)
        came_back = member is not None and member.membership != membership
        if came_back or (member is None and name in situation.wanted_tables):
            yield (
                f"table {name} was taken out of its publication (or dropped) after the last start. Changes of it from "
                "while it was out are missing."
            )

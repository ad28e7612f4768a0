"""What there is to know of a stream at one moment: plain facts, and the one word that says what to think of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django_walsignals.protocol.lsn import LSN


class State(enum.StrEnum):
    """What whoever is on call reads first."""

    #: A consumer has the slot and keeps up.
    STREAMING = "streaming"
    #: A consumer has the slot, and is more than a few seconds behind: much to do, or a receiver that is stuck.
    BEHIND = "behind"
    #: Nobody consumes; the last session ended in order, was killed, or has not been yet. The slot keeps the log.
    STOPPED = "stopped"
    #: Nobody consumes, and the last session ended with an error; its process may be trying again.
    FAILING = "failing"
    #: Nobody consumes, and the next start will refuse: slot and checkpoint do not go together any more.
    GAP = "gap"
    #: There is a checkpoint, and its slot is gone.
    SLOT_MISSING = "slot_missing"
    #: The server has invalidated the slot.
    SLOT_LOST = "slot_lost"
    #: There is neither slot nor checkpoint, or no table for the latter.
    NOT_SET_UP = "not_set_up"
    #: The database can't be reached, or does not answer the question.
    UNREACHABLE = "unreachable"

    @property
    def is_broken(self) -> bool:
        """Say whether no waiting can bring the stream up to date."""
        return self in _BROKEN

    @property
    def words(self) -> str:
        """The state as people write it."""
        return self.replace("_", " ")


_BROKEN = frozenset({State.GAP, State.SLOT_MISSING, State.SLOT_LOST, State.NOT_SET_UP, State.UNREACHABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """One stream at one moment. What is None does not apply, or can't be seen by the role that asks."""

    stream: str
    state: State
    #: What is wrong, and what mends it; empty where nothing is.
    problem: str = ""
    database: str
    slot: str

    #: Whether a consumer has the slot. The process of the last session is named also where it has ended.
    active: bool = False
    consumer_pid: int | None = None
    consumer_host: str = ""
    started_at: datetime | None = None
    #: When the server last heard from the consumer; it is sent on a timer, also from a receiver that takes long.
    heartbeat_at: datetime | None = None
    #: How long the batch in hand has been in hand, in seconds.
    batch_seconds: float | None = None

    #: Everything before has taken effect.
    checkpoint: LSN | None = None
    #: When the last of that was committed.
    committed_at: datetime | None = None
    flushed: LSN | None = None
    lag_bytes: int | None = None
    #: How old the oldest change that has not taken effect can be: 0 for a consumer that keeps up.
    lag_seconds: float | None = None

    #: Bytes of log that the slot keeps.
    retained_bytes: int | None = None
    #: Bytes that may be written before the slot can be lost; None where there is no limit.
    safe_wal_bytes: int | None = None
    wal_status: str = ""
    #: Since when nobody has had the slot (PostgreSQL 17 and later).
    inactive_since: datetime | None = None

    dead_letters: int | None = None
    last_error: str = ""
    last_error_at: datetime | None = None
    #: The server's clock at this moment; None where it could not be reached.
    read_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """Give what JSON can hold: bytes and seconds as numbers, times in ISO 8601, positions as the server writes."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, LSN | State) else value

"""What a stream's slot and sessions are doing now, as the server sees it: nobody has to write anything for it.

https://www.postgresql.org/docs/current/view-pg-replication-slots.html
https://www.postgresql.org/docs/current/monitoring-stats.html

What the role may not see is None: other roles' sessions take ``pg_read_all_stats``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django_walsignals.protocol.lsn import LSN
from django_walsignals.replication.catalogue import Cursor


@dataclass(frozen=True, slots=True)
class SlotActivity:
    """A replication slot at work; ``heartbeat_at`` is when its consumer last reported, which it does on a timer.

    Before its first report that is when it connected.
    """

    active_pid: int | None
    restart: LSN | None
    confirmed_flush: LSN | None
    wal_status: str
    #: Bytes that may still be written before the slot can be lost; None where there is no limit.
    safe_wal_size: int | None
    #: Why the WAL behind it is gone; empty where it is not.
    lost: str
    #: Since when nobody has it (PostgreSQL 17 and later).
    inactive_since: datetime | None
    heartbeat_at: datetime | None
    #: Whether its consumer has said that something has been in hand for a while.
    has_batch: bool = False


@dataclass(frozen=True, slots=True)
class ServerActivity:
    """A server's clock, the end of its log, and the slot asked for, if there is one."""

    now: datetime
    flushed: LSN
    slot: SlotActivity | None


_SLOT: Final = """
    SELECT clock_timestamp(), server.flushed::text, slot.slot_name IS NOT NULL,
           slot.active_pid, slot.restart_lsn::text, slot.confirmed_flush_lsn::text,
           coalesce(slot.wal_status, ''), slot.safe_wal_size,
           CASE WHEN slot.wal_status = 'lost'
                THEN coalesce(to_jsonb(slot) ->> 'invalidation_reason', 'wal_removed') ELSE '' END,
           (to_jsonb(slot) ->> 'inactive_since')::timestamptz, coalesce(sender.reply_time, sender.backend_start),
           coalesce(sender.write_lsn > sender.flush_lsn, false)
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
          AS flushed) AS server
    LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = %s
    LEFT JOIN pg_stat_replication AS sender ON sender.pid = slot.active_pid
"""

#: A session that is younger than it is said to be only has the same pid.
_BATCH: Final = """
    SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8, xact_start FROM pg_stat_activity
    WHERE pid = %s AND backend_start <= %s AND state <> 'idle'
"""


def read_activity(cursor: Cursor, slot: str) -> ServerActivity:
    """Read where the server's log ends, and what a slot does."""
    cursor.execute(_SLOT, [slot])
    now, flushed, is_there, pid, restart, confirmed, wal_status, safe, lost, *seen = cursor.fetchone()
    found = SlotActivity(pid, _lsn(restart), _lsn(confirmed), wal_status, safe, lost, *seen)
    return ServerActivity(now, LSN.parse(flushed), found if is_there else None)


def read_log_end(cursor: Cursor) -> tuple[datetime, LSN]:
    """Read the server's clock, and up to where its log is on disk."""
    cursor.execute("SELECT clock_timestamp(), pg_current_wal_flush_lsn()::text")
    now, end = cursor.fetchone()
    return now, LSN.parse(end)


def read_batch(cursor: Cursor, pid: int, started_at: datetime) -> tuple[float, datetime] | None:
    """Read how long a session has had a transaction in hand, in seconds, and since when; None where it has none.

    ``started_at`` is when the session was there already.
    """
    cursor.execute(_BATCH, [pid, started_at])
    row = cursor.fetchone()
    return None if row is None or row[1] is None else (max(0.0, row[0]), row[1])


def _lsn(text: str | None) -> LSN | None:
    return None if text is None else LSN.parse(text)

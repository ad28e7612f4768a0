"""What there is to say of a stream's status, in words: what a terminal and the admin both show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django_walsignals.status.stream import StreamStatus
from django_walsignals.status.units import show_bytes, show_seconds

#: What a role has to be granted that sees itself alone.
_GRANT: Final = "unknown (grant pg_read_all_stats)"


def facts(status: StreamStatus) -> Iterator[tuple[str, str]]:
    """List what there is to say of a stream, label and value."""
    if status.problem:
        yield "problem", status.problem
    if status.read_at is not None:
        yield "consumer", consumer(status)
        yield "checkpoint", checkpoint(status)
        if status.lag_bytes is not None:
            yield "lag", f"{show_bytes(status.lag_bytes)}, {show_seconds(status.lag_seconds)}"
        if status.wal_status:
            yield "WAL kept", f"{show_bytes(status.retained_bytes)}; {headroom(status)}"
        yield "dead letters", str(status.dead_letters)
    if status.last_error:
        yield "last error", f"{_ago(status, status.last_error_at)}: {status.last_error}"


def consumer(status: StreamStatus) -> str:
    """Say who consumes, since when, and when it was last heard of; or since when nobody does."""
    who = f"pid {status.consumer_pid} on {status.consumer_host}"
    if not status.active:
        since = f" for {_age(status, status.inactive_since)}" if status.inactive_since else ""
        last = f"; the last one was {who}" if status.consumer_pid else ""
        return f"none{since}{last}"
    heard = _ago(status, status.heartbeat_at) if status.heartbeat_at else _GRANT
    batch = f"; a batch in hand for {show_seconds(status.batch_seconds)}" if status.batch_seconds is not None else ""
    return f"{who}, started {_ago(status, status.started_at)}; last heard {heard}{batch}"


def checkpoint(status: StreamStatus) -> str:
    """Say up to where the changes have taken effect."""
    if status.checkpoint is None:
        return "none yet"
    when = f"; last commit applied {_ago(status, status.committed_at)}" if status.committed_at else ""
    return f"{status.checkpoint}{when}"


def headroom(status: StreamStatus) -> str:
    """Say how much log may still come before the slot is lost."""
    if status.wal_status == "lost":
        return "the rest is lost"
    if status.safe_wal_bytes is None:
        return "no limit (max_slot_wal_keep_size is -1): it may fill the disk"
    if status.safe_wal_bytes <= 0:
        return "the slot is lost at the server's next checkpoint"
    return f"{show_bytes(status.safe_wal_bytes)} more until the slot is lost"


def _age(status: StreamStatus, then: datetime | None) -> str:
    if then is None or status.read_at is None:
        return "?"
    return show_seconds(max(0.0, (status.read_at - then).total_seconds()))


def _ago(status: StreamStatus, then: datetime | None) -> str:
    return f"{_age(status, then)} ago"

"""How a stream's slot is: there, readable, and not in the disk's way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.core.checks import CheckMessage

from django_walsignals.checks.facts import Facts, SlotFacts
from django_walsignals.checks.messages import report
from django_walsignals.conf import StreamConfig

#: Bytes of log that a slot may hold back before it is reported: 1 GiB, a server's max_wal_size unless somebody set it.
#: Where max_slot_wal_keep_size allows less than twice that, half of what it allows.
RETAINED_LIMIT: Final = 1024**3

_MEBIBYTE: Final = 1024**2


def slot_problems(config: StreamConfig, facts: Facts, *, has_checkpoint: bool) -> Iterator[CheckMessage]:
    """Look at the slot."""
    slot = facts.slot
    if slot is None:
        yield _missing(config, has_checkpoint=has_checkpoint)
    elif slot.database != facts.database or slot.plugin != "pgoutput":
        yield _somebody_elses(config, slot)
    elif slot.lost:
        yield _lost(config, slot)
    else:
        yield from _readable(config, facts, slot)


def _missing(config: StreamConfig, *, has_checkpoint: bool) -> CheckMessage:
    if has_checkpoint:
        return report(
            "W014",
            f"Replication slot {config.slot!r} of stream {config.alias!r} is gone, and with it the changes since its "
            "checkpoint.",
            f"To go on without them: manage.py walconsume {config.alias} --accept-gap",
        )
    return report(
        "W014",
        f"Stream {config.alias!r} has a publication, and no replication slot {config.slot!r} yet.",
        f"Run: manage.py walsetup {config.alias}",
    )


def _somebody_elses(config: StreamConfig, slot: SlotFacts) -> CheckMessage:
    what = f"database {slot.database!r}, plugin {slot.plugin!r}" if slot.plugin else "physical replication"
    return report(
        "W028",
        f"Replication slot {config.slot!r} belongs to something else ({what}), not to stream {config.alias!r}.",
        f"Set WALSIGNALS[{config.alias!r}]['SLOT'] to another name: all databases of a server share the names of slots.",
    )


def _lost(config: StreamConfig, slot: SlotFacts) -> CheckMessage:
    return report(
        "W018",
        f"Replication slot {config.slot!r} of stream {config.alias!r} is lost: the server invalidated it ({slot.lost}).",
        f"To go on without what is missing: manage.py walconsume {config.alias} --accept-gap",
    )


def _readable(config: StreamConfig, facts: Facts, slot: SlotFacts) -> Iterator[CheckMessage]:
    if slot.wal_status == "unreserved":
        yield report(
            "W019",
            f"Replication slot {config.slot!r} of stream {config.alias!r} holds back more than max_slot_wal_keep_size, "
            "and is lost at the server's next checkpoint.",
            f"At once: ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf(); and run manage.py walconsume "
            f"{config.alias}",
        )
    elif slot.retained > (limit := _limit(facts)):
        yield report(
            "W015",
            f"Replication slot {config.slot!r} of stream {config.alias!r} holds back {_size(slot.retained)} of log, more "
            f"than {_size(limit)}.",
            f"Run manage.py walconsume {config.alias}; where it runs, see what it waits for with manage.py walstatus. An "
            "open transaction holds log back too: look for an old xact_start in pg_stat_activity.",
        )
    if not slot.is_active:
        yield report(
            "I001", f"No consumer of stream {config.alias!r} runs.", f"Run: manage.py walconsume {config.alias}"
        )
    if facts.version >= 170000 and facts.has_standbys and not slot.failover:
        yield report(
            "I002",
            f"Replication slot {config.slot!r} of stream {config.alias!r} is not kept on standbys, so that a failover "
            "leaves a gap.",
            f"With the consumer stopped, over a replication connection: ALTER_REPLICATION_SLOT {config.slot} (FAILOVER "
            "true); (psql 'dbname=… replication=database')",
        )


def _limit(facts: Facts) -> int:
    return RETAINED_LIMIT if facts.keep_size < 0 else min(RETAINED_LIMIT, facts.keep_size // 2)


def _size(count: int) -> str:
    return f"{count / RETAINED_LIMIT:.1f} GiB" if count >= RETAINED_LIMIT else f"{count // _MEBIBYTE} MiB"

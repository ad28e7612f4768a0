"""What of the server's own configuration keeps a stream from running, or makes it a danger."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage

from django_walsignals.checks.facts import Facts
from django_walsignals.checks.messages import report
from django_walsignals.conf import StreamConfig
from django_walsignals.replication.connection import waits_for


def server_problems(config: StreamConfig, facts: Facts) -> Iterator[CheckMessage]:
    """Look at what the server is set to."""
    yield from _kind_of_server(config, facts)
    yield from _role(config, facts)
    yield from _room(config, facts)
    yield from _dangers(config, facts)


def is_usable(facts: Facts) -> bool:
    """Say whether anything about a stream can be set up there at all."""
    return facts.version >= 150000 and not facts.in_recovery


def _kind_of_server(config: StreamConfig, facts: Facts) -> Iterator[CheckMessage]:
    where = f"The server of DATABASES[{config.database!r}]"
    if facts.version < 150000:
        yield report(
            "W021",
            f"{where} is PostgreSQL {facts.version // 10000}, and 15 or later is needed.",
            "Upgrade it: https://www.postgresql.org/docs/current/upgrading.html",
        )
    if facts.in_recovery:
        yield report(
            "W022",
            f"{where} is a standby, and a stream is read from the primary.",
            f"Point WALSIGNALS[{config.alias!r}]['DATABASE'] at the primary.",
        )
    if facts.wal_level != "logical":
        yield report(
            "W010",
            f"{where} has wal_level = {facts.wal_level!r}, and logical replication needs 'logical'.",
            "Run: ALTER SYSTEM SET wal_level = 'logical'; and restart the server (on a managed service: its parameter "
            "for that).",
        )


def _role(config: StreamConfig, facts: Facts) -> Iterator[CheckMessage]:
    if not facts.may_replicate:
        role = facts.replication_role
        yield report(
            "W011",
            f"Stream {config.alias!r} connects as role {role}, which may not start replication.",
            f'The role needs the REPLICATION attribute: ALTER ROLE "{role}" REPLICATION; (on a managed service '
            f'its own grant, such as GRANT rds_replication TO "{role}";)',
        )


def _room(config: StreamConfig, facts: Facts) -> Iterator[CheckMessage]:
    if not facts.has_slot and facts.slots >= facts.max_slots:
        yield report(
            "W025",
            f"All {facts.max_slots} replication slots of the server are in use, and stream {config.alias!r} has none.",
            "Drop one that nobody needs (pg_replication_slots lists them), or run: ALTER SYSTEM SET "
            f"max_replication_slots = {facts.max_slots * 2}; and restart the server.",
        )
    is_running = facts.slot is not None and facts.slot.is_active
    if not is_running and facts.senders >= facts.max_senders:
        yield report(
            "W025",
            f"All {facts.max_senders} walsenders of the server are in use, and stream {config.alias!r} needs one.",
            f"Run: ALTER SYSTEM SET max_wal_senders = {max(10, facts.max_senders * 2)}; and restart the server.",
        )


def _dangers(config: StreamConfig, facts: Facts) -> Iterator[CheckMessage]:
    if facts.keep_size < 0:
        yield report(
            "W016",
            f"max_slot_wal_keep_size is -1: while no consumer of stream {config.alias!r} runs, its slot may hold back log "
            "until the disk is full.",
            "Choose what the disk can spare, beyond which the slot is lost and not the server: ALTER SYSTEM SET "
            "max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
        )
    if facts.idle_timeout != "0":
        yield report(
            "W026",
            f"idle_replication_slot_timeout is {facts.idle_timeout}: the slot of stream {config.alias!r} is lost where its "
            "consumer is stopped for longer.",
            "Run: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf(); (max_slot_wal_keep_size "
            "guards the disk)",
        )
    if waits_for(facts.synchronous, facts.application_name):
        yield report(
            "W027",
            f"synchronous_standby_names is {facts.synchronous!r}, which names the consumer of stream {config.alias!r} too: "
            "every COMMIT would wait for it, and its own for ever.",
            "Name the standbys there one by one, or name the consumer otherwise: "
            f"WALSIGNALS[{config.alias!r}]['REPLICATION_OPTIONS'] = {{'application_name': …}}.",
        )

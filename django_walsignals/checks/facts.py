"""What a server says of itself, of a stream's slot and of its publication, in one query."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.conf import StreamConfig
from django_walsignals.replication.parameters import replication_parameters

#: An attribute that not every supported version has is read through JSON. A managed service that gives nobody the
#: REPLICATION attribute has a role for it; a member of it may as well.
_FACTS: Final = """
    WITH replicating AS (
        SELECT oid, rolname, rolsuper OR rolreplication AS may FROM pg_roles
        WHERE rolname = coalesce(%(user)s::text, session_user)
    )
    SELECT
        current_setting('server_version_num')::int AS version,
        current_setting('wal_level') AS wal_level,
        pg_is_in_recovery() AS in_recovery,
        current_database()::text AS database,
        current_user::text AS role,
        coalesce(%(user)s::text, session_user::text) AS replication_role,
        EXISTS (
            SELECT FROM replicating WHERE may OR EXISTS (
                SELECT FROM pg_roles service
                WHERE service.rolname = 'rds_replication' AND pg_has_role(replicating.oid, service.oid, 'MEMBER'))
        ) AS may_replicate,
        has_database_privilege(current_database(), 'CREATE') AS may_create,
        (SELECT setting::bigint * 1024 * 1024 FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_size,
        current_setting('max_replication_slots')::int AS max_slots,
        (SELECT count(*) FROM pg_replication_slots) AS slots,
        current_setting('max_wal_senders')::int AS max_senders,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') AS senders,
        EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical') AS has_standbys,
        coalesce(current_setting('idle_replication_slot_timeout', true), '0') AS idle_timeout,
        current_setting('synchronous_standby_names') AS synchronous,
        to_jsonb(slot)::text AS slot,
        CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), slot.restart_lsn) END AS retained,
        publication.oid IS NOT NULL AS has_publication,
        coalesce(publication.puballtables, false) AS all_tables,
        coalesce(pg_has_role(publication.pubowner, 'USAGE'), true) AS may_alter,
        EXISTS (
            SELECT FROM pg_publication_tables AS published
            WHERE published.pubname = %(publication)s AND published.tablename = ANY (%(own)s)
        ) AS own_published
    FROM (SELECT) AS one
    LEFT JOIN pg_replication_slots AS slot ON slot.slot_name = %(slot)s
    LEFT JOIN pg_publication AS publication ON publication.pubname = %(publication)s
"""


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A slot; ``retained`` is how many bytes of log it holds back, ``lost`` says why they are gone, else empty."""

    plugin: str
    database: str
    is_active: bool
    wal_status: str
    lost: str
    failover: bool
    retained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A server, as one stream sees it. ``version`` is as 180004, ``keep_size`` in bytes and negative for no bound.

    ``role`` is who sets up and writes checkpoints, ``replication_role`` who reads the log.
    """

    version: int
    wal_level: str
    in_recovery: bool
    database: str
    role: str
    replication_role: str
    application_name: str
    may_replicate: bool
    may_create: bool
    may_alter: bool
    keep_size: int
    max_slots: int
    slots: int
    max_senders: int
    senders: int
    has_standbys: bool
    idle_timeout: str
    synchronous: str
    slot: SlotFacts | None
    has_publication: bool
    all_tables: bool
    own_published: bool

    @property
    def has_slot(self) -> bool:
        """Whether the slot is this database's; another database may have one of that name for the stream's namesake."""
        return self.slot is not None and self.slot.database == self.database


def read_facts(config: StreamConfig, own_tables: list[str]) -> Facts:
    """Ask the stream's database; raise Django's ``DatabaseError`` where it can't be."""
    connection = connections[config.database]
    parameters = {
        "user": config.replication_options.get("user"),
        "slot": config.slot,
        "publication": config.publication,
        "own": own_tables,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, parameters)
        row = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
    slot, retained = row.pop("slot"), row.pop("retained")
    return Facts(**row, slot=_slot(slot, retained) if slot else None, application_name=_own_name(connection, config))


def _slot(text: str, retained: Any) -> SlotFacts:
    slot = json.loads(text)
    lost = slot["wal_status"] == "lost"
    return SlotFacts(
        plugin=slot["plugin"] or "",
        database=slot["database"] or "",
        is_active=slot["active"],
        wal_status=slot["wal_status"] or "",
        lost=(slot.get("invalidation_reason") or "wal_removed") if lost else "",
        failover=bool(slot.get("failover")),
        retained=int(retained or 0),
    )


def _own_name(connection: BaseDatabaseWrapper, config: StreamConfig) -> str:
    """Say what the consumer's replication connection will be called."""
    parameters = replication_parameters(connection.get_connection_params(), config.replication_options)
    return str(parameters["application_name"])

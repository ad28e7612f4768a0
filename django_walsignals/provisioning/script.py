"""What a stream needs, as a script for whoever has the rights: roles, grants, publication, replica identities, slot.

The script is of what is missing now, and ``psql -f`` can read it. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.sql import SQL, Composable, Identifier

from django_walsignals.conf import StreamConfig
from django_walsignals.provisioning.plan import Plan
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Slot

#: The role's name where the settings have none.
PLACEHOLDER: Final = "walsignals"

_ROLE: Final = "SELECT rolreplication, rolcanlogin, rolsuper FROM pg_roles WHERE rolname = %s"

_SCHEMA: Final = """
    SELECT coalesce((SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.oid = to_regclass(%s)), current_schema())
"""


@dataclass(frozen=True, slots=True)
class Roles:
    """Who streams, who asks the stream's database, and who writes the checkpoint: mostly one and the same."""

    streams: str
    asks: str
    writes: str


def roles_of(
    config: StreamConfig, connection: BaseDatabaseWrapper, own_connection: BaseDatabaseWrapper, chosen: str | None
) -> Roles:
    """Name the roles that the settings name, unless one was chosen."""
    asks, writes = (
        chosen or str(found.settings_dict["USER"] or "") or PLACEHOLDER for found in (connection, own_connection)
    )
    return Roles(chosen or str(config.replication_options.get("user") or asks), asks, writes)


@dataclass(frozen=True, slots=True)
class Script:
    """What one stream needs: ``rights`` are those on this library's own tables, by ``db_table``."""

    config: StreamConfig
    connection: BaseDatabaseWrapper
    own_connection: BaseDatabaseWrapper
    roles: Roles
    rights: Mapping[str, Sequence[str]]
    plan: Plan
    slot: Slot | None
    has_publication: bool
    gap: str = ""

    def lines(self) -> Iterator[str]:
        """Write the script."""
        yield from self._opening()
        for role in dict.fromkeys((self.roles.streams, self.roles.asks)):
            yield from self._role(role)
        yield from self._rights()
        yield from self._steps()
        yield from self._slot()

    def _opening(self) -> Iterator[str]:
        database = self.connection.settings_dict["NAME"]
        yield comment(f"django-walsignals, stream {self.config.alias}: what is missing in database {database}.")
        yield comment("For a superuser, or the owner of the tables with CREATE on the database and REPLICATION:")
        yield comment(
            "psql -v ON_ERROR_STOP=1 -f this-file. Where it stops (at a lock, say), write it anew and run that."
        )
        if self.gap:
            yield comment(f"MIND THE GAP: {self.gap}")

    def _role(self, role: str) -> Iterator[str]:
        yield ""
        with self.connection.cursor() as cursor:
            cursor.execute(_ROLE, [role])
            found = cursor.fetchone()
        attribute = "REPLICATION" if role == self.roles.streams else ""
        if found is None:
            yield comment(f"The consumer's role. Give it a password, or a line in pg_hba.conf for {self._database}.")
            yield self._sql(SQL(f"CREATE ROLE {{}} LOGIN {attribute}".rstrip()).format(Identifier(role)))
        elif attribute and not (found[0] or found[2]):
            yield comment("To stream (on a managed service its own grant, such as rds_replication).")
            yield self._sql(SQL("ALTER ROLE {} REPLICATION").format(Identifier(role)))
        else:
            yield comment(f"Role {role} is there.")
        yield self._sql(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(Identifier(self._database), Identifier(role)))

    def _rights(self) -> Iterator[str]:
        """Grant what is needed on the tables of this library, in the database where they are."""
        is_here = self.own_connection.alias == self.connection.alias
        place = "" if is_here else f", in database {self.own_connection.settings_dict['NAME']}"
        yield ""
        yield comment(f"Its own tables (what receivers read and write is the application's to grant){place}.")
        for statement in dict.fromkeys(self._grants()):
            yield statement if is_here else comment(statement)

    def _grants(self) -> Iterator[str]:
        role = Identifier(self.roles.writes)
        for table, rights in self.rights.items():
            name = self.own_connection.ops.quote_name(table)
            with self.own_connection.cursor() as cursor:
                cursor.execute(_SCHEMA, [name])
                (schema,) = cursor.fetchone()
            yield self._sql(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(schema), role))
            statement = SQL(f"GRANT {', '.join(rights)} ON {{}} TO {{}}")
            yield self._sql(statement.format(SQL(name), role))

    def _steps(self) -> Iterator[str]:
        yield ""
        if not self.plan.steps:
            yield comment("Publication and replica identities are as they should be.")
        else:
            yield comment("A lock is waited for shortly, since others wait behind.")
            yield "SET lock_timeout = '2s';"
            for step in self.plan.steps:
                yield comment(step.reason)
                yield self._sql(step.script())
            yield "RESET lock_timeout;"
        yield from map(comment, (*self.plan.remarks, *self.plan.notes))

    def _slot(self) -> Iterator[str]:
        name = self.config.slot
        yield ""
        if self.slot is None:
            yield comment("The slot last: it can't read what lies before its publication. Waits for open transactions.")
            yield self._sql(commands.create_slot_by_function(name, failover=self._version >= 170000))
        elif self.slot.lost:
            yield comment(f"The server has invalidated the slot ({self.slot.lost}): changes are missing. If so be it:")
            yield comment(self._sql(commands.drop_slot(name)))
            yield comment(self._sql(commands.create_slot_by_function(name, failover=self._version >= 170000)))
        elif not self.has_publication:
            yield comment("The slot is older than its publication, and can't read what lies between.")
            yield self._sql(commands.move_slot(name))
        else:
            yield comment(f"Replication slot {name} is there.")

    @property
    def _database(self) -> str:
        return str(self.connection.get_connection_params().get("dbname") or self.connection.settings_dict["NAME"])

    @property
    def _version(self) -> int:
        version: int = self.connection.pg_version  # type: ignore[attr-defined]
        return version

    def _sql(self, statement: Composable) -> str:
        self.connection.ensure_connection()
        return f"{statement.as_string(self.connection.connection)};"


def comment(text: str) -> str:
    """Write a comment that no line break in a name can end."""
    return f"-- {' '.join(text.split())}"

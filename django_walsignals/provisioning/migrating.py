"""What the operations in ``django_walsignals.operations`` do to a database: which tables, whether they may, the SQL.

Tables are those of the migration's state of the models, spelled as Django's own DDL spells them. Where ``sqlmigrate``
collects SQL there may be no table yet, so nothing is asked of the catalogue then, and nothing refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, cast

from django.db import models, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState
from psycopg.sql import Identifier

from django_walsignals.conf import get_stream, stream_aliases
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.provisioning.tables import TableFacts, read_tables
from django_walsignals.replication.catalogue import read_slot
from django_walsignals.replication.commands import publication_options
from django_walsignals.selection import OWN_LABEL

Models = Sequence[type[models.Model]]

#: The replica identities that are not an index.
KEYWORDS: Final = ("full", "default", "nothing")

#: Publications that hold a table, so that its UPDATE and DELETE need an identity, and whether its key could be one.
_NEEDS: Final = """
    SELECT
        ARRAY(
            SELECT DISTINCT p.pubname::text FROM pg_publication p
            JOIN pg_publication_tables t ON t.pubname = p.pubname
            WHERE (p.pubupdate OR p.pubdelete) AND t.schemaname = %(schema)s AND t.tablename = %(name)s
        ),
        EXISTS (
            SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND i.indisprimary AND i.indimmediate
        )
"""


class Database:
    """The database that a migration runs on, with the models as the migration's state has them."""

    def __init__(self, editor: BaseDatabaseSchemaEditor, state: ProjectState, app_label: str) -> None:
        self._editor = editor
        self._state = state
        self._app_label = app_label

    def allowed(self, labels: Sequence[str]) -> Models:
        """Find the models that a router lets migrate here: none on another database than PostgreSQL."""
        connection = self._editor.connection
        if connection.vendor != "postgresql":
            return []
        found = [self._model(label) for label in labels]
        return [model for model in found if router.allow_migrate_model(connection.alias, model)]

    def set_identity(self, label: str, identity: str) -> None:
        """Set the replica identity of a model's table, and of its partitions unless it is an index."""
        for model in self.allowed([label]):
            tables = [self._quoted(model)]
            for fact in self._facts([model]):
                self._refuse_identity(fact, identity.lower())
                if not fact.is_root and identity.lower() in KEYWORDS:
                    tables.append(fact.table.identifier.as_string())
            for table in tables:
                self._execute(f"ALTER TABLE {table} REPLICA IDENTITY {_clause(identity)}")

    def create_publication(self, name: str, labels: Sequence[str]) -> None:
        """Create a publication of those models that are allowed here, if there are any."""
        if chosen := self._publishable(name, labels):
            version = self._editor.connection.pg_version  # type: ignore[attr-defined]
            options = publication_options(version >= 180000).as_string()
            self._execute(
                f"CREATE PUBLICATION {Identifier(name).as_string()} FOR TABLE {self._listed(chosen)} WITH ({options})"
            )

    def drop_publication(self, name: str, labels: Sequence[str]) -> None:
        """Drop what `create_publication` made."""
        if self.allowed(labels):
            self._refuse_while_a_slot_needs(name)
            self._execute(f"DROP PUBLICATION {Identifier(name).as_string()}")

    def add_to_publication(self, name: str, labels: Sequence[str]) -> None:
        """Add the tables of those models that are allowed here."""
        if chosen := self._publishable(name, labels):
            self._execute(f"ALTER PUBLICATION {Identifier(name).as_string()} ADD TABLE {self._listed(chosen)}")

    def take_from_publication(self, name: str, labels: Sequence[str]) -> None:
        """Take them out."""
        if chosen := self.allowed(labels):
            self._execute(f"ALTER PUBLICATION {Identifier(name).as_string()} DROP TABLE {self._listed(chosen)}")

    def _model(self, label: str) -> type[models.Model]:
        key = model_key(label, self._app_label)
        try:
            return self._state.apps.get_model(*key)
        except LookupError:
            raise ConfigurationError(
                f"There is no model {'.'.join(key)} at this point of the migrations: correct the name, or add the "
                "migration that creates it to the dependencies."
            ) from None

    def _publishable(self, name: str, labels: Sequence[str]) -> Models:
        chosen = self.allowed(labels)
        if ours := [model._meta.label for model in chosen if model._meta.app_label == OWN_LABEL]:
            raise ConfigurationError(
                f"{', '.join(ours)} can't be published: each checkpoint would be a change of its own."
            )
        for fact in self._facts(chosen, name):
            _refuse_table(fact)
        return chosen

    def _facts(self, chosen: Models, publication: str = "") -> Sequence[TableFacts]:
        if self._editor.collect_sql:
            return []
        facts = read_tables(self._editor.connection, chosen, publication)
        if missing := set(chosen) - {fact.model for fact in facts}:
            tables = ", ".join(sorted(f"{model._meta.db_table} ({model._meta.label})" for model in missing))
            raise ConfigurationError(f"There is no table {tables} at this point of the migrations.")
        return facts

    def _refuse_identity(self, fact: TableFacts, identity: str) -> None:
        reason = ""
        if identity == "full":
            reason = fact.full_breaks_writes
        elif identity in KEYWORDS:
            with self._editor.connection.cursor() as cursor:
                cursor.execute(_NEEDS, fact.table._asdict())
                publications, has_key = cursor.fetchone()
            if publications and (identity == "nothing" or not has_key):
                reason = f"publication {', '.join(publications)} holds it, and it would have no replica identity"
        if reason:
            raise ConfigurationError(
                f"REPLICA IDENTITY {identity.upper()} on {fact.table} ({fact.model._meta.label}) would make the "
                f"application's UPDATE and DELETE fail: {reason}."
            )

    def _refuse_while_a_slot_needs(self, publication: str) -> None:
        alias = self._editor.connection.alias
        streams = map(get_stream, stream_aliases())
        slots = [stream.slot for stream in streams if (stream.database, stream.publication) == (alias, publication)]
        if self._editor.collect_sql or not slots:
            return
        with self._editor.connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            (database,) = cursor.fetchone()
            found = [slot for name in slots if (slot := read_slot(cursor, name)) and slot.database == database]
        if found:
            raise ConfigurationError(
                f"Replication slot {found[0].name} is still there, and what it holds could never be decoded without "
                f"publication {publication}. Drop both: manage.py walsetup --drop."
            )

    def _quoted(self, model: type[models.Model]) -> str:
        return self._editor.quote_name(model._meta.db_table)

    def _listed(self, chosen: Models) -> str:
        # ONLY: a table that inherits from another is somebody else's. Partitions come all the same.
        return ", ".join(f"ONLY {self._quoted(model)}" for model in chosen)

    def _execute(self, statement: str) -> None:
        self._editor.execute(statement, cast(Any, None))  # None: a % in a name is no parameter


def model_key(label: str, app_label: str) -> tuple[str, str]:
    """Split "app.Model" or "Model" into app and model, in lower case."""
    app, _, name = label.rpartition(".")
    return app or app_label, name.lower()


def fragment(*words: str) -> str:
    """Make a part of a migration's name out of these words."""
    return re.sub(r"\W+", "_", "_".join(words).lower())


def _clause(identity: str) -> str:
    return identity.upper() if identity.lower() in KEYWORDS else f"USING INDEX {Identifier(identity).as_string()}"


def _refuse_table(fact: TableFacts) -> None:
    """Raise `ConfigurationError` for a table that can't be published, or whose writes would fail if it were."""
    where = f"{fact.table} ({fact.model._meta.label})"
    if fact.not_publishable:
        raise ConfigurationError(f"{where} can't be published: {fact.not_publishable}.")
    reason = fact.full_breaks_writes if fact.replica_identity == "f" else ""
    if not fact.has_identity:
        reason = "it has no replica identity: SetReplicaIdentity(…, 'full') gives it one"
    if reason:
        raise ConfigurationError(f"Publishing {where} would make the application's UPDATE and DELETE fail: {reason}.")

"""Migration operations, for teams that want what a stream needs of the schema in their migrations.

    from django_walsignals.operations import AlterPublication, CreatePublication, SetReplicaIdentity

    operations = [
        SetReplicaIdentity("order", "full"),
        CreatePublication("walsignals_default", ["Order", "customers.Customer"]),
    ]

``walsetup`` and ``walconsume`` then find nothing left to do but the slot, and what only settings say (EXCLUDE, ROWS).
The statements run inside the migration's transaction, and ALTER TABLE holds its lock on the table until that ends: give
them a migration of their own. On another database than PostgreSQL they do nothing, and a router's ``allow_migrate``
decides for each model. What would make the application's UPDATE and DELETE fail is refused with a `ConfigurationError`.

A slot is never made in a migration. The server does not roll it back with the transaction, and refuses to make it in
one that has written; it waits for every transaction that is open in the cluster, the migration's own among them; and
from then on it keeps WAL until somebody reads it, in each database that is ever migrated: a colleague's, a test's, a
new one that no consumer will run against. So ``walsetup`` or ``walconsume`` makes it, where there is to be a consumer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import DeleteModel
from django.db.migrations.operations.base import Operation, OperationCategory
from django.db.migrations.state import ProjectState

from django_walsignals.provisioning.migrating import Database, fragment, model_key


class _OnTables(Operation):
    """What the operations have in common: they change the database, and not the state of the models."""

    category = OperationCategory.ALTERATION

    def labels(self) -> Sequence[str]:
        """Name the models, as "Model" or "app.Model"."""
        raise NotImplementedError

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Leave the state alone: Django's models know nothing of replication."""

    def references_model(self, name: str, app_label: str) -> bool:
        """Say whether the operation is about this model."""
        return (app_label, name.lower()) in [model_key(label, app_label) for label in self.labels()]

    def _lets_pass(self, operation: Operation, app_label: str) -> bool:
        """Say whether another operation may be moved across this one: one that is about none of its models."""
        keys = [model_key(label, app_label) for label in self.labels()]
        return not any(operation.references_model(name, app) for app, name in keys)


class SetReplicaIdentity(_OnTables):
    """Set how much of an old row the WAL holds: "full", "default" (its key), "nothing", or a unique index's name.

    A partitioned table's partitions are set with it, except to an index. Undone, the identity is ``previous``.
    """

    def __init__(self, model_name: str, identity: str = "full", previous: str = "default") -> None:
        self.model_name = model_name
        self.identity = identity
        self.previous = previous

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Say how it is written in a migration."""
        kwargs = {"model_name": self.model_name, "identity": self.identity}
        return type(self).__name__, [], kwargs | ({} if self.previous == "default" else {"previous": self.previous})

    def labels(self) -> Sequence[str]:
        """Name the model."""
        return [self.model_name]

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Set the identity."""
        Database(schema_editor, to_state, app_label).set_identity(self.model_name, self.identity)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Set the identity that was."""
        Database(schema_editor, to_state, app_label).set_identity(self.model_name, self.previous)

    def reduce(self, operation: Operation, app_label: str) -> list[Operation] | bool:
        """Make one of two that follow each other; let what is about other models pass."""
        if isinstance(operation, SetReplicaIdentity) and self.references_model(operation.model_name, app_label):
            return [SetReplicaIdentity(self.model_name, operation.identity, self.previous)]
        if isinstance(operation, DeleteModel) and self.references_model(operation.name, app_label):
            return [operation]
        return super().reduce(operation, app_label) or self._lets_pass(operation, app_label)

    def describe(self) -> str:
        """Say what it does."""
        return f"Set the replica identity of {self.model_name} to {self.identity}"

    @property
    def migration_name_fragment(self) -> str:
        """Its part of a migration's name."""
        return fragment(self.model_name, "replica_identity", self.identity)


class CreatePublication(_OnTables):
    """Create a publication of these models' tables, with the options that a stream needs; undone, it is dropped.

    Partitioned tables are published through their root. To drop the publication of a stream that still has its slot is
    refused: what that slot holds could never be decoded. ``walsetup --drop`` drops both.
    """

    category = OperationCategory.ADDITION

    def __init__(self, name: str, models: Sequence[str]) -> None:
        self.name = name
        self.models = _checked(models)
        if not self.models:
            raise ValueError("CreatePublication needs models")

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Say how it is written in a migration."""
        return type(self).__name__, [], {"name": self.name, "models": self.models}

    def labels(self) -> Sequence[str]:
        """Name the models."""
        return self.models

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Create it."""
        Database(schema_editor, to_state, app_label).create_publication(self.name, self.models)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop it."""
        Database(schema_editor, to_state, app_label).drop_publication(self.name, self.models)

    def reduce(self, operation: Operation, app_label: str) -> list[Operation] | bool:
        """Take in a later change of its models; let what is about none of them pass."""
        if isinstance(operation, AlterPublication) and operation.name == self.name:
            left = _joined(self.models, operation.drop, operation.add, (), app_label)
            return [CreatePublication(self.name, left)] if left else False
        return super().reduce(operation, app_label) or self._lets_pass(operation, app_label)

    def describe(self) -> str:
        """Say what it does."""
        return f"Create publication {self.name} of {', '.join(self.models)}"

    @property
    def migration_name_fragment(self) -> str:
        """Its part of a migration's name."""
        return fragment("create_publication", self.name)


class AlterPublication(_OnTables):
    """Add models' tables to a publication, and take some out; undone, the other way round.

    A consumer takes a table that went and came back for a gap, and stops: its changes in between are lost.
    """

    def __init__(self, name: str, add: Sequence[str] = (), drop: Sequence[str] = ()) -> None:
        self.name = name
        self.add = _checked(add)
        self.drop = _checked(drop)
        if not self.add and not self.drop:
            raise ValueError("AlterPublication needs models to add or to drop")

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Say how it is written in a migration."""
        lists = {"add": self.add, "drop": self.drop}
        return type(self).__name__, [], {"name": self.name, **{key: value for key, value in lists.items() if value}}

    def labels(self) -> Sequence[str]:
        """Name the models that come and those that go."""
        return [*self.add, *self.drop]

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Add and drop."""
        database = Database(schema_editor, to_state, app_label)
        database.add_to_publication(self.name, self.add)
        database.take_from_publication(self.name, self.drop)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Add what was dropped, and drop what was added."""
        database = Database(schema_editor, to_state, app_label)
        database.add_to_publication(self.name, self.drop)
        database.take_from_publication(self.name, self.add)

    def reduce(self, operation: Operation, app_label: str) -> list[Operation] | bool:
        """Make one of two that follow each other, none if they undo each other; let what is about others pass."""
        if isinstance(operation, AlterPublication) and operation.name == self.name:
            add = _joined(self.add, operation.drop, operation.add, self.drop, app_label)
            drop = _joined(self.drop, operation.add, operation.drop, self.add, app_label)
            return [AlterPublication(self.name, add, drop)] if add or drop else []
        return super().reduce(operation, app_label) or self._lets_pass(operation, app_label)

    def describe(self) -> str:
        """Say what it does."""
        parts = [f"add {', '.join(self.add)}" if self.add else "", f"drop {', '.join(self.drop)}" if self.drop else ""]
        return f"Alter publication {self.name}: {'; '.join(filter(None, parts))}"

    @property
    def migration_name_fragment(self) -> str:
        """Its part of a migration's name."""
        return fragment("alter_publication", self.name)


def _checked(labels: Sequence[str]) -> list[str]:
    if isinstance(labels, str):
        raise TypeError(f"a list of models is wanted, not {labels!r}")
    return list(labels)


def _without(labels: Sequence[str], taken: Sequence[str], app_label: str) -> list[str]:
    keys = {model_key(label, app_label) for label in taken}
    return [label for label in labels if model_key(label, app_label) not in keys]


def _joined(
    first: Sequence[str], undone: Sequence[str], then: Sequence[str], undoing: Sequence[str], app_label: str
) -> list[str]:
    """List what is left of ``first``, after a part of it was ``undone``, and what of ``then`` is not ``undoing``."""
    return [*_without(first, undone, app_label), *_without(then, undoing, app_label)]

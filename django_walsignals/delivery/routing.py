"""Who wants to hear of what: each relation's plan and receivers, compiled when its Relation message comes.

A row of a table that no receiver listens to costs a dictionary look-up; a filter by operation no more than that, and a
filter by field one comparison of undecoded bytes a field.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from asgiref.sync import async_to_sync
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_walsignals.binding.plan import TablePlan
from django_walsignals.binding.registry import TableRegistry
from django_walsignals.changes import Operation, Row, WalChange, WalTruncate
from django_walsignals.conf import StreamConfig
from django_walsignals.delivery.observer import NOBODY, Observer, Send
from django_walsignals.exceptions import ProtocolError
from django_walsignals.protocol.lsn import LSN
from django_walsignals.protocol.messages import Relation
from django_walsignals.selection import excluded_columns
from django_walsignals.signals import Connected, WalSignal, post_wal_change, post_wal_truncate, wal_message
from django_walsignals.transactions import Transaction

logger = logging.getLogger(__name__)

#: The first byte of each row message.
OPERATION_OF: Final[Mapping[int, Operation]] = {
    b"I"[0]: Operation.INSERT,
    b"U"[0]: Operation.UPDATE,
    b"D"[0]: Operation.DELETE,
}


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals whose receivers are called: the public ones, unless a consumer brings its own."""

    change: WalSignal = post_wal_change
    truncate: WalSignal = post_wal_truncate
    message: WalSignal = wal_message


PUBLIC: Final = Signals()


#: From what was received to the keywords that a receiver is called with.
Keywords = Callable[[Any], dict[str, Any]]


class ReceivedMessage(NamedTuple):
    """A message of ``pg_logical_emit_message``, on its way to the receivers of `wal_message`."""

    prefix: str
    content: bytes
    transaction: Transaction | None
    commit_lsn: LSN
    ordinal: int

    @property
    def place(self) -> tuple[LSN, int]:
        """Commit LSN and ordinal."""
        return self.commit_lsn, self.ordinal

    @property
    def id(self) -> str:
        """The message's id, of the same kind as a change's."""
        return f"{self.commit_lsn}/{self.ordinal}"


class Target(NamedTuple):
    """A receiver, ready to be called with what it is to hear of."""

    send: Send
    path: str
    when: Callable[[Any], bool] | None = None
    indexes: tuple[int, ...] | None = None

    def wants(self, old: Row | None, new: Row | None) -> bool:
        """Judge the filter by fields, on undecoded values; only an update has two rows to compare."""
        if self.indexes is None or old is None or new is None:
            return True
        return any(old[index] != new[index] for index in self.indexes)


@dataclass(slots=True)
class Route:
    """A relation's plan and its receivers; no plan where no model describes the table."""

    relation: Relation
    plan: TablePlan[Any] | None
    targets: dict[Operation, tuple[Target, ...]] = field(default_factory=dict)
    #: See ``binding.builder.rows_of``.
    is_mixed: bool = False


class Router:
    """The routes of the relations that this session has been told of."""

    def __init__(
        self,
        config: StreamConfig,
        registry: TableRegistry,
        connection: BaseDatabaseWrapper,
        *,
        observer: Observer = NOBODY,
        signals: Signals = PUBLIC,
    ) -> None:
        self._config = config
        self._registry = registry
        self._connection = connection
        self._observer = observer
        self._signals = signals
        self._excluded = excluded_columns(config)
        self._routes: dict[int, Route] = {}
        self._mixed: set[int] = set()
        self._last_relation: Relation | None = None
        self._generation = signals.change.generation
        self.unmapped: Counter[str] = Counter()

    def add(self, relation: Relation) -> None:
        """Compile the route of a relation, which may be one that has changed."""
        self._note_partition(relation)
        model = self._registry.model_for(relation)
        plan = None if model is None else self._plan(relation, model)
        route = Route(relation, plan, is_mixed=relation.relation_id in self._mixed)
        self._routes[relation.relation_id] = route
        self._aim(route)

    def _note_partition(self, relation: Relation) -> None:
        """Take note of a partition without FULL: its relation comes right behind that of its root, which rows then name."""
        root, self._last_relation = self._last_relation, relation
        if (
            root
            and root.relation_id in self._registry.partitioned
            and relation.replica_identity != root.replica_identity
        ):
            self._mixed.add(root.relation_id)
            self._routes[root.relation_id].is_mixed = True

    def route(self, relation_id: int) -> Route:
        """Find the route of a row; raise `ProtocolError` for a relation that no Relation message announced."""
        try:
            return self._routes[relation_id]
        except KeyError:
            raise ProtocolError(f"a row of relation {relation_id}, which was not described before") from None

    def refresh(self) -> None:
        """Take note of receivers that were connected or disconnected since."""
        generation = self._signals.change.generation
        if self._generation != generation:
            self._generation = generation
            for route in self._routes.values():
                self._aim(route)

    def count_unmapped(self, route: Route) -> None:
        """Count a row of a table that no model describes, and name the table once."""
        name = f"{route.relation.namespace}.{route.relation.name}"
        if name not in self.unmapped:
            logger.info(
                "Table %s is published, but no model describes it: its changes are counted and passed over", name
            )
        self.unmapped[name] += 1

    def truncate_targets(self, model: type[models.Model]) -> tuple[Target, ...]:
        """List the receivers of a model's TRUNCATE."""
        signal = self._signals.truncate
        connected = signal.receivers_for(model, self._config.alias)
        return tuple(
            Target(self._sender(receiver, signal, _truncate_keywords), receiver.path) for receiver in connected
        )

    def message_targets(self) -> tuple[Target, ...]:
        """List the receivers of logical messages."""
        signal = self._signals.message
        connected = signal.receivers_for(None, self._config.alias)
        return tuple(Target(self._sender(receiver, signal, _message_keywords), receiver.path) for receiver in connected)

    def _plan(self, relation: Relation, model: type[models.Model]) -> TablePlan[Any]:
        return TablePlan(
            relation,
            model,
            self._connection,
            stream=self._config.alias,
            excluded=self._excluded,
            base_types=self._registry.base_types,
        )

    def _sender(self, connected: Connected, signal: WalSignal, keywords: Keywords) -> Send:
        return self._observer.watched(_sender(connected, signal, keywords), connected.path)

    def _aim(self, route: Route) -> None:
        if route.plan is None:
            return
        signal = self._signals.change
        connected = signal.receivers_for(route.plan.model, self._config.alias)
        route.targets = {
            operation: tuple(
                _change_target(receiver, route.plan, operation, self._sender(receiver, signal, _change_keywords))
                for receiver in connected
                if operation in receiver.filter.operations
            )
            for operation in Operation
        }
        if not connected:
            logger.info("Nothing listens to %s", route.plan.model._meta.label)


def _change_target(connected: Connected, plan: TablePlan[Any], operation: Operation, send: Send) -> Target:
    wanted = connected.filter
    indexes = None
    if wanted.fields is not None and operation is Operation.UPDATE:
        indexes = plan.indexes(wanted.fields)
        if indexes is None:
            logger.warning(
                "%s hears of every update of %s: the WAL does not hold all of fields=%s, so that they may have changed",
                connected.path,
                plan.model._meta.label,
                sorted(wanted.fields),
            )
    return Target(send, connected.path, wanted.when, indexes)


def _sender(connected: Connected, signal: WalSignal, keywords: Keywords) -> Send:
    """Make the function that calls a receiver: a handler with the change alone, others with the signal's keywords."""
    if connected.handler is not None:
        return async_to_sync(connected.handler) if connected.is_async else connected.handler

    def send(sent: Any) -> Any:
        receiver = connected.receiver
        if receiver is None:  # held weakly, and gone
            return None
        if connected.is_async:
            return async_to_sync(receiver)(signal=signal, **keywords(sent))
        return receiver(signal=signal, **keywords(sent))

    return send


def _change_keywords(change: WalChange[Any]) -> dict[str, Any]:
    return {"sender": change.model, "instance": change.instance, "change": change, "using": change.using}


def _truncate_keywords(truncate: WalTruncate) -> dict[str, Any]:
    return {"sender": truncate.model, "truncate": truncate, "using": truncate.using}


def _message_keywords(message: ReceivedMessage) -> dict[str, Any]:
    return {
        "sender": None,
        "prefix": message.prefix,
        "content": message.content,
        "transaction": message.transaction,
    }

"""Changes inside a ``TestCase``, where nothing is ever committed and the WAL has nothing to give.

The ORM's signals say when a row was written; what it was before and is after is read from the database, in the same
transaction. What no signal tells of (``bulk_create``, ``update()``, raw SQL, a cascade in the database) is noticed by
what was written (``testing.writes``), and is an error: a test must not pass because of a change that it did not see.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal, NamedTuple

from django.db import connections
from django.db.models import Model, Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.db.transaction import TransactionManagementError

from django_walsignals.changes import M, Operation, Row, WalChange
from django_walsignals.conf import DEFAULT_STREAM, StreamConfig, get_stream
from django_walsignals.contexts import context
from django_walsignals.exceptions import ConfigurationError
from django_walsignals.selection import published_models
from django_walsignals.signals import OperationName
from django_walsignals.testing.making import build_change, make_transaction
from django_walsignals.testing.rows import FieldRows, concrete, rows_of
from django_walsignals.testing.sending import send_change
from django_walsignals.testing.writes import Writes
from django_walsignals.transactions import Transaction

OnUnseen = Literal["raise", "warn"]

_ADVICE: Final = (
    "The WAL would hold these changes, and receivers would get them, but in a TestCase nothing tells of them. Test this "
    "with TransactionTestCase (pytest: django_db(transaction=True), or the fixture wal_stream) and consume_pending()."
)


class UnseenChanges(AssertionError):
    """The block wrote rows that `capture_wal_changes` could not see; the message names their tables."""


class CapturedChanges(list[WalChange[Any]]):
    """The changes of a block so far, in order."""

    def of(self, model: type[M], operation: OperationName | None = None) -> list[WalChange[M]]:
        """Pick those of a model, and of an operation if one is given."""
        return [change for change in self if change.model is concrete(model) and operation in (None, change.operation)]


@contextmanager
def capture_wal_changes(
    *models: type[Model], stream: str = DEFAULT_STREAM, on_unseen: OnUnseen = "raise", send: bool = False
) -> Iterator[CapturedChanges]:
    """Capture the changes that the block would have committed, in a ``TestCase``.

    >>> with capture_wal_changes() as changes:
    ...     order.status = "paid"
    ...     order.save()
    >>> assert changes[0].has_changed("status")

    The models are those that the stream publishes (by MODELS, or because a receiver names them), or those given. The
    list grows as rows are written, and what a rolled back savepoint undoes is taken out of it; clear it, if you like,
    between arranging and acting. With ``send`` the changes are sent to the receivers that want them at the end of the
    block, by `send_change`.

    Seen are ``save()``, ``create()``, ``delete()`` with what Django itself cascades to, and many-to-many ``add``,
    ``remove``, ``set`` and ``clear``. Anything else that writes to the models' tables raises `UnseenChanges` at the end
    of the block, or warns with ``on_unseen="warn"``. Not noticed: what a deferred trigger does at COMMIT. Each
    ``atomic()`` block inside counts as one transaction. ``assertNumQueries`` counts the queries that read the rows.

    Raises ``TransactionManagementError`` outside a transaction: there, changes are committed, and `consume_pending`
    brings the real ones; and `ConfigurationError` where there is no model to capture.
    """
    if on_unseen not in ("raise", "warn"):
        raise ValueError(f"on_unseen can't be {on_unseen!r}: it is 'raise' or 'warn'")
    config = get_stream(stream)
    connection = connections[config.database]
    if not connection.in_atomic_block:
        raise TransactionManagementError(
            "capture_wal_changes() is for TestCase, whose transaction is never committed. Here changes are committed: "
            "use consume_pending()."
        )
    captured = models or published_models(config)
    if not captured:
        raise ConfigurationError(
            "There is nothing to capture: no receiver of post_wal_change names a model as its sender, and nor does MODELS. "
            "Name models: capture_wal_changes(Order)."
        )
    changes = CapturedChanges()
    recorder = _Recorder(config, captured)
    with recorder.writes.watch(changes):
        with recorder.connected():
            yield changes
        if connection.needs_rollback:  # an error that the test expected has undone everything
            changes.clear()
            return
        _report(recorder.writes.unseen(), on_unseen)
    if send:
        for change in changes:
            send_change(change)


def _report(unseen: list[str], on_unseen: OnUnseen) -> None:
    if not unseen:
        return
    message = "\n  ".join(["capture_wal_changes() can't tell what was written here:", *unseen]) + f"\n{_ADVICE}"
    if on_unseen == "raise":
        raise UnseenChanges(message)
    warnings.warn(message, stacklevel=4)


class _Before(NamedTuple):
    """The rows of an instance before it was written; it keeps the instance, whose ``id()`` names it meanwhile."""

    instance: Model
    rows: dict[Any, Row]


class _Recorder:
    """Turns the ORM's signals into changes."""

    def __init__(self, config: StreamConfig, models: tuple[type[Model], ...]) -> None:
        self._using = config.database
        self._bindings = {concrete(model): rows_of(model, config) for model in models}
        self._connection: Any = connections[config.database]
        self._depth = len(self._connection.atomic_blocks)
        self._block: object = None
        self._transaction: Transaction | None = None
        self._before: dict[Any, _Before] = {}
        self.writes = Writes(self._connection, [str(model._meta.db_table) for model in self._bindings])

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Listen to the ORM."""
        listeners = (
            (pre_save, self._before_save),
            (post_save, self._after_save),
            (pre_delete, self._before_delete),
            (post_delete, self._after_delete),
            (m2m_changed, self._m2m_changed),
        )
        with ExitStack() as stack:
            for signal, listener in listeners:
                signal.connect(listener, weak=False)
                stack.callback(signal.disconnect, listener)
            yield

    def _before_save(self, *, instance: Model, using: str, **kwargs: Any) -> None:
        if using == self._using:
            rows = {binding.model: self._read(binding, instance) for binding in self._tables_of(instance)}
            known = {model: row for model, row in rows.items() if row is not None}
            self._before[id(instance)] = _Before(instance, known)

    def _after_save(self, *, instance: Model, using: str, **kwargs: Any) -> None:
        before = self._before.pop(id(instance), None) if using == self._using else None
        if before is None:
            return
        transaction = self._current_transaction()
        for binding in self._tables_of(instance):
            if not self.writes.take(binding.model._meta.db_table, "INSERT", "UPDATE"):
                continue  # no statement for this table
            old, new = before.rows.get(binding.model), self._read(binding, instance)
            if new is not None:
                operation = Operation.INSERT if old is None else Operation.UPDATE
                self.writes.record(build_change(binding, operation, old, new, transaction))

    def _before_delete(self, *, instance: Model, using: str, **kwargs: Any) -> None:
        binding = self._bindings.get(concrete(type(instance)))
        if using == self._using and binding is not None:
            row = self._read(binding, instance)
            self._before[binding.model, instance.pk] = _Before(instance, {} if row is None else {binding.model: row})

    def _after_delete(self, *, instance: Model, using: str, **kwargs: Any) -> None:
        binding = self._bindings.get(concrete(type(instance)))
        if using != self._using or binding is None:
            return
        before = self._before.pop((binding.model, instance.pk), None)
        row = None if before is None else before.rows.get(binding.model)
        if row is not None and self.writes.take(binding.model._meta.db_table, "DELETE"):
            self.writes.record(build_change(binding, Operation.DELETE, None, row, self._current_transaction()))

    def _m2m_changed(self, *, sender: type[Model], instance: Model, action: str, using: str, **kwargs: Any) -> None:
        binding = self._bindings.get(sender)
        if using != self._using or binding is None:
            return
        key = sender, id(instance)
        rows = self._through_rows(binding, instance)
        if action.startswith("pre_"):
            self._before[key] = _Before(instance, rows)
        elif before := self._before.pop(key, None):
            transaction = self._current_transaction()
            gone = [(Operation.DELETE, row) for pk, row in before.rows.items() if pk not in rows]
            came = [(Operation.INSERT, row) for pk, row in rows.items() if pk not in before.rows]
            for operation, row in gone + came:
                self.writes.take(sender._meta.db_table, operation.upper())
                self.writes.record(build_change(binding, operation, None, row, transaction))

    def _tables_of(self, instance: Model) -> list[FieldRows[Any]]:
        """List the captured tables that saving an instance writes to: its parents', the farthest first, and its own."""
        lineage = [*reversed(instance._meta.get_parent_list()), concrete(type(instance))]
        return [self._bindings[model] for model in lineage if model in self._bindings]

    def _read(self, binding: FieldRows[Any], instance: Model) -> Row | None:
        """Read an instance's row of one table; None where there is none."""
        key = {field.attname: getattr(instance, field.attname) for field in binding.model._meta.pk_fields}
        if None in key.values():
            return None
        return next(iter(self._rows(binding, Q(**key))), None)

    def _through_rows(self, binding: FieldRows[Any], instance: Model) -> dict[Any, Row]:
        condition = Q()
        for field in binding.fields:
            if field.remote_field is not None and isinstance(instance, field.remote_field.model):
                condition |= Q(**{field.attname: getattr(instance, field.target_field.attname)})  # type: ignore[attr-defined]
        return {binding.pk(row): row for row in self._rows(binding, condition)}

    def _rows(self, binding: FieldRows[Any], condition: Q) -> list[tuple[Any, ...]]:
        rows = binding.model._base_manager.using(self._using).filter(condition).order_by("pk")  # noqa: SLF001  # documented
        return [binding.row(values) for values in rows.values(*(field.attname for field in binding.fields))]

    def _current_transaction(self) -> Transaction:
        """Give the transaction that would be open here: that of the outermost atomic block inside, if there is one."""
        inside = self._connection.atomic_blocks[self._depth :]
        block = inside[0] if inside else None
        if self._transaction is None or block is None or block is not self._block:
            self._block, self._transaction = block, make_transaction()
        made_in = context.current()
        if made_in != self._transaction.context:
            self._transaction = self._transaction.with_context(made_in)
        return self._transaction

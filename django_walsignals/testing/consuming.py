"""The real pipeline in a test: a slot of this process's own, consumed here up to what is committed.

It is ``walconsume --until-lsn now`` without the process: the same set-up, session, consumer and checkpoint. Only one
stage differs: what a receiver raises reaches the test as it is, at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final, NoReturn

from django.db import connections
from django.db.transaction import TransactionManagementError

from django_walsignals.changes import WalChange
from django_walsignals.conf import DEFAULT_STREAM, StreamConfig, get_stream
from django_walsignals.delivery.backoff import Backoff
from django_walsignals.delivery.careful import CarefulDelivery
from django_walsignals.delivery.checkpoint import CheckpointKeeper, CheckpointStore
from django_walsignals.delivery.intake import Event
from django_walsignals.delivery.position import Position
from django_walsignals.delivery.routing import Target
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.delivery.supervisor import NOW, Orders, Supervisor
from django_walsignals.exceptions import ConfigurationError, DeliveryError, ReceiverError, SlotInUse
from django_walsignals.models import Checkpoint
from django_walsignals.provisioning.setup import StreamSetUp, require_server
from django_walsignals.replication import commands
from django_walsignals.replication.catalogue import Slot, read_slot

#: Seconds until the server must have ended a walsender that was told to.
_PATIENCE: Final = 10.0
_INTERVAL: Final = 0.02

#: A slot's name has 63 characters: the prefix, this much of the database's name, and a hash of all that tells it apart.
_SHOWN: Final = 38

_NO_BACKOFF: Final = Backoff(first=0.0, cap=0.0)


def consume_pending(stream: str = DEFAULT_STREAM) -> list[WalChange[Any]]:
    """Deliver everything committed so far, in this process, and return the changes that receivers were called with.

    For ``TransactionTestCase`` and ``pytest.mark.django_db(transaction=True)``: in a ``TestCase`` nothing is committed.

    >>> set_up_stream()
    >>> Order.objects.filter(pk=1).update(status="paid")
    >>> [change] = consume_pending()

    The first call in a test only sets the stream up, as `set_up_stream` does, and returns an empty list: changes are in
    the stream from then on. What receivers write is delivered by the next call, if somebody listens to it.

    A receiver that raises ends the call with its own exception: there are no retries and no dead letters. The batch is
    rolled back, with the checkpoint, so the next call delivers the same changes again.

    Raises ``TransactionManagementError`` inside a ``TestCase`` or ``atomic()``, and `ConfigurationError` for a server
    or settings with which nothing can be streamed.
    """
    config = _config(stream)
    if not _is_set_up(config):
        set_up_stream(stream)
        return []
    return _run(config)


def set_up_stream(stream: str = DEFAULT_STREAM) -> None:
    """Make the stream's publication and slot anew, so that changes from here on are in it, and none from before.

    The names are this process's own, made of the test database's name, whatever SLOT and PUBLICATION say: a slot is
    known to the whole server. Let `drop_stream` follow, as in ``self.addCleanup(drop_stream)``: an unused slot makes the
    server keep its WAL.

    Raises as `consume_pending` does.
    """
    config = _config(stream)
    drop_stream(stream)
    _run(config)


def publish_listened(stream: str = DEFAULT_STREAM) -> None:
    """Publish the tables of receivers that were connected since the stream was set up."""
    _set_up(_config(stream)).apply(())


def drop_stream(stream: str = DEFAULT_STREAM) -> None:
    """Drop the slot, publication and checkpoint that `set_up_stream` made, as far as they are there."""
    config = _config(stream)
    for alias in {config.database, config.checkpoint_database}:
        connections[alias].close_if_unusable_or_obsolete()
    _free_slot(config)
    with connections[config.database].cursor() as cursor:
        if read_slot(cursor, config.slot) is not None:
            cursor.execute(commands.drop_slot(config.slot))
        cursor.execute(commands.drop_publication(config.publication))
    Checkpoint.objects.using(config.checkpoint_database).filter(stream=stream).delete()


def slot_name(database: str, stream: str) -> str:
    """Name a test's slot and publication, for a database, which each process of a parallel run has its own of."""
    whole = f"{database} {stream} {os.environ.get('PYTEST_XDIST_WORKER', '')}"
    shown = re.sub(r"[^a-z0-9_]", "_", database.lower())[:_SHOWN]
    return f"walsignals_{shown}_{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


class _Strict(CarefulDelivery):
    """Deliver a batch in one transaction, as the first attempt is everywhere, and let through what a receiver raises."""

    def __init__(self, config: StreamConfig) -> None:
        super().__init__(config, _NO_BACKOFF, lambda seconds: True)
        self.changes: list[WalChange[Any]] = []
        self._error: BaseException | None = None

    def deliver(self, events: Sequence[Event], keeper: CheckpointKeeper, old: Position, new: Position) -> None:
        """Deliver, and note the changes that a receiver was called with."""
        called: dict[int, WalChange[Any]] = {}
        noted = [(sent, tuple(_noting(target, called) for target in targets)) for sent, targets in events]
        try:
            super().deliver(noted, keeper, old, new)
        except ReceiverError as exc:
            self._error = exc.__cause__ or exc
        except DeliveryError as exc:
            self._error = exc
        if self._error is not None:
            raise self._error
        self.changes += called.values()

    def deliver_carefully(
        self,
        events: Sequence[Event],
        keeper: CheckpointKeeper,
        old: Position,
        finished: Callable[[Position], None],
    ) -> None:
        """Do not: the batch failed, and the test is to know."""
        raise self._error or AssertionError("nothing has failed")


class _OneSession(Supervisor):
    """The consumer's supervisor, which takes an outage for an error."""

    def __init__(self, config: StreamConfig, stop: StopRequest, orders: Orders) -> None:
        super().__init__(config, stop, orders, report=_ignore)
        self._delivery: _Strict = _Strict(config)

    @property
    def changes(self) -> list[WalChange[Any]]:
        """The changes delivered."""
        return self._delivery.changes

    def _wait_out(self, exc: Exception) -> NoReturn:
        raise exc


def _run(config: StreamConfig) -> list[WalChange[Any]]:
    _free_slot(config)
    with ExitStack() as stack:
        stop = StopRequest()
        stack.push(stop)  # closed, but not entered: Ctrl-C is the test runner's
        supervisor = _OneSession(config, stop, Orders(until=NOW, set_up=_set_up(config), stand_by=False))
        supervisor.run()
    return supervisor.changes


def _set_up(config: StreamConfig) -> StreamSetUp:
    return StreamSetUp(config, require_server(connections[config.database]), _ignore)


def _noting(target: Target, called: dict[int, WalChange[Any]]) -> Target:
    """Have a receiver's calls noted."""

    def send(sent: Any) -> Any:
        if isinstance(sent, WalChange):
            called[id(sent)] = sent
        return target.send(sent)

    return target._replace(send=send)


def _config(stream: str) -> StreamConfig:
    """Read a stream's settings, under names of this test's own; refuse a transaction, where nothing can work."""
    config = get_stream(stream)
    for alias in (config.database, config.checkpoint_database):
        _refuse_other_vendor(alias)
        if connections[alias].in_atomic_block:
            raise TransactionManagementError(
                "consume_pending() and set_up_stream() read what is committed, and inside TestCase or atomic() nothing "
                "is. Use TransactionTestCase (pytest: django_db(transaction=True), or the fixture wal_stream), or stay "
                "in TestCase with capture_wal_changes()."
            )
    name = slot_name(str(connections[config.database].settings_dict["NAME"]), stream)
    return replace(config, slot=name, publication=name, max_attempts=1, on_error="stop")


def _refuse_other_vendor(alias: str) -> None:
    vendor = connections[alias].vendor
    if vendor != "postgresql":
        raise ConfigurationError(
            f"Database {alias!r} is {vendor}; only PostgreSQL has a WAL that can be read. Receivers can be tested without "
            "one: make_change() and send_change()."
        )


def _is_set_up(config: StreamConfig) -> bool:
    """Say whether slot and checkpoint are there: the flush after a ``TransactionTestCase`` takes the checkpoint."""
    return _slot(config) is not None and CheckpointStore(config.alias, config.checkpoint_database).load() is not None


def _free_slot(config: StreamConfig) -> None:
    """End a walsender that still has the slot: that of the call before, which is on its way out."""
    deadline = time.monotonic() + _PATIENCE
    while (slot := _slot(config)) is not None and slot.active_pid is not None:
        if time.monotonic() > deadline:
            raise SlotInUse(f"Replication slot {slot.name!r} is in use (pid {slot.active_pid}).")
        with connections[config.database].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [slot.active_pid])
        time.sleep(_INTERVAL)


def _slot(config: StreamConfig) -> Slot | None:
    with connections[config.database].cursor() as cursor:
        return read_slot(cursor, config.slot)


def _ignore(line: str) -> None:
    """Take a report: nobody reads one in a test."""

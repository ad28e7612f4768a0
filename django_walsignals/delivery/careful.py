"""The careful path: a batch that failed, taken again one change a transaction, with a savepoint a receiver.

A change whose receiver raises is rolled back and tried again after a wait, and after its last attempt that receiver's
share of it becomes a dead letter, committed with the checkpoint and with what the other receivers did. A receiver
that fails on every change would make each of them wait: so after a few dead letters in a row it is *suspect*, and has
one attempt a change until it succeeds again. Suspects don't send a batch here any more: the fast path gives their
calls a savepoint, and puts down a dead letter at once.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from django.db import connections, transaction
from django.utils import timezone

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import letters
from django_walsignals.delivery.backoff import Backoff
from django_walsignals.delivery.checkpoint import CheckpointKeeper
from django_walsignals.delivery.dispatch import batch_transaction, call, is_lost
from django_walsignals.delivery.intake import Event
from django_walsignals.delivery.position import Position
from django_walsignals.delivery.routing import Target
from django_walsignals.exceptions import ConnectionLost, ReceiverError
from django_walsignals.models import DeadLetter

logger = logging.getLogger(__name__)

#: Dead letters in a row after which a receiver is suspect.
SUSPECT_AFTER: Final = 3

Call = tuple[Any, Target]


@dataclass(slots=True)
class Failure:
    """What went wrong with one call, so far."""

    attempts: int
    first_at: datetime
    last_at: datetime
    error: str
    traceback: str


class Interrupted(Exception):  # not an error
    """The wait between two attempts was ended: by a signal, or because a connection died."""


class CarefulDelivery:
    """Deliver batches so that no receiver can jam the stream, and remember which receivers are suspect."""

    def __init__(
        self,
        config: StreamConfig,
        backoff: Backoff,
        pause: Callable[[float], bool],
        now: Callable[[], datetime] = timezone.now,
    ) -> None:
        """``pause`` waits so many seconds, and says whether it was left to the end."""
        self._config = config
        self._using = config.checkpoint_database
        self._backoff = backoff
        self._pause = pause
        self._now = now
        self._dead_in_a_row: Counter[str] = Counter()
        #: Dead letters written so far.
        self.dead_letters = 0

    def deliver(self, events: Sequence[Event], keeper: CheckpointKeeper, old: Position, new: Position) -> None:
        """Deliver a batch in one transaction; raise `ReceiverError` for a receiver that is not suspect.

        Without suspects that is the fast path: no savepoint, and nothing to remember.
        """
        dead: list[DeadLetter] = []
        with batch_transaction(self._using):
            for sent, targets in events:
                for target in targets:
                    if self._is_suspect(target):
                        dead += self._call_suspect((sent, target))
                    else:
                        call(sent, target, self._using)
            self._bury(dead)
            keeper.move(old, new)
        self.dead_letters += len(dead)

    def deliver_carefully(
        self,
        events: Sequence[Event],
        keeper: CheckpointKeeper,
        old: Position,
        finished: Callable[[Position], None],
    ) -> None:
        """Deliver a batch one change a transaction; ``finished`` is called with the position behind each.

        Raises `Interrupted` where a wait was cut short, with the changes before done and the rest not.
        """
        for position, calls in _by_change(events, old):
            self._deliver_one(calls, keeper, old, position)
            finished(position)
            old = position

    def _deliver_one(self, calls: Sequence[Call], keeper: CheckpointKeeper, old: Position, new: Position) -> None:
        failures: dict[int, Failure] = {}
        while True:
            try:
                self._attempt(calls, failures, keeper, old, new)
            except _Retry as again:
                failure = again.failure
                if again.wait and not self._pause(self._backoff.wait_after(failure.attempts)):
                    raise Interrupted from again
            else:
                return

    def _attempt(
        self,
        calls: Sequence[Call],
        failures: dict[int, Failure],
        keeper: CheckpointKeeper,
        old: Position,
        new: Position,
    ) -> None:
        """Run all calls but the dead ones, and commit them with the dead letters and the checkpoint."""
        with batch_transaction(self._using):
            for number, (sent, target) in enumerate(calls):
                if not self._is_dead(failures.get(number), target):
                    self._attempt_call(number, (sent, target), failures)
            dead = {number: failure for number, failure in failures.items() if self._is_dead(failure, calls[number][1])}
            self._bury([self._letter(calls[number], failure) for number, failure in dead.items()])
            keeper.move(old, new)
        self.dead_letters += len(dead)
        for number, (_, target) in enumerate(calls):
            self._remember(target, is_dead=number in dead)

    def _attempt_call(self, number: int, attempted: Call, failures: dict[int, Failure]) -> None:
        sent, target = attempted
        try:
            self._call_with_savepoint(sent, target)
        except ReceiverError as exc:
            failure = failures[number] = self._note(failures.get(number), exc)
            logger.warning("%s (attempt %d of %d)", exc, failure.attempts, self._attempts_of(target))
            if not self._is_dead(failure, target):
                raise _Retry(failure, wait=True) from exc
            if self._config.on_error == "stop":
                raise
            if not _is_usable(self._using):  # nothing can be written in this transaction: once more, without this call
                raise _Retry(failure, wait=False) from exc

    def _call_with_savepoint(self, sent: Any, target: Target) -> None:
        """Call a receiver; one that swallowed a database error, or closed the connection, has raised as well."""
        try:
            with transaction.atomic(using=self._using):
                call(sent, target, self._using)
                _refuse_unusable(self._using)
        except (ReceiverError, ConnectionLost):
            raise
        except Exception as exc:
            if is_lost(self._using):
                raise ConnectionLost(f"The database connection died at receiver {target.path}.") from exc
            raise ReceiverError(target.path, sent.id, exc) from exc

    def _call_suspect(self, attempted: Call) -> Iterator[DeadLetter]:
        sent, target = attempted
        try:
            self._call_with_savepoint(sent, target)
        except ReceiverError as exc:
            if not _is_usable(self._using):
                raise
            logger.warning("%s (it failed before: no more attempts)", exc)
            yield self._letter(attempted, self._note(None, exc))
        else:
            self._remember(target, is_dead=False)

    def _note(self, failure: Failure | None, exc: ReceiverError) -> Failure:
        cause = exc.__cause__ or exc
        first_at, attempts = (failure.first_at, failure.attempts) if failure else (self._now(), 0)
        trace = "".join(traceback.format_exception(cause))
        return Failure(attempts + 1, first_at, self._now(), f"{type(cause).__name__}: {cause}", trace)

    def _letter(self, attempted: Call, failure: Failure) -> DeadLetter:
        sent, target = attempted
        return DeadLetter(
            stream=self._config.alias,
            change_id=sent.id,
            receiver=target.path,
            error=failure.error.replace("\0", "\\0"),
            traceback=failure.traceback.replace("\0", "\\0"),
            attempts=failure.attempts,
            first_failed_at=failure.first_at,
            last_failed_at=failure.last_at,
            **letters.describe(sent),
        )

    def _bury(self, dead: Sequence[DeadLetter]) -> None:
        if dead:
            DeadLetter.objects.using(self._using).bulk_create(dead)

    def _remember(self, target: Target, *, is_dead: bool) -> None:
        if is_dead:
            self._dead_in_a_row[target.path] += 1
        else:
            self._dead_in_a_row.pop(target.path, None)

    def _is_suspect(self, target: Target) -> bool:
        return bool(self._dead_in_a_row) and self._dead_in_a_row[target.path] >= SUSPECT_AFTER

    def _attempts_of(self, target: Target) -> int:
        return 1 if self._is_suspect(target) else self._config.max_attempts

    def _is_dead(self, failure: Failure | None, target: Target) -> bool:
        return failure is not None and failure.attempts >= self._attempts_of(target)


class _Retry(Exception):  # control flow inside this module
    """Roll this change's transaction back and take it again."""

    def __init__(self, failure: Failure, *, wait: bool) -> None:
        super().__init__()
        self.failure = failure
        self.wait = wait


def _by_change(events: Sequence[Event], start: Position) -> Iterator[tuple[Position, list[Call]]]:
    """Group a batch by change, with the position behind each: of one change, several models may be truncated."""
    for (commit_lsn, ordinal), group in groupby(events, key=lambda event: event[0].place):
        yield (
            Position(start.lsn, commit_lsn, ordinal),
            [(sent, target) for sent, targets in group for target in targets],
        )


def _is_usable(using: str) -> bool:
    """Say whether the transaction in hand can still be written in."""
    connection = connections[using]
    return connection.connection is not None and not connection.closed_in_transaction and not connection.needs_rollback


def _refuse_unusable(using: str) -> None:
    """Raise where a receiver closed the connection under its own savepoint."""
    session = connections[using].connection
    if session is None or session.closed:
        raise RuntimeError("it closed the database connection that the batch's transaction runs on")

"""The careful path: a batch that failed, taken again one change a transaction, with a savepoint a receiver.

A change whose receiver raises is rolled back and tried again after a wait, and after its last attempt that receiver's
share of it becomes a dead letter, committed with the checkpoint and with what the other receivers did. A receiver
that fails on every change would make each of them wait: so after a few dead letters in a row it is *suspect*, and has
one attempt a change until a batch passes without a failure of its. Suspects don't send a batch here any more: the fast
path gives their calls a savepoint, and puts down a dead letter at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple

from django.utils import timezone

from django_walsignals.conf import StreamConfig
from django_walsignals.delivery import letters
from django_walsignals.delivery.backoff import Backoff
from django_walsignals.delivery.checkpoint import CheckpointKeeper, NoCheckpoint
from django_walsignals.delivery.dispatch import batch_transaction, call
from django_walsignals.delivery.intake import Event
from django_walsignals.delivery.observer import NOBODY, Observer
from django_walsignals.delivery.position import Position
from django_walsignals.delivery.routing import Target
from django_walsignals.delivery.savepoint import call_with_savepoint, enforce_constraints, is_usable
from django_walsignals.exceptions import CheckpointMoved, DeliveryError, ReceiverError
from django_walsignals.models import DeadLetter

logger = logging.getLogger(__name__)

#: Dead letters in a row after which a receiver is suspect.
SUSPECT_AFTER: Final = 3

#: What of a dead letter is written anew where there is one already: where a stream that started over brings a change
#: again.
_UPDATED: Final = ("kind", "pk_text", "operation", "payload", "error", "traceback", "attempts", "last_failed_at")


class Call(NamedTuple):
    """A receiver to be called with something; ``name`` tells it from another one of the same path."""

    sent: Any
    target: Target
    name: str


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
        *,
        observer: Observer = NOBODY,
    ) -> None:
        """``pause`` waits so many seconds, and says whether it was left to the end."""
        self._config = config
        self._using = config.checkpoint_database
        self._backoff = backoff
        self._pause = pause
        self._now = now
        self._observer = observer
        self._dead_in_a_row: Counter[str] = Counter()
        #: Dead letters written so far.
        self.dead_letters = 0

    def deliver(self, events: Sequence[Event], keeper: CheckpointKeeper, old: Position, new: Position) -> None:
        """Deliver a batch in one transaction; raise `DeliveryError` unless it was a suspect that failed.

        Without suspects that is the fast path: no savepoint, and nothing to remember.
        """
        dead: list[DeadLetter] = []
        worked: set[str] = set()
        with batch_transaction(self._using):
            for sent, targets in events:
                for target in targets:
                    if self._dead_in_a_row:
                        dead += self._call_watched(Call(sent, target, letters.receiver_name(target, targets)), worked)
                    else:
                        call(sent, target, self._using)
            enforce_constraints(self._using)
            self._bury(dead, keeper)
            keeper.move(old, new, _committed_at(events[-1][0]) if events else None)
        self._count(dead)
        for name in worked.difference(letter.receiver for letter in dead):
            self._remember(name, is_dead=False)

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
        refused = 0
        while True:
            try:
                self._attempt(calls, failures, keeper, old, new)
            except _Retry as again:
                if again.wait:
                    self._wait(again.failure.attempts, again)
            except (ReceiverError, CheckpointMoved):
                raise
            except DeliveryError as exc:  # none of the receivers can be blamed, such as where a rival deleted a row
                refused += 1
                if refused >= self._config.max_attempts:
                    raise
                logger.warning("%s (attempt %d of %d)", exc, refused, self._config.max_attempts)
                self._wait(refused, exc)
            else:
                return

    def _wait(self, failures: int, reason: Exception) -> None:
        if not self._pause(self._backoff.wait_after(failures)):
            raise Interrupted from reason

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
            for number, attempted in enumerate(calls):
                if not self._is_dead(failures.get(number), attempted):
                    self._attempt_call(number, attempted, failures)
            enforce_constraints(self._using)
            dead = {at: failure for at, failure in failures.items() if self._is_dead(failure, calls[at])}
            written = [self._letter(calls[at], failure) for at, failure in dead.items()]
            self._bury(written, keeper)
            keeper.move(old, new, _committed_at(calls[0].sent))
        self._count(written)
        for number, attempted in enumerate(calls):
            self._remember(attempted.name, is_dead=number in dead)

    def _attempt_call(self, number: int, attempted: Call, failures: dict[int, Failure]) -> None:
        try:
            call_with_savepoint(attempted.sent, attempted.target, self._using)
        except ReceiverError as exc:
            failure = failures[number] = self._note(failures.get(number), exc)
            logger.warning("%s (attempt %d of %d)", exc, failure.attempts, self._attempts_of(attempted))
            if not self._is_dead(failure, attempted):
                raise _Retry(failure, wait=True) from exc
            if self._config.on_error == "stop":
                raise
            if not is_usable(self._using):  # nothing can be written in this transaction: once more, without this call
                raise _Retry(failure, wait=False) from exc

    def _call_watched(self, attempted: Call, worked: set[str]) -> Iterator[DeadLetter]:
        """Call a receiver while there are suspects: where it is one, a failure is a dead letter at once."""
        if not self._is_suspect(attempted.name):
            call(attempted.sent, attempted.target, self._using)
            worked.add(attempted.name)
            return
        try:
            call_with_savepoint(attempted.sent, attempted.target, self._using)
        except ReceiverError as exc:
            if not is_usable(self._using):
                raise
            logger.warning("%s (it failed before: no more attempts)", exc)
            yield self._letter(attempted, self._note(None, exc))
        else:
            worked.add(attempted.name)

    def _note(self, failure: Failure | None, exc: ReceiverError) -> Failure:
        self._observer.receiver_failed(exc.receiver)
        now = self._now()
        first_at, attempts = (failure.first_at, failure.attempts) if failure else (now, 0)
        return Failure(attempts + 1, first_at, now, **letters.describe_error(exc))

    def _letter(self, attempted: Call, failure: Failure) -> DeadLetter:
        return DeadLetter(
            stream=self._config.alias,
            change_id=attempted.sent.id,
            receiver=attempted.name,
            error=failure.error,
            traceback=failure.traceback,
            attempts=failure.attempts,
            first_failed_at=failure.first_at,
            last_failed_at=failure.last_at,
            **letters.describe(attempted.sent),
        )

    def _bury(self, dead: Sequence[DeadLetter], keeper: CheckpointKeeper) -> None:
        """Write dead letters; a temporary stream leaves nothing behind, and its failures are in the log only."""
        if dead and not isinstance(keeper, NoCheckpoint):
            unique = ("stream", "change_id", "model", "receiver")
            rows = DeadLetter.objects.using(self._using)
            rows.bulk_create(dead, update_conflicts=True, unique_fields=unique, update_fields=_UPDATED)

    def _count(self, dead: Sequence[DeadLetter]) -> None:
        """Count dead letters that are committed."""
        self.dead_letters += len(dead)
        if dead:
            self._observer.dead_letters_written([letter.receiver for letter in dead])

    def _remember(self, name: str, *, is_dead: bool) -> None:
        if is_dead:
            self._dead_in_a_row[name] += 1
        else:
            self._dead_in_a_row.pop(name, None)

    def _is_suspect(self, name: str) -> bool:
        return self._dead_in_a_row[name] >= SUSPECT_AFTER

    def _attempts_of(self, attempted: Call) -> int:
        return 1 if self._is_suspect(attempted.name) else self._config.max_attempts

    def _is_dead(self, failure: Failure | None, attempted: Call) -> bool:
        return failure is not None and failure.attempts >= self._attempts_of(attempted)


class _Retry(Exception):  # control flow inside this module
    """Roll this change's transaction back and take it again."""

    def __init__(self, failure: Failure, *, wait: bool) -> None:
        super().__init__()
        self.failure = failure
        self.wait = wait


def _committed_at(sent: Any) -> datetime | None:
    """Say when a change was committed; None for a message outside a transaction."""
    transaction = sent.transaction
    return None if transaction is None else transaction.committed_at


def _by_change(events: Sequence[Event], start: Position) -> Iterator[tuple[Position, list[Call]]]:
    """Group a batch by change, with the position behind each: of one change, several models may be truncated."""
    for (commit_lsn, ordinal), group in groupby(events, key=lambda event: event[0].place):
        yield (
            Position(start.lsn, commit_lsn, ordinal),
            [
                Call(sent, target, letters.receiver_name(target, targets))
                for sent, targets in group
                for target in targets
            ],
        )

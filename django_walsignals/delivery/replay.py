"""Replay: run just the receiver that failed again, and keep its dead letter until it succeeds.

The receiver's effects in the checkpoint's database and the end of its letter are one transaction, so that they happen
exactly once, however many replay at a time: a letter that somebody else has in hand is passed over. Changes of the
same row that came later have been delivered meanwhile; a receiver that is replayed must not take its change for the
row's latest.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connections, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from django_walsignals.binding.registry import TableRegistry
from django_walsignals.changes import WalChange, WalTruncate
from django_walsignals.conf import StreamConfig, get_stream, stream_aliases, suggest
from django_walsignals.delivery import letters
from django_walsignals.delivery.dispatch import batch_transaction
from django_walsignals.delivery.routing import Router, Target
from django_walsignals.delivery.savepoint import call_with_savepoint, enforce_constraints
from django_walsignals.exceptions import ConfigurationError, DeliveryError, ReceiverError
from django_walsignals.models import DeadLetter
from django_walsignals.signals import post_wal_change, post_wal_truncate, wal_message


class Outcome(enum.StrEnum):
    """What became of a letter: only the first is the end of it, or was before us (`GONE`)."""

    REPLAYED = "replayed"
    FAILED = "failed again"
    REFUSED = "can't be replayed"
    BUSY = "in somebody else's hands"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one letter's replay, and what there is to say of it."""

    pk: int
    outcome: Outcome
    reason: str = ""

    @property
    def is_kept(self) -> bool:
        """Say whether the letter is still there, so that somebody has to look at it."""
        return self.outcome in (Outcome.FAILED, Outcome.REFUSED, Outcome.BUSY)

    def __str__(self) -> str:
        return f"{self.pk}: {self.outcome}{': ' if self.reason else ''}{self.reason}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters: all that match everything that is said. ``model`` is a label, in any case of letters."""

    ids: tuple[int, ...] = ()
    model: str | None = None
    receiver: str | None = None
    stream: str | None = None

    def letters(self) -> list[QuerySet[DeadLetter]]:
        """Find the letters, in order of id, one query set a database.

        Raises `ConfigurationError` for what does not exist: an id, a model, a receiver's letters, a stream.
        """
        found = [self._matching(using) for using in self._databases()]
        if self.ids:
            self._refuse_unknown_ids(found)
        if self.model is not None:
            self._refuse_unknown_model()
        return found

    def _databases(self) -> list[str]:
        """Name the databases that hold letters; a letter's id means something in one of them only."""
        aliases = stream_aliases() if self.stream is None else (self.stream,)
        databases = list(dict.fromkeys(get_stream(alias).checkpoint_database for alias in aliases))
        if self.ids and len(databases) > 1:
            raise ConfigurationError(
                "Each checkpoint database numbers its dead letters: name the stream with --stream."
            )
        return databases

    def _matching(self, using: str) -> QuerySet[DeadLetter]:
        wanted: dict[str, Any] = {"model__iexact": self.model, "receiver": self.receiver, "stream": self.stream}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if self.ids:
            wanted["pk__in"] = self.ids
        return DeadLetter.objects.using(using).filter(**wanted).order_by("pk")

    def _refuse_unknown_ids(self, found: Sequence[QuerySet[DeadLetter]]) -> None:
        known = {pk for rows in found for pk in rows.values_list("pk", flat=True)}
        if unknown := [pk for pk in dict.fromkeys(self.ids) if pk not in known]:
            there = "are no dead letters" if len(unknown) > 1 else "is no dead letter"
            others = " that matches the other options" if self.model or self.receiver or self.stream else ""
            raise ConfigurationError(f"There {there} {', '.join(map(str, unknown))}{others}.")

    def _refuse_unknown_model(self) -> None:
        """Refuse a model that neither an app nor a letter has: a model that is gone may have left letters behind."""
        label = str(self.model)
        known = {model._meta.label for model in apps.get_models(include_auto_created=True)}
        for using in self._databases():
            known.update(DeadLetter.objects.using(using).values_list("model", flat=True).distinct().order_by())
        if label.lower() not in {name.lower() for name in known}:
            raise ConfigurationError(f"There is no model {label!r}{suggest(label, tuple(known - {''}))}")


def replay(found: QuerySet[DeadLetter]) -> Iterator[Result]:
    """Replay letters in order of id, each in a transaction of its own; yield each result as it comes.

    Raises `ConnectionLost` where the database goes away, with the letters before done and the rest as they were.
    """
    using = found.db
    if connections[using].in_atomic_block and not _is_in_test_case(using):
        raise ConfigurationError("A replay commits transactions of its own: it can't run inside transaction.atomic().")
    for pk in list(found.order_by("pk").values_list("pk", flat=True)):
        yield _replay_one(pk, using)


def discard(found: QuerySet[DeadLetter]) -> int:
    """Delete letters for ever, but for those that are being replayed; return how many."""
    using = found.db
    with transaction.atomic(using=using):
        rows = DeadLetter.objects.using(using)
        free = rows.filter(pk__in=list(found.values_list("pk", flat=True))).select_for_update(skip_locked=True)
        deleted, _ = rows.filter(pk__in=[letter.pk for letter in free]).delete()
    return deleted


def _replay_one(pk: int, using: str) -> Result:
    try:
        with batch_transaction(using):
            letter = _take(pk, using)
            if letter is None:
                return _absent(pk, using)
            sent, target = _resolve(letter)
            if target is not None:
                call_with_savepoint(sent, target, using)
                enforce_constraints(using)
            letter.delete()
            reason = "" if target else "its receiver's filters no longer let this pass, so that it was not called"
    except ReceiverError as exc:
        return _keep(pk, using, exc)
    except (ConfigurationError, DeliveryError) as exc:
        return Result(pk, Outcome.REFUSED, str(exc))
    return Result(pk, Outcome.REPLAYED, reason)


def _take(pk: int, using: str) -> DeadLetter | None:
    """Lock a letter for this transaction; None where it is gone or locked."""
    return DeadLetter.objects.using(using).select_for_update(skip_locked=True).filter(pk=pk).first()


def _absent(pk: int, using: str) -> Result:
    is_there = DeadLetter.objects.using(using).filter(pk=pk).exists()
    return Result(pk, Outcome.BUSY if is_there else Outcome.GONE)


def _keep(pk: int, using: str, exc: ReceiverError) -> Result:
    """Write down the failure, in a transaction of its own: the receiver's was rolled back."""
    described = letters.describe_error(exc)
    with transaction.atomic(using=using, durable=True):
        letter = _take(pk, using)
        if letter is not None:
            rows = DeadLetter.objects.using(using).filter(pk=pk)
            rows.update(attempts=F("attempts") + 1, last_failed_at=timezone.now(), **described)
    return Result(pk, Outcome.FAILED, described["error"].partition("\n")[0])


def _resolve(letter: DeadLetter) -> tuple[letters.Sent, Target | None]:
    """Make the change again, and find its receiver; None for one whose filters no longer let the change pass.

    Raises `ConfigurationError` for a stream or a model that is gone, for a receiver that is no longer connected, and
    for a letter that today's code can't read.
    """
    config = get_stream(letter.stream)
    try:
        sent = letters.revive(letter, config)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ConfigurationError(f"Its payload can't be read: {type(exc).__name__}: {exc}.") from exc
    paths, targets = _receivers_of(sent, config)
    path, _, number = letter.receiver.partition("#")
    if paths.count(path) < int(number or 1):
        raise ConfigurationError(
            f"Receiver {letter.receiver} is no longer connected to {letter.model or 'wal_message'}. Connect it again, "
            "under this path, or discard the letter."
        )
    named = {letters.receiver_name(target, targets): target for target in targets}
    return sent, named.get(letter.receiver)


def _receivers_of(sent: letters.Sent, config: StreamConfig) -> tuple[list[str], Sequence[Target]]:
    """List the paths of all that are connected, and those receivers that want just this."""
    connection = connections[config.database]
    if isinstance(sent, WalChange):
        plan: Any = sent.binding
        router = Router(config, TableRegistry({plan.relation.relation_id: sent.model}, {}, {}), connection)
        router.add(plan.relation)
        connected = post_wal_change.receivers_for(sent.model, config.alias)
        targets = router.route(plan.relation.relation_id).targets[sent.operation]
        wanting = [target for target in targets if target.wants(*sent.rows)]
        return [receiver.path for receiver in connected], wanting
    router = Router(config, TableRegistry({}, {}, {}), connection)
    if isinstance(sent, WalTruncate):
        connected = post_wal_truncate.receivers_for(sent.model, config.alias)
        return [receiver.path for receiver in connected], router.truncate_targets(sent.model)
    connected = wal_message.receivers_for(None, config.alias)
    return [receiver.path for receiver in connected], router.message_targets()


def _is_in_test_case(using: str) -> bool:
    """Say whether the only atomic blocks around are those of Django's ``TestCase``, which count as none."""
    return all(getattr(block, "_from_testcase", False) for block in connections[using].atomic_blocks)

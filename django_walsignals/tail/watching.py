"""A consumer whose only receiver is a printer: the application's own are on signals that it does not know.

It runs on a temporary slot, and where the models need it on a publication of its own. When the connection goes, the
slot is gone, and what is committed until another one is made can't be had: so it ends then, and says so, rather than
go on as if nothing were missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from django.db import InterfaceError, OperationalError, models

from django_walsignals.changes import Operation, WalChange, WalTruncate
from django_walsignals.conf import suggest
from django_walsignals.delivery.routing import ReceivedMessage, Signals
from django_walsignals.delivery.shutdown import StopRequest
from django_walsignals.delivery.supervisor import Orders, Supervisor
from django_walsignals.exceptions import ConnectionLost
from django_walsignals.provisioning.ddl import Report, announce_wait
from django_walsignals.provisioning.temporary import temporary_publication
from django_walsignals.replication.catalogue import Server
from django_walsignals.signals import HANDLER, WalSignal
from django_walsignals.tail.choosing import UsageError, Watched

TRUNCATE: Final = "truncate"
OPERATIONS: Final = (*map(str, Operation), TRUNCATE)


class Printer(Protocol):
    """What is called with each thing that happened."""

    def change(self, change: WalChange[Any]) -> None:
        """Show a change."""
        ...

    def truncate(self, truncate: WalTruncate) -> None:
        """Show a truncate."""
        ...

    def message(self, message: ReceivedMessage) -> None:
        """Show a message."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown: operations (of `OPERATIONS`), fields by name (empty: all), messages, and how many at most."""

    operations: Collection[str] = OPERATIONS
    fields: Collection[str] = ()
    messages: bool = False
    most: int | None = None


def attnames(wanted: Iterable[type[models.Model]], fields: Collection[str]) -> frozenset[str]:
    """Resolve names of fields to attnames; raise `UsageError` for one that none of the models has a column for."""
    of_names = {
        name: field.attname
        for model in wanted
        for field in model._meta.local_concrete_fields
        for name in (field.attname, field.name)
    }
    for name in fields:
        if name not in of_names:
            raise UsageError(f"None of these models has a column for a field {name!r}{suggest(name, of_names)}")
    return frozenset(of_names[name] for name in fields)


def private_signals(wanted: Iterable[type[models.Model]], wish: Wish, printer: Printer) -> Signals:
    """Make signals that know the printer alone, each model with those of the fields that it has.

    A model that has none of them is not shown.
    """
    signals = Signals(WalSignal(), WalSignal(), WalSignal())
    operations: Any = [name for name in wish.operations if name != TRUNCATE]
    asked = attnames(wanted, wish.fields)
    for model in wanted:
        fields = {field.attname for field in model._meta.local_concrete_fields} & asked if asked else None
        if fields is None or fields:
            filters = {"operations": operations, "fields": fields}
            signals.change.connect(_receiver(printer.change), sender=model, weak=False, **filters)
            if TRUNCATE in wish.operations:
                signals.truncate.connect(_receiver(printer.truncate), sender=model, weak=False)
    if wish.messages:
        signals.message.connect(_receiver(printer.message), weak=False)
    return signals


def watch(
    watched: Watched, server: Server, stop: StopRequest, signals: Signals, *, most: int | None, report: Report
) -> None:
    """Show changes until stopped, or until so many are shown; ``report`` is called with what else there is to say.

    Raises `ConnectionLost` when the connection goes.
    """
    config = watched.config
    publisher = partial(temporary_publication, config, server, report) if watched.is_temporary else None
    orders = Orders(max_changes=most, publisher=publisher)
    until_it_streams = ExitStack()
    has_streamed = False

    def started(line: str) -> None:
        nonlocal has_streamed
        has_streamed = True
        until_it_streams.close()
        report(f"{_headline(watched)}, from {line.rpartition(' ')[2]} on; Ctrl-C ends")

    supervisor = Supervisor(config, stop, orders, report=started, signals=signals)
    with until_it_streams:
        until_it_streams.enter_context(announce_wait(config.database, report))
        try:
            supervisor.run()
        except (ConnectionLost, OperationalError, InterfaceError) as exc:
            if not has_streamed:
                raise
            text = " ".join(str(exc).split()).rstrip(".")
            raise ConnectionLost(
                f"{text}. The temporary slot ended with it: what is committed until you start again is not shown."
            ) from exc


def _headline(watched: Watched) -> str:
    """Say what is looked at."""
    names = [model._meta.label for model in watched.models]
    some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    way = "a temporary publication" if watched.is_temporary else f"publication {watched.config.publication}"
    return f"watching {some} of database {watched.config.database} through {way}"


def _receiver(show: Callable[[Any], None]) -> Callable[..., None]:
    """Make a receiver that is called with what happened, and nothing else: no instance is built for it."""

    def receive(**kwargs: Any) -> None:
        raise AssertionError("its handler is called instead")

    setattr(receive, HANDLER, show)
    return receive

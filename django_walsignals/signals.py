"""The signals, and the filters that a receiver is connected with.

`WalSignal` is Django's ``ModelSignal`` (senders may be ``"shop.Order"``) whose ``connect`` also takes filters. The
consumer asks `receivers_for` once a table, and calls what it gets; a filter by operation or field is judged on
undecoded values, and ``when`` last.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from django.apps.registry import Apps
from django.db.models import Model
from django.db.models.options import Options
from django.db.models.signals import ModelSignal
from django.db.models.utils import make_model_tuple

from django_walsignals.changes import Operation, WalChange

Receiver = Callable[..., Any]
Condition = Callable[[WalChange[Any]], bool]
OperationName = Operation | Literal["insert", "update", "delete"]

#: The attribute by which `receivers` marks a receiver whose handler takes the change alone.
HANDLER: Final = "wal_change_handler"

_ALL_OPERATIONS: Final = frozenset(Operation)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a receiver wants to hear of. ``fields`` holds names as written; None means any."""

    operations: frozenset[Operation] = _ALL_OPERATIONS
    fields: frozenset[str] | None = None
    when: Condition | None = None
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """A connected receiver, or a weak reference to it, and what it wants to hear of."""

    reference: Receiver | weakref.ReferenceType[Receiver]
    filter: Filter
    is_async: bool
    #: The proxy model that it was connected to, where it was one: its table's model sends the changes all the same.
    proxy: type[Model] | None = None

    @property
    def receiver(self) -> Receiver | None:
        """The receiver; None where it was held weakly and is gone."""
        return self.reference() if isinstance(self.reference, weakref.ReferenceType) else self.reference

    @property
    def handler(self) -> Receiver | None:
        """The function that takes a change alone, where the receiver was made by ``on_change`` and its kin."""
        return getattr(self.reference, HANDLER, None)

    @property
    def path(self) -> str:
        """The receiver's dotted path, for messages."""
        function = self.handler or self.receiver
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', '?')}.{name}"


class WalSignal(ModelSignal):
    """A signal sent by ``walconsume``; used as any of Django's model signals."""

    def __init__(self) -> None:
        super().__init__()
        self._filters: dict[Any, Filter] = {}
        self._proxies: dict[Any, type[Model]] = {}
        #: Grows with every `connect` and `disconnect`, so that a compiled list of receivers can tell its age.
        self.generation = 0

    def connect(  # type: ignore[override]
        self,
        receiver: Receiver,
        sender: type[Model] | str | None = None,
        weak: bool = True,
        dispatch_uid: str | None = None,
        apps: Apps | None = None,
        *,
        operations: Iterable[OperationName] | None = None,
        fields: Iterable[str] | None = None,
        when: Condition | None = None,
        stream: str | None = None,
    ) -> None:
        """Connect a receiver, as ``Signal.connect``; the filters narrow what it hears of.

        ``operations``: any of "insert", "update", "delete". ``fields``: only updates in which one of them differs
        (inserts and deletes pass). ``when``: called with the change, last of all. ``stream``: a stream's alias.

        Raises ``ValueError`` for an unknown operation or field, and for a receiver that is already connected to this
        sender with other filters (give each a ``dispatch_uid``).
        """
        wanted = Filter(_operations(operations), _names(fields), when, stream)
        action = partial(self._connect, receiver, weak=weak, dispatch_uid=dispatch_uid, wanted=wanted)
        _with_model(action, sender, apps)

    def disconnect(  # type: ignore[override]
        self,
        receiver: Receiver | None = None,
        sender: type[Model] | str | None = None,
        dispatch_uid: str | None = None,
        apps: Apps | None = None,
    ) -> bool | None:
        """Disconnect a receiver, as ``Signal.disconnect``; None where the sender's model is yet to be loaded."""
        done: list[bool] = []
        _with_model(lambda model: done.append(self._disconnect(receiver, model, dispatch_uid)), sender, apps)
        return done[0] if done else None

    def receivers_for(self, sender: type[Model] | None, stream: str) -> tuple[Connected, ...]:
        """List the live receivers of a sender in a stream, in the order in which they were connected."""
        wanted = (id(None), id(sender))
        return tuple(connected for key, connected in self._live(stream) if key[1] in wanted)

    def senders(self, models: Iterable[type[Model]], stream: str) -> tuple[type[Model], ...]:
        """Pick the models that a receiver of this stream names as its sender."""
        named = {key[1] for key, _ in self._live(stream)}
        return tuple(model for model in models if id(model) in named)

    def connections(self, models: Iterable[type[Model]]) -> Iterator[tuple[type[Model] | None, Connected]]:
        """Walk all connections to these models, and those to every model, whose sender is then None."""
        by_id: dict[int, type[Model] | None] = {id(model): model for model in models} | {id(None): None}
        return ((by_id[key[1]], connected) for key, connected in self._live() if key[1] in by_id)

    def _live(self, stream: str | None = None) -> Iterator[tuple[Any, Connected]]:
        """Walk the connections whose receiver is alive, of one stream or of all; Django's list is read, not copied."""
        with self.lock:
            entries = list(self.receivers)
        for entry in entries:
            key, reference, is_async = entry[0], entry[1], entry[-1]
            wanted, proxy = self._filters.get(key, Filter()), self._proxies.get(key)
            connected = Connected(reference, wanted, bool(is_async), proxy)
            if connected.receiver is not None and (stream is None or connected.filter.stream in (None, stream)):
                yield key, connected

    def _connect(
        self, receiver: Receiver, sender: type[Model] | None, *, weak: bool, dispatch_uid: str | None, wanted: Filter
    ) -> None:
        proxy, sender = sender, _concrete(sender)
        _refuse_unknown_fields(sender, wanted.fields)
        key = _lookup_key(receiver, sender, dispatch_uid)
        if any(live == key and connected.filter != wanted for live, connected in self._live()):
            raise ValueError(
                f"{Connected(receiver, wanted, False).path} is already connected to this sender with other filters; "
                "give each connection a dispatch_uid of its own"
            )
        self.generation += 1
        self._filters[key] = wanted
        self._proxies.pop(key, None)
        if proxy is not None and proxy is not sender:
            self._proxies[key] = proxy
        super(ModelSignal, self).connect(receiver, sender, weak, dispatch_uid)

    def _disconnect(self, receiver: Receiver | None, sender: type[Model] | None, dispatch_uid: str | None) -> bool:
        sender = _concrete(sender)
        self.generation += 1
        key = _lookup_key(receiver, sender, dispatch_uid)
        self._filters.pop(key, None)
        self._proxies.pop(key, None)
        return bool(super(ModelSignal, self).disconnect(receiver, sender, dispatch_uid))


def _with_model(
    action: Callable[[type[Model] | None], None], sender: type[Model] | str | None, apps: Apps | None
) -> None:
    """Run an action on a sender, or as soon as the sender's model is loaded, as ``ModelSignal`` does."""
    if isinstance(sender, str):
        registry = apps or Options.default_apps
        registry.lazy_model_operation(action, make_model_tuple(sender))
    else:
        action(sender)


def _concrete(sender: type[Model] | None) -> type[Model] | None:
    """Resolve a proxy, which has no rows of its own, to the model of its table, which sends its changes."""
    return None if sender is None else sender._meta.concrete_model or sender


def _lookup_key(receiver: Any, sender: Any, dispatch_uid: str | None) -> tuple[Any, int]:
    """Name a connection as ``django.dispatch`` does, so that filters can be kept beside its list."""
    if dispatch_uid:
        return dispatch_uid, id(sender)
    if hasattr(receiver, "__func__"):
        return (id(receiver.__self__), id(receiver.__func__)), id(sender)
    return id(receiver), id(sender)


def _operations(names: Iterable[OperationName] | None) -> frozenset[Operation]:
    if names is None:
        return _ALL_OPERATIONS
    if isinstance(names, str):
        raise ValueError(f"operations takes a list, such as [{names!r}]")
    wanted = list(names)
    if unknown := [name for name in wanted if name not in tuple(Operation)]:
        raise ValueError(f"unknown operation {unknown[0]!r}; operations= may name {', '.join(Operation)}")
    return frozenset(Operation(name) for name in wanted)


def _names(fields: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(fields, str):
        raise ValueError(f"fields takes a list, such as [{fields!r}]")
    return None if fields is None else frozenset(fields)


def _refuse_unknown_fields(sender: type[Model] | None, fields: frozenset[str] | None) -> None:
    if sender is None or fields is None:
        return
    known = {name for field in sender._meta.local_concrete_fields for name in (field.name, field.attname)}
    known.add("pk")
    if unknown := fields - known:
        raise ValueError(
            f"{sender._meta.label} has no column of its own for {', '.join(sorted(unknown))}; "
            f"fields= may name {', '.join(sorted(known))}"
        )


#: A row was inserted, updated or deleted. Sent with ``instance``, ``change`` (`WalChange`) and ``using``.
post_wal_change = WalSignal()

#: A table was emptied by TRUNCATE. Sent with ``truncate`` (`WalTruncate`) and ``using``.
post_wal_truncate = WalSignal()

#: Changes between two positions are missing, and somebody chose to go on (``walconsume --accept-gap``): a receiver
#: may resynchronise what it keeps. Sent with ``stream``, ``from_lsn`` (up to which everything was delivered),
#: ``to_lsn`` (from which everything will be; where the first is of another server the two can't be compared) and
#: ``reason``. The sender is None. It runs in the transaction that moves the checkpoint.
wal_gap = WalSignal()

#: ``pg_logical_emit_message`` was called. Sent with ``prefix``, ``content`` (bytes) and ``transaction`` (None for a
#: message that is not transactional); the sender is None.
wal_message = WalSignal()

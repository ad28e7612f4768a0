"""Typed sugar over `post_wal_change`: decorators whose handler takes the change alone.

    @on_update(Order, fields=["status"], when=lambda change: change.instance.total > 100)
    def shipped(change: WalChange[Order]) -> None: ...

The handler stays as it is (call it in a unit test), may be ``async def``, and is held strongly: a handler defined
inside a function is not lost to garbage collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction
from django.db.models import Model

from django_walsignals.changes import M, Operation, WalChange
from django_walsignals.signals import HANDLER, OperationName, post_wal_change

#: A handler, handed back as it came.
H = TypeVar("H", bound=Callable[[WalChange[Any]], Any])

#: What a handler returns.
R = TypeVar("R")


@overload
def on_change(
    model: type[M],
    *,
    operations: Iterable[OperationName] | None = None,
    fields: Iterable[str] | None = None,
    when: Callable[[WalChange[M]], bool] | None = None,
    stream: str | None = None,
    dispatch_uid: str | None = None,
) -> Callable[[Callable[[WalChange[M]], R]], Callable[[WalChange[M]], R]]: ...


@overload
def on_change(
    model: str | None,
    *,
    operations: Iterable[OperationName] | None = None,
    fields: Iterable[str] | None = None,
    when: Callable[[WalChange[Any]], bool] | None = None,
    stream: str | None = None,
    dispatch_uid: str | None = None,
) -> Callable[[H], H]: ...


def on_change(
    model: type[Model] | str | None,
    *,
    operations: Iterable[OperationName] | None = None,
    fields: Iterable[str] | None = None,
    when: Callable[[WalChange[Any]], bool] | None = None,
    stream: str | None = None,
    dispatch_uid: str | None = None,
) -> Callable[..., Any]:
    """Connect a handler to changes of a model; the filters are those of ``post_wal_change.connect``."""

    def decorate(handler: Callable[[WalChange[Any]], Any]) -> Callable[[WalChange[Any]], Any]:
        post_wal_change.connect(
            _as_receiver(handler),
            sender=model,
            weak=False,
            dispatch_uid=dispatch_uid,
            operations=operations,
            fields=fields,
            when=when,
            stream=stream,
        )
        return handler

    return decorate


class _OnOperation:
    """`on_change` bound to one operation."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    @overload
    def __call__(
        self,
        model: type[M],
        *,
        fields: Iterable[str] | None = None,
        when: Callable[[WalChange[M]], bool] | None = None,
        stream: str | None = None,
        dispatch_uid: str | None = None,
    ) -> Callable[[Callable[[WalChange[M]], R]], Callable[[WalChange[M]], R]]: ...

    @overload
    def __call__(
        self,
        model: str | None,
        *,
        fields: Iterable[str] | None = None,
        when: Callable[[WalChange[Any]], bool] | None = None,
        stream: str | None = None,
        dispatch_uid: str | None = None,
    ) -> Callable[[H], H]: ...

    def __call__(self, model: Any, **filters: Any) -> Callable[..., Any]:
        """Connect a handler to this operation on a model; the filters are those of ``post_wal_change.connect``."""
        return on_change(model, operations=[self.operation], **filters)


on_insert = _OnOperation(Operation.INSERT)
on_update = _OnOperation(Operation.UPDATE)
on_delete = _OnOperation(Operation.DELETE)


def _as_receiver(handler: Callable[[WalChange[Any]], Any]) -> Callable[..., Any]:
    """Give a handler the signature of a signal's receiver, and mark it so that the consumer may skip that detour."""
    if iscoroutinefunction(handler):

        async def receive_async(*, change: WalChange[Any], **kwargs: Any) -> None:
            await handler(change)

        receiver: Callable[..., Any] = receive_async
    else:

        def receive(*, change: WalChange[Any], **kwargs: Any) -> None:
            handler(change)

        receiver = receive
    setattr(receiver, HANDLER, handler)
    return receiver

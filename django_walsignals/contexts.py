"""Who did it: metadata that the application puts on the changes of a block, a function or a request.

It is held in a context variable, so each thread and each asyncio task has its own, and `sync_to_async` takes it along.
What is written of it to the database, and when, is ``emission``'s business; nothing here talks to one.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar, cast

from django_walsignals.metadata import encode_value, join

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

#: A value as JSON, or the function that gives it when it is needed.
Part: TypeAlias = str | Callable[[], Any]


class Frame:
    """What holds inside of a block: its own metadata over that of the blocks around it. Immutable."""

    __slots__ = ("_text", "outer", "owner", "parts")

    def __init__(self, owner: context, outer: Frame | None, parts: Mapping[str, Part]) -> None:
        self.owner = owner
        self.outer = outer
        self.parts: Mapping[str, Part] = parts if outer is None else {**outer.parts, **parts}
        text = join(self._fixed)
        self._text = text if len(self._fixed) == len(self.parts) else None

    def text(self) -> str:
        """Write all of it as one message; a function that fails leaves its key out, and an error in the log."""
        if self._text is not None:
            return self._text
        values = {key: _evaluated(key, part) for key, part in self.parts.items()}
        try:
            return join({key: value for key, value in values.items() if value is not None})
        except ValueError:
            logger.exception("The functions given to context() are left out of it")
            return join(self._fixed)

    @property
    def _fixed(self) -> dict[str, str]:
        return {key: part for key, part in self.parts.items() if isinstance(part, str)}


#: The innermost block that this code runs in.
ACTIVE: Final[ContextVar[Frame | None]] = ContextVar("django_walsignals.context", default=None)


class context:  # noqa: N801  # it is used as a function is
    """Put metadata on every change made inside, where receivers find it as ``change.transaction.context``.

    >>> with context(reason="import", file=path.name):
    ...     Order.objects.bulk_create(orders)

    Also ``async with``, and a decorator of functions, plain or ``async``. Blocks nest: an inner one adds to the outer
    one's metadata, or replaces what has the same name, until it ends. Each thread and each asyncio task has its own.

    Values are what ``DjangoJSONEncoder`` can write, and are read back as JSON has them: a UUID or a date as a string.
    They are written down here and now: changing a list afterwards changes nothing. A function without parameters is
    called later, before each statement that writes, so let it be quick; if it fails, that is logged, and its key left
    out.

    Raises ``TypeError`` for a value that JSON has no form for, and ``ValueError`` for more than 16 kB in all.
    """

    def __init__(self, /, **metadata: Any) -> None:
        self._parts: dict[str, Part] = {
            key: value if callable(value) else encode_value(key, value) for key, value in metadata.items()
        }
        self._outermost = Frame(self, None, self._parts)  # raises for what is too large by itself

    @staticmethod
    def current() -> dict[str, Any]:
        """Give the metadata that holds here, as a receiver will get it: to hand it on to a task queue, or to a log."""
        frame = ACTIVE.get()
        return {} if frame is None else cast("dict[str, Any]", json.loads(frame.text()))

    def __enter__(self) -> Self:
        outer = ACTIVE.get()
        ACTIVE.set(self._outermost if outer is None else Frame(self, outer, self._parts))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block; a generator or task may end it elsewhere than it began, where there is nothing to end."""
        frame = ACTIVE.get()
        while frame is not None and frame.owner is not self:
            frame = frame.outer
        if frame is not None:
            ACTIVE.set(frame.outer)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each of its calls is a block."""
        _refuse_undecoratable(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def in_block_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self:
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", in_block_async)

        @functools.wraps(function)
        def in_block(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return in_block


def _refuse_undecoratable(function: Callable[..., Any]) -> None:
    """Refuse what would run after the decorated call has ended."""
    name = getattr(function, "__qualname__", repr(function))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator, which runs after its call: write `with context(…):` inside of it")
    if inspect.isclass(function):
        raise TypeError(f"{name} is a class: decorate its methods (Django has method_decorator for views)")


def _evaluated(key: str, part: Part) -> str | None:
    if isinstance(part, str):
        return part
    try:
        return encode_value(key, part())
    except Exception:
        logger.exception("context(%s=…): the function that was given fails; changes are made without it", key)
        return None

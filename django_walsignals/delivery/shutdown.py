"""Stop on a signal: the first SIGINT or SIGTERM lets the batch in hand finish, the second stops at once.

A Python signal handler runs between byte codes, and a waiting ``poll`` goes on afterwards: the wake-up descriptor
ends it.
https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

logger = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether someone wants the consumer to stop. A context manager: the old handlers are always restored.

    Outside the main thread, where Python allows no handlers, it installs none; `request` works all the same.
    """

    def __init__(self) -> None:
        self.requested = False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._old_handlers: dict[int, Any] = {}
        self._old_wakeup = -1
        self._signals = itertools.count()
        self._is_at_once = False

    def fileno(self) -> int:
        """Name the descriptor that becomes readable when a signal comes."""
        return self._reading

    def drain(self) -> None:
        """Take the wake-ups out of the descriptor: a signal that is none of ours wrote one too."""
        with suppress(BlockingIOError):
            while os.read(self._reading, 4096):
                pass

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the first signal raise ``KeyboardInterrupt`` inside: there is no batch in hand that could be finished."""
        self._is_at_once = True
        try:
            yield
        finally:
            self._is_at_once = False

    def request(self) -> None:
        """Ask for a graceful stop."""
        self.requested = True
        os.write(self._writing, b"\0")

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._old_wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            self._old_handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        if self._old_handlers:
            signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # One call, which no other signal's handler can come between: two at once are a first and a second one.
        if next(self._signals):
            raise KeyboardInterrupt(f"second {signal.Signals(number).name}")
        self.requested = True
        if self._is_at_once:
            raise KeyboardInterrupt(signal.Signals(number).name)
        logger.info("%s: stopping after the batch in hand; once more to stop at once", signal.Signals(number).name)

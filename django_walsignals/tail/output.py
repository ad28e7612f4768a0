"""Where the lines go: each at once, and quietly nowhere when their reader has gone (``| head -1``)."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Output:
    """A text stream whose reader may go: ``on_end`` is called then, once, and what comes later is thrown away."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._has_ended = False
        self._lock = threading.Lock()
        self._watch()

    def write(self, text: str) -> None:
        """Write whole lines, and what the stream's encoding has no characters for as escapes."""
        if self._has_ended:
            return
        try:
            self._stream.write(text.encode(self._encoding, "backslashreplace").decode(self._encoding))
            self._stream.flush()
        except BrokenPipeError:
            self._end()

    def close(self) -> None:
        """Be done: the stream stays open, and its reader's end is nobody's business any more."""
        with self._lock:
            self._has_ended = True

    def _watch(self) -> None:
        """Look out for the reader's end in a thread, so that it is noticed while nothing is written."""
        with suppress(AttributeError, OSError, ValueError):  # such as a test's StringIO: nobody can go
            descriptor = self._stream.fileno()
            threading.Thread(target=self._wait_for_end, args=(descriptor,), name="waltail-reader", daemon=True).start()

    def _wait_for_end(self, descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # an error or a hang-up is reported all the same
        poll.poll()
        self._end()

    def _end(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
        self._discard()
        self._on_end()

    def _discard(self) -> None:
        """Let Python's own flush at exit go nowhere, where it would fail and change the exit code."""
        with suppress(AttributeError, OSError, ValueError):
            if self._stream.fileno() == sys.__stdout__.fileno():  # type: ignore[union-attr]
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

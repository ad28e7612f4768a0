"""The pipe on which the consumer's processes tell the demo what they received; `shop/feed.py` is its other end."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class SeenChange:
    """A change as a receiver in another process saw it."""

    id: str
    model: str
    pk: Any
    operation: str
    diff: dict[str, list[Any]]
    latency: float
    """Seconds from the commit to the receiver."""


class Feed:
    """A pipe with a thread that reads it; leaving the block waits until all that was written has been read."""

    def __init__(self, *watchers: Callable[[SeenChange], None]) -> None:
        self._watchers = watchers
        self._read_end, self._write_end = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def path(self) -> str:
        """How a process that was given `fds` opens the pipe."""
        return f"/dev/fd/{self._write_end}"

    @property
    def fds(self) -> tuple[int, ...]:
        """What a process must inherit."""
        return (self._write_end,)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write_end)
        self._reader.join()

    def _read(self) -> None:
        with os.fdopen(self._read_end) as lines:
            for line in lines:
                self._tell(SeenChange(**json.loads(line)))

    def _tell(self, change: SeenChange) -> None:
        for watch in self._watchers:
            watch(change)

"""How long to wait before trying again.

The waits themselves are the caller's: they end early on a signal or when a connection dies, which a retry library's
sleep can't do. Randomness is an argument, so that no test depends on luck.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: between half and all of a time that doubles, up to a cap; in seconds."""

    first: float
    cap: float
    chance: Callable[[], float] = random.random

    def wait_after(self, failures: int) -> float:
        """Say how long to wait after so many failures in a row, counted from 1."""
        # The exponent is bounded so that a stream that fails for a year does not overflow a float.
        full = min(self.cap, self.first * 2.0 ** min(failures - 1, 60))
        return full * (1 + self.chance()) / 2

"""Waiting on conditions with a deadline: the only place in the tests that may sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02
DEADLINE_SECONDS = 15.0
"""Generous: a loaded machine must not fail a test, and a passing test never waits for it."""


def wait_until(
    condition: Callable[[], T],
    *,
    timeout: float = DEADLINE_SECONDS,
    message: str | Callable[[], str] = "the condition did not come true",
) -> T:
    """Return the first true value of `condition()`; fail the test at the deadline, saying `message`."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            said = message if isinstance(message, str) else message()
            raise AssertionError(f"{said} (after {timeout:g} s; last seen: {value!r})")
        time.sleep(POLL_SECONDS)

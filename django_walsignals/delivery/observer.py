"""What a consumer tells whoever watches it: nothing a change, and nothing at all by default.

Everything is called from the consumer's own thread, between its stages: an observer is to be quick and must not
raise. `django_walsignals.metrics` counts what it is told; the seam knows nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

Send = Callable[[Any], Any]


class Observer:
    """One who watches a consumer, and here does not care; override what is of interest."""

    def session_started(self) -> None:
        """Hear that the stream has started."""

    def standing_by(self) -> None:
        """Hear that another consumer has the slot."""

    def outage(self) -> None:
        """Hear that a session ended, or could not be opened, in a way that waiting may mend."""

    def working(self) -> None:
        """Hear that the consumer takes in and delivers what there is."""

    def waiting(self) -> None:
        """Hear that the consumer waits until there is something to do."""

    def pausing(self, seconds: float) -> None:
        """Hear that the consumer waits so long before a receiver's next attempt."""

    def batch_delivered(self, events: Sequence[tuple[Any, Any]], seconds: float) -> None:
        """Hear of a batch that is committed: pairs of what was sent and whom to, and how long it took.

        Of one that was interrupted these are the changes done.
        """

    def batch_rolled_back(self) -> None:
        """Hear that a batch failed, and is taken again one change at a time."""

    def receiver_failed(self, receiver: str) -> None:
        """Hear that a call of a receiver raised; it may well be tried again."""

    def dead_letters_written(self, receivers: Sequence[str]) -> None:
        """Hear of dead letters that are committed, by their receivers."""

    def watched(self, send: Send, receiver: str) -> Send:
        """Give the function that calls a receiver, or one around it; asked when routes are compiled."""
        return send


#: Watches nothing, at no cost.
NOBODY: Final = Observer()

"""How far behind a stream may be, as a probe is told, and what it has to say of one that is over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from django_walsignals.status.stream import StreamStatus
from django_walsignals.status.units import show_bytes, show_seconds

#: Units of time are lower case, so that ``10M`` is not ten minutes by mistake.
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", re.ASCII)


class Limit(NamedTuple):
    """A limit in bytes of log, or in seconds."""

    kind: Literal["bytes", "seconds"]
    value: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``10MB``, ``64KiB``, ``30s`` or ``1h``; raise ``ValueError`` for another text."""
        match = _QUANTITY.fullmatch(text.strip())
        number, unit = match.groups() if match else ("", "")
        if unit in _SECONDS:
            return cls("seconds", float(number) * _SECONDS[unit], text)
        if unit.lower() in _BYTES:
            return cls("bytes", float(number) * _BYTES[unit.lower()], text)
        raise ValueError(f"{text!r} is neither a size such as 10MB or 64KiB nor a time such as 30s, 5min or 1h")

    def complaint(self, status: StreamStatus) -> str:
        """Say how far a stream is over; empty where it is not. A lag that can't be known is over."""
        of_bytes = self.kind == "bytes"
        lag = status.lag_bytes if of_bytes else status.lag_seconds
        if lag is None:
            return f"its lag in {self.kind} can't be known"
        shown = f"{show_bytes(lag)} of log" if of_bytes else show_seconds(lag)
        return f"{shown} behind, over {self.text}" if lag > self.value else ""


def complaints(statuses: Iterable[StreamStatus], limits: Sequence[Limit]) -> Iterator[str]:
    """Say which streams are over a limit, or can't come up to date at all."""
    for status in statuses:
        if status.state.is_broken:
            yield f"{status.stream}: {status.state.words}: {status.problem}"
            continue
        found = [said for limit in limits if (said := limit.complaint(status))]
        if found:
            yield f"{status.stream} ({status.state.words}): {', '.join(found)}"

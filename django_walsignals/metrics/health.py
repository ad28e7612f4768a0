"""Whether a consumer is alive and ready, as Kubernetes asks.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/

Alive: restarting it would help nobody. It is not where one thing it does (a receiver's call, a statement of its own)
has gone on for too long; a server that is down, a slot that is another's, or a slot that takes its time to be made are
no reason. Ready: it streams, or stands by for who does. A standby that was not ready would hold up a rolling update,
in which the old consumer ends when the new one is ready.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from django_walsignals.metrics.recorder import Phase, Recorder

_READY: Final = frozenset({Phase.STREAMING, Phase.STANDING_BY})


class Verdict(NamedTuple):
    """An answer, and what to say with it."""

    is_good: bool
    report: dict[str, Any]


def judge_liveness(recorder: Recorder, stream: str, timeout: float) -> Verdict:
    """Say whether the consumer gets on, or has no need to."""
    seconds = recorder.seconds_without_progress()
    return _verdict(recorder, stream, seconds, "ok" if seconds <= timeout else "hung")


def judge_readiness(recorder: Recorder, stream: str) -> Verdict:
    """Say whether the consumer does its part."""
    return _verdict(recorder, stream, recorder.seconds_without_progress(), "ok" if _is_ready(recorder) else "not ready")


def _is_ready(recorder: Recorder) -> bool:
    return recorder.phase in _READY


def _verdict(recorder: Recorder, stream: str, seconds: float, status: str) -> Verdict:
    report = {
        "status": status,
        "stream": stream,
        "state": recorder.phase.value,
        "seconds_without_progress": round(seconds, 3),
    }
    return Verdict(status == "ok", report)

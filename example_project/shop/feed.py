"""Changes as lines of JSON, for a process that watches: the demo's screen. DEMO_FEED names where they go."""

import json
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from django.utils.timezone import now

from django_walsignals import WalChange

logger = logging.getLogger(__name__)


def publish(change: WalChange[Any]) -> None:
    """Log a change, and write it to DEMO_FEED if that is set."""
    logger.info("%s", change)
    if path := os.environ.get("DEMO_FEED"):
        with suppress(BrokenPipeError):  # nobody watches any more
            _open(path).write(json.dumps(_as_dict(change), default=str) + "\n")


@cache
def _open(path: str) -> TextIO:
    return Path(path).open("a", buffering=1)


def _as_dict(change: WalChange[Any]) -> dict[str, Any]:
    return {
        "id": change.id,
        "model": change.model._meta.label,
        "pk": change.pk,
        "operation": change.operation,
        "diff": {name: list(diff) for name, diff in change.diff.items()},
        "latency": (now() - change.transaction.committed_at).total_seconds(),
    }

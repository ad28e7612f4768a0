"""How each stream is doing: read when somebody asks, from the server's own views and the checkpoint's row.

Nothing in here writes, and nothing has to be written for it while a stream is idle. ``walstatus``, the admin and the
metrics all show what `read_status` says.
"""

from __future__ import annotations

from django_walsignals.status.reading import read_status, read_statuses
from django_walsignals.status.stream import State, StreamStatus

__all__ = ["State", "StreamStatus", "read_status", "read_statuses"]

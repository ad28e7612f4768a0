"""The admin: streams to look at, not to edit; dead letters to look into, replay and discard.

Nothing here needs JavaScript or CSS of its own, and whatever came from outside is escaped.
"""

from __future__ import annotations

try:
    from django_walsignals.admin.dead_letters import DeadLetterAdmin
    from django_walsignals.admin.streams import StreamAdmin
except ModuleNotFoundError as exc:
    if exc.name != "psycopg":
        raise  # else check E005 says it, which comes after this

__all__ = ["DeadLetterAdmin", "StreamAdmin"]

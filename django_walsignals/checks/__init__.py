"""System checks: each mistake has an id and a hint that names what mends it; `messages` lists them all.

E001 to E007 and W001 to W006 look at the settings and the receivers, and ask no database. The others look into a
stream's database, and run when one is named: ``check --database default``, ``migrate``, a test run; ``walconsume``
runs those that matter to it before it starts. The folder is read by both: `settings` and `receivers` are the first
kind; `facts` reads for the second, and `server`, `slot`, `setup` and `tables` judge.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, register

from django_walsignals.checks.receivers import receiver_problems
from django_walsignals.checks.settings import setting_problems, stream_problems
from django_walsignals.conf import problems

TAG: Final = "walsignals"


@register(TAG)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report every problem of the setting; look at the streams and receivers only where it has none."""
    return list(setting_problems()) or [*stream_problems(), *receiver_problems()]


@register(Tags.database)
def check_databases(
    app_configs: Sequence[AppConfig] | None, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report the problems of the streams whose database is named; none where the setting can't be read."""
    if not databases or any(True for _ in problems()):
        return []
    try:
        from django_walsignals.checks.database import database_problems
    except ModuleNotFoundError as exc:
        if exc.name != "psycopg":
            raise
        return []  # which the other check says
    return list(database_problems(databases))

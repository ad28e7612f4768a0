"""The app: system checks, each app's ``walsignals.py``, and who writes the context. Nothing here talks to a database."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class WalSignalsConfig(AppConfig):
    """Configuration of ``django_walsignals``."""

    name = "django_walsignals"
    label = "walsignals"
    verbose_name = _("WAL signals")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, see to connections and import every app's ``walsignals`` module."""
        from django_walsignals import checks  # noqa: F401  # its import registers

        connection_created.connect(have_context_written, dispatch_uid="django_walsignals.context")
        for connection in connections.all(initialized_only=True):
            have_context_written(connection=connection)  # if an app before us has connected already
        autodiscover_modules("walsignals")


def have_context_written(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Give a connection of psycopg 3 what writes the context. Where there is none, check E005 is to say so, not we."""
    if sys.modules.get("psycopg"):
        from django_walsignals.emission import install

        install(connection=connection)

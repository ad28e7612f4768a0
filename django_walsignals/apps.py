"""The app: system checks and the discovery of each app's ``walsignals.py``. Nothing here talks to a database."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class WalSignalsConfig(AppConfig):
    """Configuration of ``django_walsignals``."""

    name = "django_walsignals"
    label = "walsignals"
    verbose_name = _("WAL signals")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks and import every app's ``walsignals`` module."""
        from django_walsignals import checks  # noqa: F401  # its import registers

        autodiscover_modules("walsignals")

"""The ledger's configuration."""

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """No migrations: made by syncdb."""

    name = "tests.ledger"
    default_auto_field = "django.db.models.BigAutoField"

"""The test app's configuration."""

from django.apps import AppConfig


class TestAppConfig(AppConfig):
    """Models for tests: no migrations, made by syncdb."""

    name = "tests.testapp"
    label = "testapp"
    default_auto_field = "django.db.models.BigAutoField"

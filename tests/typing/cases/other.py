"""A second model, whose changes are not a note's."""

from django.db import models


class Other(models.Model):
    """Never made: only mypy reads this."""

    name = models.TextField()

    class Meta:
        app_label = "testapp"

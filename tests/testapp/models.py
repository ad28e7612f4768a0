"""The models that tests write to; the tables are made without migrations."""

from django.db import models


class Note(models.Model):
    """The simplest model there is."""

    text = models.TextField(default="")

    def __str__(self) -> str:
        return self.text

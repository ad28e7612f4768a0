"""What receivers leave behind, so that a test can count it."""

from django.db import models


class Effect(models.Model):
    """One call of a receiver. Nothing is unique: a repeat must show as a second row, not as an error."""

    change_id = models.CharField(max_length=64)
    operation = models.CharField(max_length=10, default="")
    note_id = models.BigIntegerField(null=True)
    text = models.TextField(default="")

    def __str__(self) -> str:
        return f"{self.change_id} {self.operation} {self.note_id}"

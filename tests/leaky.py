"""A receiver whose error holds a row's value, in words of its own or in those of a constraint."""

import os

from django.contrib.auth.models import Group

from django_walsignals import WalChange, on_change
from tests.testapp.models import Note


@on_change(Note)
def leak(change: WalChange[Note]) -> None:
    if os.environ.get("LEAK") == "constraint":
        for _ in range(2):
            Group.objects.create(name=change.instance.text)
    raise ValueError(f"no place for {change.instance.text}")

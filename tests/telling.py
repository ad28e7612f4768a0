"""Receivers that tell all they are given, by every means that a receiver has: print, log, raise.

For a consumer in a process of its own; tests that search for a secret connect `tell` themselves.
"""

import logging
import os
import sys
from typing import Any

from django.core.exceptions import FieldError, ObjectDoesNotExist

from django_walsignals import WalChange, on_change
from tests.binding.models import Keyless

logger = logging.getLogger("django_walsignals.told")


def told(change: WalChange[Any]) -> str:
    """Write down whatever can be read of a change."""
    members = {name: getattr(change, name) for name in dir(change) if not name.startswith("_")}
    instances = [instance for instance in (change.instance, change.old) if instance is not None]
    fields = [_read(instance, field.name) for instance in instances for field in instance._meta.concrete_fields]
    return f"{change} {change!r} {members} {[*map(vars, instances)]} {instances} {[*map(str, instances)]} {fields}"


def tell(change: WalChange[Any]) -> None:
    """Say it, log it, and raise with it."""
    text = told(change)
    sys.stdout.write(f"{text}\n")
    logger.info("%s", text)
    raise LookupError(text)


def _read(instance: Any, name: str) -> Any:
    try:
        return getattr(instance, name)
    except (FieldError, AttributeError, ObjectDoesNotExist) as exc:
        return exc


if os.environ.get("TEST_RECEIVERS") == __name__:
    on_change(Keyless)(tell)

"""Fields that the WAL does not hold: deferred on the instance, and not to be read from a later state of the row.

Django 6.1 and later can refuse to fetch a deferred field. Before that, reading one runs a query for today's value, as
for any deferred field: ``change.unknown_fields`` says which they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.db.models.query_utils import DeferredAttribute

if TYPE_CHECKING:
    FETCH_KNOWN: Any = None
else:
    try:
        from django.core.exceptions import FieldFetchBlocked
        from django.db.models.fetch_modes import FetchMode
    except ImportError:  # Django 5.2 and 6.0 have no fetch modes
        FETCH_KNOWN = None
    else:

        class FetchKnown(FetchMode):
            """Block a deferred field, as ``FETCH_RAISE`` does, but follow relations: those are other rows."""

            __slots__ = ()

            def fetch(self, fetcher: Any, instance: Model) -> None:
                """Fetch a related instance; raise ``FieldFetchBlocked`` for a field of this row."""
                if isinstance(fetcher, DeferredAttribute):
                    name = f"{type(instance).__qualname__}.{fetcher.field.attname}"
                    raise FieldFetchBlocked(f"{name} is unknown: the WAL does not hold it for this change.")
                fetcher.fetch_one(instance)

            def __reduce__(self) -> str:
                return "FETCH_KNOWN"

        FETCH_KNOWN = FetchKnown()


def block_deferred_fields(instance: Model) -> None:
    """Make reading a deferred field of this instance an error, where Django can."""
    if FETCH_KNOWN is not None:
        instance._state.fetch_mode = FETCH_KNOWN  # noqa: SLF001  # where Django's own from_db puts it

"""`LSNField`: a log sequence number in a model.

On PostgreSQL the column is a ``pg_lsn``, which orders as positions do; elsewhere it is text, so that a project with
several databases can migrate all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from django_walsignals.protocol.lsn import LSN

if TYPE_CHECKING:
    TypedField = models.Field[LSN | str, LSN]
else:  # Field takes no type arguments at run time
    TypedField = models.Field


class LSNField(TypedField):
    """A column that holds an `LSN`: https://www.postgresql.org/docs/current/datatype-pg-lsn.html."""

    description = _("Position in the write-ahead log")
    default_error_messages: ClassVar = {"invalid": _("“%(value)s” is not a position in the WAL such as 16/B374D848.")}

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        """Name the column's type."""
        return "pg_lsn" if connection.vendor == "postgresql" else "varchar(17)"

    def from_db_value(self, value: str | None, expression: Any, connection: BaseDatabaseWrapper) -> LSN | None:
        """Turn what the database gives into an `LSN`."""
        return None if value is None else LSN.parse(value)

    def to_python(self, value: Any) -> LSN | None:
        """Turn text or a number into an `LSN`; raise ``ValidationError`` for anything else."""
        if value is None or isinstance(value, LSN):
            return value
        try:
            return LSN.parse(value) if isinstance(value, str) else LSN(value)
        except (TypeError, ValueError) as exc:
            raise ValidationError(self.error_messages["invalid"], "invalid", {"value": value}) from exc

    def get_prep_value(self, value: Any) -> str | None:
        """Write an LSN as the server does."""
        prepared = self.to_python(super().get_prep_value(value))
        return None if prepared is None else str(prepared)

    def value_to_string(self, obj: models.Model) -> str:
        """Serialise as text."""
        return str(self.value_from_object(obj))

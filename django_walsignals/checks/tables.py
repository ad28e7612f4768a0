"""Our own tables: whether they are there, what the role may do with them, and the stream's checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from django.core.checks import CheckMessage
from django.db import connections
from django.db.models import Model

from django_walsignals.checks.messages import report
from django_walsignals.conf import StreamConfig
from django_walsignals.models import Checkpoint, DeadLetter

OWN_TABLES: Final = [Checkpoint._meta.db_table, DeadLetter._meta.db_table]

#: What a consumer does with both.
_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE")

_LACKING: Final = """
    SELECT current_user::text, ARRAY(
        SELECT wanted FROM unnest(%s::text[]) AS wanted WHERE NOT has_table_privilege(found, wanted)
    )
    FROM to_regclass(%s) AS found WHERE found IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class OwnTable:
    """One of our tables, and the rights on it that the role lacks."""

    name: str
    role: str
    lacking: tuple[str, ...]


def read_own_table(config: StreamConfig, model: type[Model]) -> OwnTable | None:
    """Read it where the checkpoint lives; None where it was not migrated yet."""
    connection = connections[config.checkpoint_database]
    name = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(_LACKING, [list(_RIGHTS), connection.ops.quote_name(name)])
        row = cursor.fetchone()
    return None if row is None else OwnTable(name, row[0], tuple(row[1]))


def read_checkpoint(config: StreamConfig) -> Checkpoint | None:
    """Read as much of the stream's checkpoint as is needed here."""
    rows = Checkpoint.objects.using(config.checkpoint_database).filter(stream=config.alias)
    return rows.only("stream", "publication").first()


def checkpoint_rights(config: StreamConfig, table: OwnTable) -> Iterator[CheckMessage]:
    """Say what the role lacks for keeping the checkpoint."""
    if table.lacking:
        yield report("W023", f"{_lacks(table)}: stream {config.alias!r} can't keep its checkpoint.", _grant(table))


def dead_letter_rights(config: StreamConfig, table: OwnTable | None) -> Iterator[CheckMessage]:
    """Say what the role lacks for keeping dead letters; it shows when the first is to be written, and jams the stream."""
    if table is not None and table.lacking and config.on_error == "dead_letter":
        yield report("W031", f"{_lacks(table)}: stream {config.alias!r} can't keep a dead letter.", _grant(table))


def _lacks(table: OwnTable) -> str:
    return f"Role {table.role} lacks {', '.join(table.lacking)} on {table.name}"


def _grant(table: OwnTable) -> str:
    return f'Run: GRANT {", ".join(_RIGHTS)} ON "{table.name}" TO "{table.role}";'

"""A receiver that rebuilds the table of notes in another one, in the consumer's process, and notes each call.

It is strict: a change that does not fit what the shadow holds, such as an update of a row that is not there, raises,
and becomes a dead letter that the test finds.
"""

from typing import Any

from django.db import connection
from django.dispatch import receiver

from django_walsignals import WalChange, on_change, post_wal_truncate
from tests.testapp.models import Note

MAKE = (
    "CREATE TABLE shadow_note (id bigint PRIMARY KEY, text text NOT NULL)",
    "CREATE TABLE shadow_call (change_id text NOT NULL)",  # nothing unique: a repeat must show
)
DROP = ("DROP TABLE IF EXISTS shadow_note", "DROP TABLE IF EXISTS shadow_call")


@on_change(Note, operations=["insert"])
def insert(change: WalChange[Note]) -> None:
    _execute("INSERT INTO shadow_note (id, text) VALUES (%s, %s)", change.pk, change.instance.text)
    _note(change)


@on_change(Note, operations=["update"])
def update(change: WalChange[Note]) -> None:
    assert change.old is not None
    new = change.instance
    old = (change.old.pk, change.old.text)
    _execute("UPDATE shadow_note SET id = %s, text = %s WHERE id = %s AND text = %s", new.pk, new.text, *old)
    _note(change)


@on_change(Note, operations=["delete"])
def delete(change: WalChange[Note]) -> None:
    _execute("DELETE FROM shadow_note WHERE id = %s AND text = %s", change.pk, change.instance.text)
    _note(change)


@receiver(post_wal_truncate, sender=Note)
def truncate(*, truncate: Any, **kwargs: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM shadow_note")
    _note(truncate)


def _execute(sql: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        assert cursor.rowcount == 1, (sql, parameters[0], cursor.rowcount)


def _note(sent: Any) -> None:
    _execute("INSERT INTO shadow_call (change_id) VALUES (%s)", sent.id)

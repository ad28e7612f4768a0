"""Transactions of every kind: open for long, prepared, huge and not ours, truncating, from before the publication."""

from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.db import connection

from django_walsignals import WalTruncate, post_wal_truncate
from tests.processes import database_dsn
from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def execute(sql: str, params: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


@pytest.fixture
def notes(stream: Stream) -> Stream:
    stream.listen(Note)
    stream.set_up()
    return stream


def texts(stream: Stream) -> list[str]:
    return [change.instance.text for change in stream.consume()]


def test_transaction_that_stays_open_holds_nobody_up_and_comes_when_it_commits(notes: Stream) -> None:
    with psycopg.connect(database_dsn()) as open_one:
        open_one.execute("INSERT INTO testapp_note (text) VALUES ('open')")
        Note.objects.create(text="committed")
        assert texts(notes) == ["committed"]
        open_one.commit()
    assert texts(notes) == ["open"]


def test_prepared_transaction_comes_at_commit_prepared_or_never(notes: Stream) -> None:
    with psycopg.connect(database_dsn(), autocommit=True) as session:
        for name in ("kept", "dropped"):
            session.execute("BEGIN")
            session.execute("INSERT INTO testapp_note (text) VALUES (%s)", [name])
            session.execute(f"PREPARE TRANSACTION '{notes.name} {name}'")
        assert texts(notes) == []
        session.execute(f"ROLLBACK PREPARED '{notes.name} dropped'")
        session.execute(f"COMMIT PREPARED '{notes.name} kept'")
    assert texts(notes) == ["kept"]


def test_truncate_of_several_tables_is_told_once_a_model(stream: Stream) -> None:
    heard: list[WalTruncate] = []

    def listen(*, truncate: WalTruncate, **kwargs: Any) -> None:
        heard.append(truncate)

    for model in (Note, Group):
        post_wal_truncate.connect(listen, sender=model)
    stream.set_up()
    execute("TRUNCATE testapp_note, auth_group RESTART IDENTITY CASCADE")
    stream.consume()
    assert {truncate.model for truncate in heard} == {Note, Group}
    assert len({truncate.id for truncate in heard}) == 1
    assert all(truncate.cascade and truncate.restart_identity for truncate in heard)
    stream.consume()
    assert len(heard) == 2


def test_slot_made_before_its_publication_starts_behind_it(stream: Stream) -> None:
    """What lies between the two could never be decoded, and would stick the slot or be skipped with a warning."""
    execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [stream.name])
    Note.objects.create(text="before")
    stream.listen(Note)
    stream.set_up()
    assert "to the end of the log, behind its new publication" in stream.output.getvalue()
    Note.objects.create(text="after")
    assert texts(stream) == ["after"]


def test_huge_transaction_of_others_is_no_reason_to_give_the_server_up(stream: Stream) -> None:
    stream.configure(REPLICATION_OPTIONS={"options": "-c wal_sender_timeout=2000"})
    with stream.process("--max-changes", "1") as consumer:
        consumer.wait_for_stdout("streaming")
        execute("CREATE TABLE of_others AS SELECT n, repeat('x', 50) AS text FROM generate_series(1, 1000000) n")
        execute("DROP TABLE of_others")
        Note.objects.create(text="after")
        consumer.succeed(timeout=60)
    assert "Outage" not in consumer.stderr.text
    wait_until(lambda: (slot := stream.slot()) and slot.active_pid is None)

"""Memory is bounded by the batch, whatever the transaction's size."""

import sys
from pathlib import Path

import psutil
import pytest
from django.db import connection

from tests.streams import Stream
from tests.testapp.models import Note
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROWS = 1_000_000
ALLOWED_GROWTH = 50 * 1024 * 1024


@pytest.mark.slow
def test_transaction_of_a_million_rows_passes_in_bounded_memory(
    stream: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream.configure(MODELS=["testapp.Note"])
    tally = tmp_path / "tally"
    with stream.process(receivers="tests.tally", TALLY=str(tally)) as consumer:
        consumer.wait_for_stdout("streaming")
        process = psutil.Process(consumer.pid)
        Note.objects.bulk_create(Note(text="warm up") for _ in range(5000))
        wait_until(lambda: _tally(tally) >= 5000, timeout=60)
        before = process.memory_info().rss
        sampled: list[int] = []

        def is_done() -> bool:
            sampled.append(process.memory_info().rss)
            return _tally(tally) >= ROWS + 5000

        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO testapp_note (text) SELECT 'row ' || n FROM generate_series(1, %s) n", [ROWS])
        wait_until(is_done, timeout=240)
        assert consumer.terminate() == 0
    growth = max(sampled) - before
    with capsys.disabled():
        sys.stdout.write(f"\n{ROWS} rows in one transaction: memory grew by {growth / 2**20:.1f} MiB at most\n")
    assert growth < ALLOWED_GROWTH


@pytest.mark.slow
def test_backlog_of_large_rows_passes_in_bounded_memory_without_losing_the_connection(
    stream: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """300 MB in one transaction, with a server that waits two seconds for a sign of life."""
    stream.configure(MODELS=["testapp.Note"], REPLICATION_OPTIONS={"options": "-c wal_sender_timeout=2000"})
    tally, rows = tmp_path / "tally", 30_000
    with stream.process(receivers="tests.tally", TALLY=str(tally)) as consumer:
        consumer.wait_for_stdout("streaming")
        process = psutil.Process(consumer.pid)
        Note.objects.bulk_create(Note(text="x" * 10_000) for _ in range(3000))
        wait_until(lambda: _tally(tally) >= 3000, timeout=60)
        before = process.memory_info().rss
        sampled: list[int] = []

        def is_done() -> bool:
            sampled.append(process.memory_info().rss)
            return _tally(tally) >= rows + 3000

        with connection.cursor() as cursor:
            fill = "INSERT INTO testapp_note (text) SELECT repeat(md5(n::text), 313) FROM generate_series(1, %s) n"
            cursor.execute(fill, [rows])
        wait_until(is_done, timeout=240)
        assert consumer.terminate() == 0
    growth = max(sampled) - before
    with capsys.disabled():
        sys.stdout.write(f"\n300 MB in one transaction: memory grew by {growth / 2**20:.1f} MiB at most\n")
    assert growth < ALLOWED_GROWTH
    assert "Outage" not in consumer.stderr.text


def _tally(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0

"""A receiver that counts, reads every row, and writes the count down after each thousand."""

import os
from pathlib import Path

from django_walsignals import WalChange, on_insert
from tests.testapp.models import Note

_tally = Path(os.environ["TALLY"])
_count = 0


@on_insert(Note)
def count(change: WalChange[Note]) -> None:
    global _count  # noqa: PLW0603  # one consumer, one thread
    assert change.instance.text
    _count += 1
    if _count % 1000 == 0:
        _tally.with_suffix(".new").write_text(str(_count))
        _tally.with_suffix(".new").replace(_tally)

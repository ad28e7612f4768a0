"""The oracle: whatever is written, and whatever happens to the consumers, the shadow ends up equal to the source."""

import os

import pytest

from tests.faults.oracle import check
from tests.faults.private import Private

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_shadow_equals_its_source_whatever_happens(private: Private, capsys: pytest.CaptureFixture[str]) -> None:
    said = check(private, seconds=20, seed=int(os.environ.get("SOAK_SEED", "20261121")))
    with capsys.disabled():
        print(f"\n{said}")  # noqa: T201  # what was survived is to be seen

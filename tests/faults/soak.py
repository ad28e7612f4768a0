"""The oracle for as long as told: ``SOAK_SECONDS=3600 python -m pytest tests/faults/soak.py``, one round after another.

Each round has a seed of its own, which is shown: ``SOAK_SEED`` starts with that one. pytest collects this module only
where it is named.
"""

import os
import random
import time

import pytest

from tests.faults.oracle import check
from tests.faults.private import Private

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: A round, in seconds: short enough that its writes fit on a small disk.
ROUND = 120.0


def test_shadow_equals_its_source_for_as_long_as_told(private: Private, capsys: pytest.CaptureFixture[str]) -> None:
    deadline = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1_000_000))
    while (left := deadline - time.monotonic()) > 0:
        with capsys.disabled():
            print(f"\nseed {seed}", flush=True)  # noqa: T201  # what a failure needs to be seen again
            print(check(private, seconds=min(ROUND, left), seed=seed), flush=True)  # noqa: T201
        seed += 1

"""What the tests of metrics share."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    """Give the path of a named pipe: who reads it waits until somebody opens it to write."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return str(path)

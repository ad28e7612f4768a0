"""mypy accepts what is right in the cases, and every ``type: ignore`` there is an error that it must find."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("cases")
ROOT = CASES.parent.parent.parent


@pytest.mark.slow
def test_mypy_sees_the_public_api_as_promised() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(CASES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    files = len(list(CASES.glob("*.py")))
    assert result.stdout == f"Success: no issues found in {files} source files\n", result.stdout + result.stderr
    assert result.returncode == 0

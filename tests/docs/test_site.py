"""The site builds without a warning, and asks nothing of anybody else's server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    assert (site / "start" / "index.html").exists()  # --strict looked at them


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="?(https?://[^"> ]+)')
    foreign = {url for page in site.rglob("*.html") for url in loads.findall(page.read_text())}
    assert foreign == set()

"""The README, followed in a blank Django project: what it says to type is typed, what it shows is compared."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests import server
from tests.processes import ROOT
from tests.project import Project

pytestmark = [pytest.mark.integration, pytest.mark.slow]

README = (ROOT / "README.md").read_text()

MODELS = """
from django.db import models


class Order(models.Model):
    status = models.CharField(max_length=20)
    total = models.DecimalField(max_digits=9, decimal_places=2)
"""


def blocks(language: str) -> list[str]:
    """List the README's code blocks in a language, wherever they are indented."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [dedent(text) for _, text in found]


def block_of(name: str) -> str:
    """Find the block that says which file it is."""
    (found,) = [text for text in blocks("python") if text.startswith(f"# {name}\n")]
    return found


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    name = f"readme_{os.getpid()}"
    with psycopg.connect(os.environ[server.DSN], autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield Project.blank(tmp_path, make_conninfo(os.environ[server.DSN], dbname=name), MODELS)
        drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
        session.execute(drop, [name])
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_the_steps_work_in_a_blank_project_and_show_what_the_readme_shows(project: Project) -> None:
    project.append("mysite/settings.py", block_of("settings.py"))
    project.append("shop/walsignals.py", block_of("shop/walsignals.py"))
    steps = [line.removeprefix("$ python ") for text in blocks("console") for line in text.splitlines()]
    migrate, walconsume = (step for step in steps if step.startswith("manage.py"))
    project.run("manage.py", "makemigrations", "shop")
    project.run(*migrate.split())
    (changes,) = [text for text in blocks("python") if text.startswith("Order.objects")]
    with project.start(*walconsume.split()) as consumer:
        consumer.wait_for_stdout("streaming")
        project.run("manage.py", "shell", "-c", f"from shop.models import Order\n{changes}")
        consumer.wait_for_stdout("^delete")
        assert consumer.terminate() == 0
    (shown,) = blocks("text")
    assert without_positions(consumer.stdout.text) == without_positions(shown) + "stopped: 3 delivered\n"


def test_settings_shown_are_the_defaults(settings: object) -> None:
    from django_walsignals.conf import get_stream

    (shown,) = [text for text in blocks("python") if text.startswith("WALSIGNALS = ")]
    written: dict[str, object] = {}
    exec(shown, written)
    assert not hasattr(settings, "WALSIGNALS")
    default = get_stream()
    settings.WALSIGNALS = written["WALSIGNALS"]  # type: ignore[attr-defined]
    assert get_stream() == default


def test_promises_are_in_the_words_of_the_design() -> None:
    design = ROOT.parent / "shared" / "DESIGN.md"
    if not design.exists():
        pytest.skip("the design is not beside this checkout")
    promises = re.search(r"^(1\. \*\*No change is lost.*?)\n\n?## 4", design.read_text(), re.MULTILINE | re.DOTALL)
    assert promises is not None
    assert promises[1].strip() in README


def without_positions(text: str) -> str:
    return re.sub(r"[0-9A-F]+/[0-9A-F]+", "LSN", text)

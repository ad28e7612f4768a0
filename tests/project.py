"""A blank Django project on a database of its own, for tests that follow what a reader is told to type."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests import server
from tests.processes import ROOT, ManagedProcess


class Project:
    """A project made by ``django-admin startproject``, with an app ``shop``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        for name in ("DJANGO_SETTINGS_MODULE", server.DSN, server.HOME, server.OWNER):
            self.env.pop(name, None)

    @classmethod
    def blank(cls, folder: Path, conninfo: str, models: str = "") -> Project:
        """Make one from nothing, on the database that ``conninfo`` names."""
        project = cls(folder)
        project.run("-m", "django", "startproject", "mysite", str(folder))
        (folder / "shop" / "migrations").mkdir(parents=True)
        for empty in ("shop/__init__.py", "shop/migrations/__init__.py"):
            (folder / empty).touch()
        (folder / "shop/models.py").write_text(models)
        project.append("mysite/settings.py", "INSTALLED_APPS += ['shop']\n")
        project.use_database(conninfo)
        return project

    def use_database(self, conninfo: str) -> None:
        """Point DATABASES at a database."""
        self.append("mysite/settings.py", f"DATABASES = {{'default': {server.database(conninfo)!r}}}\n")

    def append(self, name: str, text: str) -> None:
        """Add to a file of the project."""
        with (self.folder / name).open("a") as file:
            file.write("\n" + text)

    def start(self, *arguments: str) -> ManagedProcess:
        """Start Python in the project's folder."""
        return ManagedProcess([sys.executable, *arguments], env=self.env, cwd=self.folder)

    def run(self, *arguments: str) -> None:
        """Run Python in the project's folder; fail unless it exits with 0."""
        with self.start(*arguments) as process:
            process.succeed()

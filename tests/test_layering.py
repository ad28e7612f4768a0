"""The arrows of the design: which part of the package may import which, and how large its parts may grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import django_walsignals

PACKAGE = Path(django_walsignals.__file__).parent
NAME = PACKAGE.name

LONGEST_MODULE = 360
LONGEST_FUNCTION = 50

#: What each part may import of the others; a folder is a part, and so is a module beside the folders. Everything may
#: import ``exceptions``.
ARROWS: dict[str, set[str]] = {
    "exceptions": set(),
    "protocol": set(),
    "replication": {"protocol"},
    "conf": set(),
    "fields": {"protocol"},
    "models": {"fields"},
    "migrations": {"fields"},
    "transactions": {"protocol"},
    "changes": {"protocol", "transactions"},
    "metadata": set(),
    "contexts": {"metadata"},
    "statements": set(),
    "emission": {"conf", "contexts", "metadata", "statements"},
    "messages": {"metadata"},
    "middleware": {"contexts"},
    "signals": {"changes"},
    "receivers": {"signals", "changes"},
    "selection": {"conf", "signals"},
    "binding": {"protocol", "changes"},
    "provisioning": {"replication", "conf", "selection"},
    "operations": {"provisioning"},
    "delivery": {
        "replication",
        "protocol",
        "binding",
        "changes",
        "signals",
        "models",
        "conf",
        "selection",
        "metadata",
        "transactions",
    },
    "broadcast": {"signals", "changes", "conf"},
    "tail": {
        "changes",
        "conf",
        "delivery",
        "provisioning",
        "replication",
        "selection",
        "signals",
        "transactions",
    },
    "metrics": {"delivery", "changes", "conf", "status", "__version__"},
    "status": {"models", "conf", "replication", "protocol", "delivery"},
    "management": {
        "checks",
        "metrics",
        "delivery",
        "provisioning",
        "replication",
        "protocol",
        "models",
        "conf",
        "selection",
        "status",
        "tail",
    },
    "testing": {
        "changes",
        "signals",
        "receivers",
        "protocol",
        "delivery",
        "binding",
        "conf",
        "models",
        "selection",
        "provisioning",
        "replication",
        "contexts",
        "transactions",
    },
    "pytest_plugin": {"conf", "testing"},
    "checks": {"conf", "selection", "signals", "models", "delivery", "provisioning", "replication"},
    "admin": {"models", "delivery", "changes", "conf", "status"},
    "apps": {"checks", "emission"},
    "__init__": {"changes", "protocol", "receivers", "signals", "contexts", "messages", "transactions"},
}

#: What a part may import that is neither the standard library's nor ours.
FOREIGN: dict[str, set[str]] = {
    "exceptions": set(),
    "protocol": set(),
    "__init__": set(),
    "transactions": set(),
    "statements": set(),
    "emission": {"django", "psycopg"},
    "middleware": {"asgiref", "django"},
    "pytest_plugin": {"django", "pytest"},
    "replication": {"psycopg"},
    "broadcast": {"asgiref", "channels", "django"},
    "binding": {"django", "psycopg"},
    "provisioning": {"django", "psycopg", "stamina"},
    "management": {"django", "rich"},
    "receivers": {"asgiref", "django"},
    "metrics": {"django", "prometheus_client"},
    "tail": {"django", "rich"},
    "delivery": {"asgiref", "django", "psycopg", "stamina"},
    "status": {"django", "rich"},
}
BY_DEFAULT = {"django"}

#: Of the replication folder, provisioning uses what speaks SQL, not the connection to a walsender.
FOR_PROVISIONING = {"commands", "catalogue", "errors"}


class Import(NamedTuple):
    """A module that another imports, by its parts: ``("django_walsignals", "protocol", "lsn")``."""

    importer: Path
    target: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.importer.relative_to(PACKAGE)} imports {'.'.join(self.target)}"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[Import]:
    """Find every import of a file, also those inside functions and behind TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.Import):
            yield from (Import(path, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively"
            parts = tuple(node.module.split("."))
            yield from (Import(path, (*parts, alias.name)) for alias in node.names)


EVERY_IMPORT = [found for path in modules() for found in imports(path)]
OURS = [found for found in EVERY_IMPORT if found.target[0] == NAME]
OTHERS = [found for found in EVERY_IMPORT if found.target[0] != NAME and found.target[0] not in sys.stdlib_module_names]


def test_there_is_something_to_look_at() -> None:
    assert len(modules()) > 40
    assert len(OURS) > 100
    assert {found.target[0] for found in OTHERS} >= {"django", "psycopg"}


def test_every_part_has_its_place_in_the_design() -> None:
    assert {part_of(path) for path in modules()} <= ARROWS.keys()


def test_the_arrows_have_no_circle() -> None:
    left = dict(ARROWS)
    while done := {part for part, targets in left.items() if not targets & left.keys()}:
        left = {part: targets for part, targets in left.items() if part not in done}
    assert not left


def test_imports_follow_the_arrows() -> None:
    wrong = []
    for found in OURS:
        part = part_of(found.importer)
        target = found.target[1]
        allowed = {part, "exceptions", *ARROWS[part]}
        if target not in allowed:
            wrong.append(str(found))
    assert wrong == []


def test_nothing_foreign_is_imported_where_it_has_no_business() -> None:
    wrong = [str(found) for found in OTHERS if found.target[0] not in FOREIGN.get(part_of(found.importer), BY_DEFAULT)]
    assert wrong == []


def test_nothing_but_broadcast_imports_channels() -> None:
    assert {part_of(found.importer) for found in OTHERS if found.target[0] == "channels"} <= {"broadcast"}


def test_nothing_but_metrics_imports_prometheus_client() -> None:
    importers = {part_of(found.importer) for found in OTHERS if found.target[0] == "prometheus_client"}
    assert importers <= {"metrics"}


def test_provisioning_speaks_sql_and_not_to_a_walsender() -> None:
    of_provisioning = [found for found in OURS if part_of(found.importer) == "provisioning"]
    of_replication = {found.target[2] for found in of_provisioning if found.target[1] == "replication"}
    assert of_replication <= FOR_PROVISIONING


def test_settings_are_read_in_one_place() -> None:
    """``settings.DEBUG`` aside, which the command asks for its reloader."""
    readers = {found.importer.stem for found in OTHERS if found.target == ("django", "conf", "settings")}
    assert readers <= {"conf", "walconsume"}


@pytest.mark.parametrize(
    "module",
    ["", ".exceptions", ".protocol.pgoutput", ".protocol.frames"],
)
def test_importing_loads_neither_django_nor_psycopg(module: str) -> None:
    assert loaded_by(f"import {NAME}{module}") & {"django", "psycopg", "channels", "stamina"} == set()


def test_importing_the_connection_does_not_load_django() -> None:
    found = loaded_by("import django_walsignals.replication.connection, django_walsignals.replication.parameters")
    assert "psycopg" in found
    assert "django" not in found


def test_a_project_without_psycopg_gets_as_far_as_its_checks() -> None:
    """That the driver is missing is for check E005 to say; a project with psycopg2 has connections before that."""
    apps = ["admin", "auth", "contenttypes", "messages", "sessions"]
    found = loaded_by(
        "sys.modules['psycopg'] = None; import django; from django.conf import settings; from django.db import connections; "
        f"settings.configure(INSTALLED_APPS=[*(f'django.contrib.{{app}}' for app in {apps}), '{NAME}'], "
        "DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}); "
        "django.setup(); del sys.modules['psycopg']; connections['default'].ensure_connection()"
    )
    assert "psycopg" not in found


def loaded_by(code: str) -> set[str]:
    """Run a statement in a fresh interpreter; return the top-level modules that are loaded then."""
    code = f"import sys; {code}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return {name.partition(".")[0] for name in result.stdout.split()}


class TestSize:
    def test_no_module_is_too_long(self) -> None:
        too_long = {path.name: len(path.read_text().splitlines()) for path in modules()}
        assert {name: lines for name, lines in too_long.items() if lines > LONGEST_MODULE} == {}

    def test_no_function_is_too_long(self) -> None:
        found = {
            f"{path.relative_to(PACKAGE)}:{node.name}": node.end_lineno - node.lineno + 1
            for path in modules()
            if "migrations" not in path.parts
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        }
        assert len(found) > 200
        assert {name: lines for name, lines in found.items() if lines > LONGEST_FUNCTION} == {}

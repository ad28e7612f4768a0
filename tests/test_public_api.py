"""The public names: there, documented, and what they say they are."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import django_walsignals
from django_walsignals import exceptions

#: The names of the design's section 2 that users import.
PROMISED = {
    "FieldDiff",
    "LSN",
    "Operation",
    "Table",
    "Transaction",
    "UNKNOWN",
    "WalChange",
    "WalTruncate",
    "context",
    "emit_message",
    "on_change",
    "on_delete",
    "on_insert",
    "on_update",
    "post_wal_change",
    "post_wal_truncate",
    "wal_gap",
    "wal_message",
}

MEMBERS_OF_A_CHANGE = {
    "binding",
    "place",
    "rows",
    "changed_fields",
    "diff",
    "has_changed",
    "id",
    "instance",
    "model",
    "old",
    "operation",
    "ordinal",
    "pk",
    "stream",
    "table",
    "transaction",
    "unknown_fields",
    "using",
}
MEMBERS_OF_A_TRANSACTION = {"commit_lsn", "committed_at", "context", "end_lsn", "finish", "with_context", "xid"}


def public(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


def test_what_is_promised_is_what_is_there() -> None:
    assert set(django_walsignals.__all__) == PROMISED
    assert len(django_walsignals.__all__) == len(PROMISED)


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_a_name_is_found_where_it_is_promised(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from django_walsignals import {name}", namespace)
    assert namespace[name] is getattr(django_walsignals, name)
    assert name in dir(django_walsignals)


def test_everything_is_imported_by_a_star() -> None:
    namespace: dict[str, object] = {}
    exec("from django_walsignals import *", namespace)
    assert namespace.keys() >= PROMISED


def test_names_are_loaded_on_first_use_in_any_order() -> None:
    code = (
        "import django_walsignals as package\n"
        "assert 'UNKNOWN' not in vars(package) and 'UNKNOWN' in dir(package)\n"
        "from django_walsignals import LSN, UNKNOWN, Operation, WalChange\n"
        "assert 'UNKNOWN' in vars(package)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'django_walsignals' has no attribute 'post_wal_chagne'"):
        django_walsignals.post_wal_chagne  # noqa: B018


def test_a_change_has_the_members_that_are_promised() -> None:
    assert public(django_walsignals.WalChange) == MEMBERS_OF_A_CHANGE
    assert public(django_walsignals.Transaction) == MEMBERS_OF_A_TRANSACTION


@pytest.mark.parametrize("name", sorted(PROMISED - {"UNKNOWN", "on_insert", "on_update", "on_delete"}))
def test_a_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(django_walsignals, name))


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(django_walsignals.__file__).with_name("py.typed").exists()


class TestExceptions:
    ALL = tuple(cls for _, cls in inspect.getmembers(exceptions, inspect.isclass) if issubclass(cls, Exception))

    def test_all_have_one_base(self) -> None:
        assert all(issubclass(cls, exceptions.WalSignalsError) for cls in self.ALL)

    def test_the_tree_in_the_documentation_is_the_tree(self) -> None:
        lines = (exceptions.__doc__ or "").splitlines()
        matches = filter(None, (re.match(r"[ │├└─]*([A-Z]\w+)(?:  |$)", line) for line in lines))
        drawn = [(match.start(1), match[1]) for match in matches]
        parents: dict[str, str] = {}
        path: list[tuple[int, str]] = []
        for indent, name in drawn:
            path = [above for above in path if above[0] < indent]
            parents[name] = path[-1][1] if path else "Exception"
            path.append((indent, name))
        assert parents == {cls.__name__: cls.__bases__[0].__name__ for cls in self.ALL}

    def test_a_protocol_error_says_where(self) -> None:
        error = exceptions.ProtocolError("odd", tag="I", offset=7)
        assert (str(error), error.tag, error.offset) == ("odd (message 'I', byte 7)", "I", 7)

    def test_a_receivers_error_says_whose_and_on_what(self) -> None:
        error = exceptions.ReceiverError("shop.walsignals.shipped", "0/1/2", KeyError("status"))
        assert str(error) == "receiver shop.walsignals.shipped raised KeyError on change 0/1/2: 'status'"
        assert (error.receiver, error.change_id) == ("shop.walsignals.shipped", "0/1/2")

    @pytest.mark.parametrize("cls", ALL)
    def test_an_exit_code_is_one_of_those_documented(self, cls: type[exceptions.WalSignalsError]) -> None:
        assert cls.exit_code in {1, 3, 4}

"""Values as text: what a terminal gets, and what JSON has no type for."""

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from django_walsignals.changes import UNKNOWN, Operation
from django_walsignals.protocol.lsn import LSN
from django_walsignals.tail.lines import Lines, make_console
from django_walsignals.tail.objects import Objects
from django_walsignals.tail.values import as_json, cut, printable, shown, shown_pair
from django_walsignals.testing import make_change
from django_walsignals.transactions import Transaction
from tests.testapp.models import Note

MOMENT = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)


class Written(list[str]):
    """An output that keeps what is written."""

    def write(self, text: str) -> None:
        self.append(text)


class Terminal:
    def isatty(self) -> bool:
        return True


class Undecodable:
    """A change one of whose fields has code that raises."""

    id = "0/1/1"
    model = Note
    table = "public.testapp_note"
    rows = (None, None)

    def __init__(self) -> None:
        self.operation = Operation.UPDATE
        self.transaction = Transaction(xid=7, commit_lsn=LSN(1), committed_at=MOMENT)

    @property
    def pk(self) -> Any:
        raise LookupError("no \x1b[2J such thing")

    diff = pk


class TestShown:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "NULL"),
            ("", "''"),
            ("NULL", "'NULL'"),
            ("?", "'?'"),
            (UNKNOWN, "?"),
            (0, "0"),
            (False, "False"),
            (Decimal("1.50"), "1.50"),
            (b"\x00a", r"b'\x00a'"),
            (memoryview(b"\x1b"), r"b'\x1b'"),
            ({"ü": [1, None]}, '{"ü": [1, null]}'),
            ({"a": "\x9b\u202e"}, r'{"a": "\x9b\u202e"}'),
            ([Decimal("1.5"), b"\xff"], '["1.5", "/w=="]'),
            ("Grüße 日本", "'Grüße 日本'"),
            ("\x1b[2J\n", r"'\x1b[2J\n'"),
            ((1, "a"), "(1, 'a')"),
        ],
    )
    def test_each_kind_of_value(self, value: Any, text: str) -> None:
        assert shown(value) == text

    @override_settings(TIME_ZONE="Asia/Kolkata")
    def test_moments_are_in_the_current_time_zone(self) -> None:
        assert shown(MOMENT) == "2026-05-04 17:30:00+05:30"

    @given(st.text())
    def test_nothing_that_acts_is_left(self, text: str) -> None:
        for written in (shown(text), printable(text), shown({text: text}), shown([text])):
            assert written.isprintable()


class TestPair:
    def test_what_fits_is_whole(self) -> None:
        assert shown_pair("a", "b", 6) == ("'a'", "'b'")
        assert shown_pair("a" * 500, "b" * 500, None) == (repr("a" * 500), repr("b" * 500))

    def test_the_difference_is_in_sight(self) -> None:
        old, new = shown_pair("x" * 100 + "old", "x" * 100 + "new", 40)
        assert "old" in old
        assert "new" in new

    def test_a_short_one_leaves_its_room_to_a_long_one(self) -> None:
        assert shown_pair("", "y" * 100, 40) == ("''", "'" + "y" * 36 + "…")
        assert shown_pair("y" * 100, "", 40) == ("'" + "y" * 36 + "…", "''")

    @given(st.text(), st.text(), st.integers(min_value=16, max_value=200))
    def test_two_never_take_more_than_their_room(self, old: str, new: str, room: int) -> None:
        before, after = shown_pair(old, new, room)
        assert len(before) + len(after) <= room

    def test_cut_marks_what_is_missing(self) -> None:
        assert cut("abcdef", 4) == "abc…"
        assert cut("abcd", 4) == "abcd"
        assert cut("abcdef", 4, start=3) == "…ef"


class TestJson:
    def test_every_line_is_json_for_everybody(self) -> None:
        value = {"nan": float("nan"), "deep": [{"inf": float("-inf")}], 1: uuid.UUID(int=1), "b": memoryview(b"a")}
        text = as_json(value)
        assert json.loads(text, parse_constant=pytest.fail) == {
            "nan": "nan",
            "deep": [{"inf": "-inf"}],
            "1": str(uuid.UUID(int=1)),
            "b": "YQ==",
        }

    def test_what_has_no_type_there_is_text(self) -> None:
        assert as_json({"range": range(3), "money": Decimal("1.50")}) == '{"range": "range(0, 3)", "money": "1.50"}'


class TestPrinters:
    def test_a_change_that_cannot_be_decoded_is_shown_all_the_same(self) -> None:
        lines, objects = Written(), Written()
        console = make_console(Terminal(), no_color=True, force_color=False)
        change: Any = Undecodable()
        Lines(lines, console, pytest.fail).change(change)  # type: ignore[arg-type]
        Objects(objects, "default", "default").change(change)  # type: ignore[arg-type]
        assert "~ update testapp.Note  xid 7" in lines[0]
        assert r"could not be decoded: LookupError: no \x1b[2J such thing" in lines[0]
        row = json.loads(objects[0])
        assert (row["model"], row["pk"], row["error"]) == ("testapp.Note", None, "LookupError: no \x1b[2J such thing")

    @pytest.mark.parametrize("columns", [40, 160])
    def test_wide_characters_count_as_two(self, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = Written()
        console = make_console(Terminal(), no_color=True, force_color=False)
        Lines(lines, console, pytest.fail).change(make_change(Note(id=1, text="日本" * 200)))  # type: ignore[arg-type]
        widths = [cell_len(line) for line in lines[0].splitlines()]
        assert columns - 1 <= max(widths) <= columns

    def test_no_color_is_heard_from_the_environment_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        assert make_console(Terminal(), no_color=False, force_color=False).color_system is None
        assert make_console(Terminal(), no_color=False, force_color=True).color_system == "standard"

"""A position in the WAL: reads and prints as the server does, and orders as bytes do."""

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_walsignals.protocol.lsn import LSN, MAX_LSN

lsns = st.integers(0, MAX_LSN).map(LSN)

NOTATION = {
    "0/0": 0,
    "0/1": 1,
    "0/1C72CC0": 0x1C72CC0,
    "0/FFFFFFFF": 0xFFFFFFFF,
    "1/0": 1 << 32,
    "16/B374D848": 0x16_B374D848,
    "FFFFFFFF/FFFFFFFF": MAX_LSN,
}


@pytest.mark.parametrize(("text", "value"), NOTATION.items())
def test_reads_and_prints_the_servers_notation(text: str, value: int) -> None:
    assert LSN.parse(text) == value
    assert str(LSN(value)) == text


@pytest.mark.parametrize("text", ["16/b374d848", "00000016/B374D848", " 16/B374D848\n"])
def test_reads_lower_case_padding_and_surrounding_blanks(text: str) -> None:
    assert str(LSN.parse(text)) == "16/B374D848"


BAD_TEXT = [
    "",
    "0",
    "/",
    "0/",
    "/0",
    "0/0/0",
    "G/0",
    "0x0/0",
    "-1/0",
    "+1/0",
    "1_0/0",
    "0 / 0",
    "100000000/0",
    "0/123456789",
    "٣/٣",
]


@pytest.mark.parametrize("text", BAD_TEXT)
def test_other_text_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN: it looks like 16/B374D848") as caught:
        LSN.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [-1, MAX_LSN + 1])
def test_a_number_out_of_bounds_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=rf"{value} is not an LSN: it must lie between 0 and 2\*\*64 - 1"):
        LSN(value)


@pytest.mark.parametrize("value", [1.5, float("inf"), float("nan"), "16/B374D848", b"0/0", None])
def test_what_is_no_whole_number_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        LSN(value)


def test_without_a_value_it_is_the_start_of_the_wal() -> None:
    assert LSN() == 0


def test_orders_by_position_not_by_text() -> None:
    nine, ten = LSN.parse("0/9"), LSN.parse("0/10")
    assert str(nine) > str(ten)
    assert nine < ten
    assert sorted([ten, nine, LSN.parse("1/0")]) == [nine, ten, LSN.parse("1/0")]


def test_a_difference_is_a_plain_number_of_bytes() -> None:
    difference = LSN.parse("0/10") - LSN.parse("1/0")
    assert type(difference) is int
    assert difference == 0x10 - (1 << 32)


def test_equals_and_hashes_as_its_number() -> None:
    assert LSN(5) == 5
    assert {LSN(5): "found"}[5] == "found"  # type: ignore[index]


def test_prints_in_every_way_as_the_server_does() -> None:
    lsn = LSN.parse("16/B374D848")
    assert f"{lsn}" == "%s" % lsn == "16/B374D848"  # noqa: UP031  # the point
    assert f"{lsn:>14}|" == "   16/B374D848|"
    assert repr(lsn) == "LSN('16/B374D848')"


def test_is_a_number_in_json() -> None:
    assert json.dumps(LSN(16)) == "16"


def test_takes_no_attributes() -> None:
    with pytest.raises(AttributeError):
        LSN(1).position = 2  # type: ignore[attr-defined]


@given(lsns)
def test_parsing_what_it_prints_gives_it_back(lsn: LSN) -> None:
    again = LSN.parse(str(lsn))
    assert type(again) is LSN
    assert again == lsn


@given(lsns, lsns)
def test_orders_as_its_two_halves(one: LSN, other: LSN) -> None:
    halves = [tuple(int(half, 16) for half in str(lsn).split("/")) for lsn in (one, other)]
    assert (one < other) == (halves[0] < halves[1])


@given(lsns, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_survives_pickle_and_copy(lsn: LSN, protocol: int) -> None:
    for again in (pickle.loads(pickle.dumps(lsn, protocol)), copy.copy(lsn), copy.deepcopy(lsn)):
        assert type(again) is LSN
        assert again == lsn


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        lsn = LSN.parse(text)
    except ValueError:
        return
    assert LSN.parse(str(lsn)) == lsn

"""The decoder of pgoutput: every kind of message, every way in which one can be cut short, and random bytes."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_walsignals.exceptions import ProtocolError
from django_walsignals.protocol import messages, pgoutput
from django_walsignals.protocol.lsn import LSN, MAX_LSN
from django_walsignals.protocol.messages import UNCHANGED, Message, Relation, Row
from tests.protocol.encoding import encode
from tests.protocol.samples import SAMPLES

WIRE = {name: data for name, (data, _) in SAMPLES.items()}
EXPECTED = {name: message for name, (_, message) in SAMPLES.items()}
sample = pytest.mark.parametrize("name", SAMPLES)
of_a_row = pytest.mark.parametrize("name", [name for name, data in WIRE.items() if data[:1] in b"IUD"])

u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
lsns = st.integers(0, MAX_LSN).map(LSN)
names = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
namespaces = st.one_of(st.just("pg_catalog"), names.filter(bool))
rows = st.lists(st.one_of(st.none(), st.just(UNCHANGED), st.binary()))
columns = st.builds(messages.Column, st.booleans(), names, u32, st.integers(-(2**31), 2**31 - 1))

every_message = st.one_of(
    st.builds(messages.Begin, lsns, i64, u32),
    st.builds(messages.Commit, lsns, lsns, i64),
    st.builds(messages.Origin, lsns, names),
    st.builds(Relation, u32, namespaces, names, st.sampled_from("dnfi"), st.lists(columns).map(tuple)),
    st.builds(messages.Type, u32, namespaces, names),
    st.builds(messages.Insert, u32, rows),
    st.builds(messages.Update, u32, rows),
    st.builds(messages.KeyUpdate, u32, rows, rows),
    st.builds(messages.FullUpdate, u32, rows, rows),
    st.builds(messages.KeyDelete, u32, rows),
    st.builds(messages.FullDelete, u32, rows),
    st.builds(messages.Truncate, st.lists(u32).map(tuple), st.booleans(), st.booleans()),
    st.builds(messages.LogicalMessage, st.booleans(), lsns, names, st.binary()),
)


@sample
def test_a_sample_is_decoded(name: str) -> None:
    decoded = pgoutput.decode(WIRE[name])
    assert type(decoded) is type(EXPECTED[name])
    assert decoded == EXPECTED[name]


def test_every_kind_of_message_has_a_sample() -> None:
    assert {type(message) for message in EXPECTED.values()} == set(Message.__args__)


@sample
def test_every_proper_prefix_is_refused_with_tag_and_offset(name: str) -> None:
    data = WIRE[name]
    for length in range(1, len(data)):
        with pytest.raises(ProtocolError) as caught:
            pgoutput.decode(data[:length])
        assert (caught.value.tag, caught.value.offset) == (chr(data[0]), length), data[:length]


@sample
def test_a_byte_too_many_is_refused_with_tag_and_offset(name: str) -> None:
    data = WIRE[name]
    for extra in (b"\0", b"N", b"\xff"):
        with pytest.raises(ProtocolError, match="1 bytes too many") as caught:
            pgoutput.decode(data + extra)
        assert (caught.value.tag, caught.value.offset) == (chr(data[0]), len(data))


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(ProtocolError, match="empty message") as caught:
        pgoutput.decode(b"")
    assert (caught.value.tag, caught.value.offset) == ("", 0)


@pytest.mark.parametrize("tag", sorted({*range(256)} - {*b"BCORYIUDTM"}))
def test_an_unknown_kind_of_message_is_refused(tag: int) -> None:
    with pytest.raises(ProtocolError, match="unknown kind of message") as caught:
        pgoutput.decode(bytes([tag]) + WIRE["insert"][1:])
    assert (caught.value.tag, caught.value.offset) == (chr(tag), 0)


@pytest.mark.parametrize("kind", [b"b", b"x", b"\0", b"T"])
def test_a_column_of_unknown_kind_is_refused_where_it_stands(kind: bytes) -> None:
    data = b"I" b"\x00\x00\x40\x01" b"N" b"\x00\x02" b"n" + kind + b"\x00\x00\x00\x01" b"1"  # fmt: skip
    with pytest.raises(ProtocolError, match="a column of unknown kind") as caught:
        pgoutput.decode(data)
    assert (caught.value.tag, caught.value.offset) == ("I", 9)


@pytest.mark.parametrize("rest", [b"", b"\x00", b"\x00\x01n", b"\x00\x01q", b"\x00\x01nN\x00\x01n"])
@pytest.mark.parametrize(("tag", "kind"), ["UX", "Uk", "U\xff", "DN", "DX", "IK", "IO"])
def test_a_row_of_unknown_kind_is_refused_where_it_stands_whatever_follows(tag: str, kind: str, rest: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"of unknown kind|expected a new row") as caught:
        pgoutput.decode(tag.encode() + b"\x00\x00\x40\x01" + kind.encode("latin-1") + rest)
    assert (caught.value.tag, caught.value.offset) == (tag, 5)


@pytest.mark.parametrize("kind", ["K", "O", "n", "\0"])
def test_an_update_whose_second_row_is_not_the_new_one_is_refused(kind: str) -> None:
    old_row = b"U\x00\x00\x40\x01" + b"O\x00\x01n"
    with pytest.raises(ProtocolError, match="expected a new row") as caught:
        pgoutput.decode(old_row + kind.encode() + b"\x00\x01n")
    assert (caught.value.tag, caught.value.offset) == ("U", len(old_row))


def test_a_name_that_is_not_utf8_is_refused_where_it_goes_wrong() -> None:
    with pytest.raises(ProtocolError, match="not UTF-8") as caught:
        pgoutput.decode(b"O" + bytes(8) + b"caf\xe9\0")
    assert (caught.value.tag, caught.value.offset) == ("O", 12)


@pytest.mark.parametrize("count", [2, 2**16, 2**32 - 1])
def test_a_truncate_that_promises_more_tables_than_it_names_is_refused(count: int) -> None:
    with pytest.raises(ProtocolError, match="truncated message"):
        pgoutput.decode(b"T" + count.to_bytes(4) + b"\0" + b"\x00\x00\x40\x01")


@of_a_row
def test_the_relation_of_a_row_is_read_without_its_values(name: str) -> None:
    assert pgoutput.relation_id(WIRE[name]) == 0x4001
    assert pgoutput.relation_id(WIRE[name][:5]) == 0x4001


@pytest.mark.parametrize("length", range(1, 5))
def test_a_row_too_short_for_its_relation_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="truncated message") as caught:
        pgoutput.relation_id(WIRE["insert"][:length])
    assert (caught.value.tag, caught.value.offset) == ("I", length)


def test_null_empty_text_and_unchanged_toast_never_look_alike() -> None:
    values: Row = [None, b"", UNCHANGED]
    assert all((one == other) == (one is other) for one, other in product(values, values))
    assert repr(UNCHANGED) == "UNCHANGED"
    assert pgoutput.decode(encode(messages.Update(1, values))) == messages.Update(1, values)


@sample
def test_a_message_is_frozen(name: str) -> None:
    decoded = pgoutput.decode(WIRE[name])
    for attribute in (*decoded._fields, "extra"):
        with pytest.raises(AttributeError):
            setattr(decoded, attribute, None)


@sample
def test_the_tests_encoder_agrees_with_the_samples(name: str) -> None:
    assert encode(EXPECTED[name]) == WIRE[name]


@given(every_message)
def test_round_trip(message: Message) -> None:
    decoded = pgoutput.decode(encode(message))
    assert type(decoded) is type(message)
    assert decoded == message


@given(every_message, st.data())
def test_any_message_cut_anywhere_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    length = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(ProtocolError) as caught:
        pgoutput.decode(whole[:length])
    assert caught.value.tag == chr(whole[0])
    assert 0 <= caught.value.offset <= length


def decode_or_refuse(data: bytes) -> None:
    try:
        decoded: object = pgoutput.decode(data)
    except ProtocolError as exc:
        decoded = exc
    assert isinstance(decoded, Message | ProtocolError)
    if isinstance(decoded, ProtocolError):
        assert decoded.tag == ("" if not data else chr(data[0]))
        assert 0 <= decoded.offset <= len(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_decoded_or_refused(data: bytes) -> None:
    decode_or_refuse(data)


@given(st.sampled_from(sorted(b"BCORYIUDTM")), st.binary(max_size=200))
def test_random_bytes_behind_a_known_tag_are_decoded_or_refused(tag: int, data: bytes) -> None:
    decode_or_refuse(bytes([tag]) + data)


@given(every_message, st.data())
def test_a_message_with_one_byte_changed_is_decoded_or_refused(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(encode(message))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(damaged))

"""Header tables read by the byte: every value has a reading, and a broken one costs only what lies behind it."""

import random
import struct
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from typing import Any

import pika.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.broker import header_tables
from publisher.broker.header_tables import decode_table
from tests.doubles.header_tables import ODD, entry, nested, of, random_table, timestamp

BEHIND = entry(b"behind", b"b\x07")


def table(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return struct.pack(">I", len(content)) + content


def read(*entries: bytes) -> dict[str, Any]:
    """Read a table that stands between other bytes, and make sure that they are left alone."""
    encoded = table(*entries)
    found, offset = decode_table(b"before" + encoded + b"after", len(b"before"))
    assert offset == len(b"before" + encoded)
    return found


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"t\x01", True),
        (b"t\x00", False),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"U\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xfe", -2),
        (b"i\xff\xff\xff\xfe", 2**32 - 2),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f" + struct.pack(">f", 0.5), 0.5),
        (b"d" + struct.pack(">d", inf), inf),
        (timestamp(0), datetime(1970, 1, 1, tzinfo=UTC)),
        (timestamp(2**62), 2**62),
        (timestamp(2**64 - 1), 2**64 - 1),
        (b"D" + struct.pack(">Bi", 2, -314), Decimal("-3.14")),
        (of("S", "é".encode()), "é"),
        (of("S", b"a\xff"), "a\\xff"),
        (of("x", b"a\xff"), b"a\xff"),
        (of("A", b"b\x01V" + of("S", b"x")), [1, None, "x"]),
        (of("F", entry(b"n", b"b\x01") + entry(b"m", b"V")), {"n": 1, "m": None}),
        (b"V", None),
    ],
)
def test_a_value_of_each_kind_is_read_and_so_is_what_lies_behind_it(encoded: bytes, value: object) -> None:
    found = read(entry(b"n", encoded), BEHIND)
    assert found == {"n": value, "behind": 7}
    assert type(found["n"]) is type(value)


def test_names_need_not_be_text_nor_the_values_comparable() -> None:
    assert read(entry(b"\xff", b"V"), entry(b"", b"V"), entry(b"no number", ODD["no number"]), BEHIND).keys() == {
        "\\xff",
        "",
        "no number",
        "behind",
    }


@pytest.mark.parametrize("kind", ["A", "F"])
def test_what_lies_deeper_than_sixteen_levels_is_read_as_empty(kind: str) -> None:
    found = read(entry(b"n", nested(kind, 2000)), BEHIND)
    assert found["behind"] == 7
    value, levels = found["n"], 0
    while value:
        value, levels = value["n"] if kind == "F" else value[0], levels + 1
    assert levels == 15
    assert value == ({} if kind == "F" else [])


@pytest.mark.parametrize(
    "broken",
    [
        entry(b"n", b"z"),
        entry(b"n", b"l\x00"),
        entry(b"n", b"T"),
        entry(b"n", b"S\x00\x00"),
        entry(b"n", b""),
        b"\xffname",
        entry(b"n", b"F\x00"),
        entry(b"n", b"A\x00"),
    ],
)
def test_a_table_that_breaks_off_is_read_up_to_there_and_ends_where_it_says(broken: bytes) -> None:
    assert read(BEHIND, broken) == {"behind": 7}


def test_a_broken_value_in_a_list_or_table_costs_nothing_outside() -> None:
    assert read(entry(b"n", of("A", b"b\x01z")), entry(b"m", of("F", BEHIND + b"\x01nz")), BEHIND) == {
        "n": [1],
        "m": {"behind": 7},
        "behind": 7,
    }


def test_a_length_that_says_too_much_reaches_no_further_than_its_table() -> None:
    too_long = b"S" + struct.pack(">I", 2**32 - 1) + b"rest"
    assert read(BEHIND, entry(b"n", too_long)) == {"behind": 7, "n": "rest"}
    assert decode_table(struct.pack(">I", 2**32 - 1) + BEHIND, 0) == ({"behind": 7}, 4 + len(BEHIND))


@pytest.mark.parametrize("encoded", [b"", b"\x00", b"\x00\x00\x00"])
def test_bytes_without_room_for_a_length_are_an_empty_table_to_their_end(encoded: bytes) -> None:
    assert decode_table(encoded, 0) == ({}, len(encoded))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table(content: bytes) -> None:
    read(content)


@pytest.mark.parametrize("seed", range(20))
def test_tables_of_all_kinds_have_their_names(seed: int) -> None:
    found = read(random_table(random.Random(seed)), BEHIND)
    assert found["behind"] == 7


def test_what_pika_writes_is_read_as_it_was() -> None:
    pieces: list[bytes] = []
    headers: dict[str, Any] = {
        "n": 2**40,
        "text": "é",
        "list": [1, "x", None],
        "table": {"t": True},
        "at": datetime(2026, 6, 25, tzinfo=UTC),
    }
    pika.data.encode_table(pieces, headers)
    encoded = b"".join(pieces)
    assert decode_table(encoded, 0) == (headers, len(encoded))


def test_installed_it_is_what_pika_reads_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pika.data, "decode_table", None)
    header_tables.install()
    assert pika.data.decode_table is decode_table

"""Bytes to records, at any size and however broken."""

import contextlib
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.files import reading
from consumer.files.reading import ChangeFileReader, Record
from publisher.errors import Permanent


def read(content: bytes) -> list[Record]:
    return list(ChangeFileReader(io.BytesIO(content).read).records())


def test_records_know_the_line_they_begin_on() -> None:
    records = read(b'ticket_id,note\r\nINC1,"two\nlines"\n\nINC2,x')
    assert [(record.line, record.fields) for record in records] == [
        (1, ["ticket_id", "note"]),
        (2, ["INC1", "two\nlines"]),
        (5, ["INC2", "x"]),
    ]
    assert records[1].raw == 'INC1,"two\nlines"\n'


def test_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert read(b"\xef\xbb\xbfticket_id\nINC1\n")[0].fields == ["ticket_id"]


def test_size_and_hash_cover_every_byte() -> None:
    content = "ticket_id\nINC1\nMūthaiga\n".encode() * 50_000
    reader = ChangeFileReader(io.BytesIO(content).read)
    for _ in reader.records():
        pass
    assert reader.size == len(content)
    assert reader.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"ticket_id\nM\xfcthaiga\n", "not UTF-8"),
        (b"ticket_id\nINC1\n\xc3", "not UTF-8"),
        (b"\xff\xfet\x00i\x00", "not UTF-8"),
        (b'ticket_id,note\nINC1,"never closed\nINC2,x\n', "cut off"),
        (b'ticket_id,note\nINC1,"', "cut off"),
    ],
)
def test_a_file_that_cannot_be_trusted_fails_whole(content: bytes, reason: str) -> None:
    with pytest.raises(Permanent) as failure:
        read(content)
    assert failure.value.reason == reason


def test_a_quote_that_never_closes_fails_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_HELD_CHARS", 100)
    monkeypatch.setattr(reading, "_SHOWN_CHARS", 50)
    monkeypatch.setattr(reading, "MAX_RECORD_CHARS", 1000)
    with pytest.raises(Permanent, match="record too large"):
        read(b'ticket_id,note\nINC1,"never closed\n' + b"INC2,x\n" * 1000)
    with pytest.raises(Permanent, match="record too large"):
        read(b"ticket_id\n" + b"x" * 5000)


def test_a_record_that_breaks_the_rules_of_quoting_does_not_hide_the_next() -> None:
    records = read(b'ticket_id,note\nINC1,"a"b\nINC2,x\n')
    assert records[1].fault
    assert records[1].raw == 'INC1,"a"b\n'
    assert records[2].fields == ["INC2", "x"]


def test_a_broken_last_line_without_its_end_is_one_bad_row() -> None:
    assert read(b'ticket_id,note\nINC1,"a"b')[1].fault


@given(st.lists(st.lists(st.text('ab,"\n\r é', max_size=6), min_size=1, max_size=4), min_size=1, max_size=8))
def test_what_was_written_is_what_is_read(rows: list[list[str]]) -> None:
    quoted = "".join(",".join('"' + field.replace('"', '""') + '"' for field in row) + "\n" for row in rows)
    assert [record.fields for record in read(quoted.encode())] == rows


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_give_records_or_fail_with_a_reason(content: bytes) -> None:
    with contextlib.suppress(Permanent):
        read(content)


@pytest.mark.parametrize(
    ("long", "lines"),
    [
        ("INC1," + "x" * 500 + "\n", 1),
        *(("," * length + "\r\n", 1) for length in range(440, 510)),
        *(('INC1,"' + "x" * length + "\r\n" * 60 + '"\r\n', 61) for length in range(48, 52)),
        ('INC1,"' + "line\n" * 60 + '"\n', 61),
        ('INC1,"' + '""' * 200 + '"\n', 1),
        ("INC1,ü" + "\U0001f600" * 400 + "\n", 1),
    ],
)
def test_a_record_too_large_to_hold_is_passed_over_and_the_next_one_read(
    monkeypatch: pytest.MonkeyPatch, long: str, lines: int
) -> None:
    monkeypatch.setattr(reading, "MAX_HELD_CHARS", 100)
    monkeypatch.setattr(reading, "_SHOWN_CHARS", 50)
    _header, passed, after = read(f"ticket_id,owner\n{long}INC2,a\n".encode())
    assert passed.fault == "more than 100 characters"
    assert (passed.line, passed.fields) == (2, [])
    assert long.startswith(passed.raw)
    assert len(passed.raw) == 50
    assert (after.line, after.fields) == (2 + lines, ["INC2", "a"])


def test_a_record_too_large_to_hold_may_be_the_last_one_or_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_HELD_CHARS", 100)
    assert [record.fault for record in read(b"ticket_id\n" + b"x" * 300)] == [None, "more than 100 characters"]
    with pytest.raises(Permanent, match=r"cut off: .* line 2"):
        read(b'ticket_id\n"' + b"x" * 300)

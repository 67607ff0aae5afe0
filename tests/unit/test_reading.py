"""Bytes to records, at any size and however broken; every line of a file is in one of them."""

import contextlib
import csv
import gzip
import hashlib
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.feeds.feed import Column, Feed
from consumer.files import decoding, quoting, reading
from consumer.files.reading import ChangeFileReader, Record
from publisher.errors import Permanent

FEED = Feed(name="sample", prefix="", id="ticket_id", columns={"ticket_id": Column(), "note": Column()})


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def reader_of(content: bytes) -> ChangeFileReader:
    return ChangeFileReader(io.BytesIO(content).read, FEED, allows_missing=False)


def read(content: bytes) -> list[Record]:
    reader = reader_of(content)
    records = list(reader.records())
    taken = sum(record.lines for record in records)
    assert reader.lines == reader.blank_lines + reader.header_lines + taken
    return records


def test_records_know_the_line_they_begin_on() -> None:
    records = read(b'ticket_id,note\r\nINC1,"two\nlines"\n\nINC2,x')
    assert [(record.line, record.lines, record.fields) for record in records] == [
        (2, 2, ["INC1", "two\nlines"]),
        (5, 1, ["INC2", "x"]),
    ]
    assert records[0].raw == 'INC1,"two\nlines"\n'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(end: str) -> None:
    text = "".join(f"{line}{end}" for line in ("ticket_id,note", "", 'INC1,"x, y"', "INC2,z"))
    assert [(record.line, record.fields) for record in read(text.encode())] == [
        (3, ["INC1", "x, y"]),
        (4, ["INC2", "z"]),
    ]


def test_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert reader_of(b"\xef\xbb\xbfticket_id\nINC1\n").header.names == ("ticket_id",)


@pytest.mark.parametrize("pack", [bytes, packed])
def test_size_and_hash_cover_every_byte_as_it_came(pack: Callable[[bytes], bytes]) -> None:
    content = pack("ticket_id\nINC1\nMūthaiga\n".encode() * 50_000)
    reader = reader_of(content)
    for _ in reader.records():
        pass
    assert (reader.size, reader.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no header: the file is empty"),
        (b"\n \n", "no header: the file is empty"),
        (b"note,t\xefcket_id\n", "not UTF-8: in the header: byte 0xEF, this looks like Windows-1252; export as UTF-8"),
        (b"t\x00i\x00c\x00k\x00", "not UTF-8: this looks like UTF-16 without its byte order mark; export as UTF-8"),
        (b'ticket_id,"note\nINC1,x\n', "no header: line 1: opens a quote that never closes"),
        (b"PK\x03\x04", "not CSV: this looks like a zip archive or an Excel workbook (.xlsx)"),
        (packed(packed(b"ticket_id\n")), "not CSV: this looks like packed twice"),
        (packed(b"ticket_id\nINC1\n" * 100)[:-9], "cut off: the gzip data end before their end"),
        (gzip.compress(b"ticket_id\n") + b"and more", "damaged gzip: what follows its packed data is no gzip"),
        (b'[{"ticket_id": 1}]', "not CSV: this looks like JSON"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 50, "damaged gzip: its packed data are not whole"),
        ("ticket_id\nINC1\n".encode("utf-16")[:-1], "cut off: the file ends in the middle of a character"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_trusted_fails_whole_and_is_told_for_what_it_is(content: bytes, told: str) -> None:
    with pytest.raises(Permanent) as failure:
        read(content)
    assert str(failure.value).startswith(told)


@pytest.mark.parametrize("parts", [1, 3])
def test_gzip_of_several_members_is_one_file(parts: int) -> None:
    rows = b"".join(b"INC%d,x\n" % number for number in range(900))
    step = -(-len(rows) // parts)
    content = b"".join(gzip.compress(rows[at : at + step]) for at in range(0, len(rows), step))
    assert len(read(gzip.compress(b"ticket_id,note\n") + content + b"\0" * 512)) == 900


def test_a_file_that_unpacks_to_far_more_than_its_bytes_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "UNPACKED_ALLOWANCE", 1_000_000)
    taken = 0
    content = io.BytesIO(gzip.compress(b"ticket_id,note\n" + b"," * 100_000_000))

    def counted(amount: int) -> bytes:
        nonlocal taken
        chunk = content.read(min(amount, 4096))
        taken += len(chunk)
        return chunk

    with pytest.raises(Permanent, match=r"unpacked too large: its first [\d,]+ bytes unpack to more than"):
        list(ChangeFileReader(counted, FEED, allows_missing=False).records())
    assert taken < 20_000


def test_what_a_packed_file_may_cost_has_a_bound_of_its_own() -> None:
    reader = reader_of(gzip.compress(b"ticket_id,note\n" + b"INC1,x\n" * 100_000))
    for _ in reader.records():
        pass
    assert reader.judged_size == decoding.JUDGED_RATIO * reader.size < 700_000


def test_a_quote_that_never_closes_takes_one_row_along() -> None:
    records = read(b'ticket_id,note\nINC1,"never closed\n' + b"INC2,x\n" * 35_000)
    assert (records[0].line, records[0].lines, records[0].raw) == (2, 1, 'INC1,"never closed\n')
    assert records[0].fault == "opens a quote that does not close: line 3 is a row by itself"
    assert len(records) == 35_001
    assert all(record.fault is None for record in records[1:])


def test_one_that_no_row_follows_makes_each_line_behind_it_one_of_its_own() -> None:
    records = read(b'ticket_id,note\nINC1,"cut of\nwithout an end\n')
    assert [(record.line, record.fault) for record in records] == [
        (2, "opens a quote that never closes"),
        (3, "has 1 field where the header has 2"),
    ]


def test_a_line_without_an_end_fails_the_file_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_LINE_CHARS", 100)
    monkeypatch.setattr(decoding, "SHOWN_CHARS", 50)
    monkeypatch.setattr(decoding, "MAX_PASSED_CHARS", 1000)
    with pytest.raises(Permanent, match="line too long: more than 1,000 characters without an end, on line 2"):
        read(b"ticket_id\n" + b"x" * 5000)


def test_a_record_that_breaks_the_rules_of_quoting_does_not_hide_the_next() -> None:
    records = read(b'ticket_id,note\nINC1,"a"b\nINC2,x\n')
    assert records[0].fault == "has a quote where none can be, by line 2: in quotes it is written twice"
    assert records[0].raw == 'INC1,"a"b\n'
    assert records[1].fields == ["INC2", "x"]


def test_a_file_in_which_every_line_may_go_on_to_the_end_is_refused_in_time() -> None:
    with pytest.raises(Permanent, match="quotes astray: by line 5,001"):
        read(b"ticket_id,note\n" + b'a",x,"b\n' * 5_000)


@given(st.lists(st.lists(st.text('ab,"\n\r é', max_size=6), min_size=2, max_size=2), min_size=1, max_size=8))
def test_texts_in_quotes_are_read_as_they_were_written(rows: list[list[str]]) -> None:
    rows = [[f"INC-{number}", *row, "end"] for number, row in enumerate(rows)]
    quoted = "".join(",".join('"' + field.replace('"', '""') + '"' for field in row) + "\n" for row in rows)
    assert [record.fields for record in read(b"ticket_id,note,more,last\n" + quoted.encode())] == rows


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_give_records_or_fail_with_a_reason(content: bytes) -> None:
    with contextlib.suppress(Permanent):
        read(b"ticket_id,note\n" + content)
    with contextlib.suppress(Permanent):
        read(content)


@pytest.mark.parametrize(
    "long",
    [
        "INC1," + "x" * 500 + "\n",
        *("," * length + "\r\n" for length in range(440, 510)),
        "INC1,ü" + "\U0001f600" * 400 + "\n",
        'INC1,"' + "x" * 200 + "\n",
    ],
)
def test_a_line_too_long_to_hold_is_passed_over_and_the_next_one_read(
    monkeypatch: pytest.MonkeyPatch, long: str
) -> None:
    for module in (decoding, reading):
        monkeypatch.setattr(module, "MAX_LINE_CHARS", 100)
    monkeypatch.setattr(decoding, "SHOWN_CHARS", 50)
    passed, after = read(f"ticket_id,note\n{long}INC2,a\n".encode())
    assert passed.fault == "is a line of more than 100 characters"
    assert long.startswith(passed.raw)
    assert len(passed.raw) == 50
    assert (passed.line, after.line, after.fields) == (2, 3, ["INC2", "a"])


def test_a_text_of_many_lines_has_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quoting, "MAX_RECORD_CHARS", 100)
    monkeypatch.setattr(csv, "field_size_limit", lambda _limit: None)  # which would stay so for the tests behind
    records = read(('ticket_id,note\nINC1,"' + "line\n" * 60 + '"\nINC2,a\n').encode())
    assert records[0].fault == "opens a quote that does not close: there are more than 100 characters by line 20"
    assert records[-1].fields == ["INC2", "a"]
    assert all(record.fault for record in records[:-1])

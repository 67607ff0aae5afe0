"""What one row goes through."""

import json
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.feeds.declared import packaged_feeds
from consumer.feeds.feed import Feed
from consumer.files.cleaning import Cleaner, Dropped, RowReject, TicketRow
from consumer.files.header import read_header
from consumer.files.reading import Record
from consumer.files.values import read_timestamp
from publisher.errors import Permanent

INC = packaged_feeds().named("inc")


def cleaner_of(header: list[str], feed: Feed = INC) -> Cleaner:
    return Cleaner(read_header(header, feed, allows_missing=True), feed)


def clean(header: str, *fields: str, raw: str = "", feed: Feed = INC) -> TicketRow | RowReject | Dropped:
    cleaner = cleaner_of(header.split(","), feed)
    return cleaner.clean(Record(7, list(fields), raw or ",".join(fields) + "\n"))


def raw_of(header: str, *fields: str, feed: Feed = INC) -> dict[str, str | None]:
    row = clean(header, *fields, feed=feed)
    assert isinstance(row, TicketRow)
    values: dict[str, str | None] = json.loads(row.raw)
    return values


def kept(header: str, *fields: str) -> dict[str, str | None]:
    """What has a value."""
    return {name: value for name, value in raw_of(header, *fields).items() if value is not None}


def rejected(header: str, *fields: str) -> str:
    row = clean(header, *fields)
    assert isinstance(row, RowReject)
    assert row.line == 7
    assert row.raw == ",".join(fields).replace("\0", "\u2400")[:10_000]
    return row.reason


def test_every_value_is_kept() -> None:
    assert kept("owner,ticket_id,week_start,department,other", "", "INC1", "2026-06-22", "NOC", " x ") == {
        "ticket_id": "INC1",
        "week_start": "2026-06-22",
        "department": "NOC",
        "other": "x",
    }


def test_the_feeds_own_columns_are_null_where_they_are_empty_and_others_are_not_there() -> None:
    header = "owner,ticket_id,other,source_type,"
    assert raw_of(header, "N/A", "INC1", "", "", "") == {"owner": None, "ticket_id": "INC1", "source_type": None}


def test_rows_of_a_later_header_have_the_columns_of_the_first_one_as_well() -> None:
    first, later = (read_header(names, INC, allows_missing=True) for names in (["ticket_id", "owner"], ["ticket_id"]))
    row = Cleaner(later, INC, first).clean(Record(7, ["INC1"], "INC1"))
    assert isinstance(row, TicketRow)
    assert json.loads(row.raw) == {"ticket_id": "INC1", "owner": None}


def test_a_text_means_the_same_whenever_it_comes() -> None:
    cleaner = cleaner_of(["ticket_id", "closed_at", "owner"])
    texts = ["2026-06-25", "soon", "N/A", "0001-01-01", "", " 2026-06-25 "]
    rows = [
        cleaner.clean(Record(line, [f"INC{line}", text, str(line)], text)) for line, text in enumerate(texts * 3000)
    ]
    assert cleaner.never == 3000
    for line, row in enumerate(rows):
        match texts[line % len(texts)]:
            case "soon":
                assert isinstance(row, RowReject)
            case text:
                assert isinstance(row, TicketRow)
                value = None if text in {"", "N/A"} else text.strip()
                assert json.loads(row.raw) == {"ticket_id": f"INC{line}", "closed_at": value, "owner": str(line)}


def test_region_is_lower_case_and_raw_status_upper_case() -> None:
    assert kept("ticket_id,region,raw_status", "INC1", "NAIROBI West", "In progress") == {
        "ticket_id": "INC1",
        "region": "nairobi west",
        "raw_status": "IN PROGRESS",
    }


def test_a_column_without_a_name_is_kept_by_its_place() -> None:
    assert kept("ticket_id,,", "INC1", "a", "b") == {"ticket_id": "INC1", "column_2": "a", "column_3": "b"}


@pytest.mark.parametrize("value", ["true", "TRUE", "t", "T", "1"])
def test_alarms_are_dropped(value: str) -> None:
    assert clean("ticket_id,is_alarm", "INC1", value) is Dropped.ALARM


@pytest.mark.parametrize("value", ["false", "F", "0", ""])
def test_what_is_no_alarm_is_kept(value: str) -> None:
    assert isinstance(clean("ticket_id,is_alarm", "INC1", value), TicketRow)


@pytest.mark.parametrize(
    "fields", [["EXPORT STOPPED at 5000 rows"], ["EXPORT STOPPED", "", ""], ["", "EXPORT STOPPED: limit"]]
)
def test_the_sentinel_is_dropped_whatever_its_shape(fields: list[str]) -> None:
    assert clean("owner,ticket_id", *fields) is Dropped.SENTINEL


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("mttr", "12 min"),
        ("mttr", "NA"),
        ("mttr", "1e3"),
        ("mttr", "99999999999"),
        ("closed_at", "25/06/2026 10:00"),
        ("closed_at", "2026-02-30 10:00"),
        ("created_at_service", "2026-06-25 24:00"),
        ("scheduled_at", "soon"),
        ("is_actionable", "yes"),
        ("is_alarm", "perhaps"),
        ("latitude", "1,2"),
        ("longitude", "inf"),
        ("cluster", "x" * 1001),
        ("location_name", "\u5bae" * 334),
        ("mttr", "2147483647.5"),
    ],
)
def test_a_value_that_its_column_cannot_take_rejects_the_row(column: str, value: str) -> None:
    told = rejected(f"ticket_id,{column}", "INC1", value)
    assert told.startswith(f"{column} {value[:60]!r} is ")
    assert "those are" in told or "longer than" in told


def test_of_several_faults_the_first_is_told_as_the_feed_declares_its_columns() -> None:
    names = [name for name in INC.columns if name in {"closed_at", "mttr", "latitude"}]
    for header in (names, names[::-1]):
        told = rejected(",".join(["ticket_id", *header]), "INC1", "soon", "soon", "soon")
        assert told.startswith(f"{names[0]} 'soon' is ")


def test_a_row_that_cannot_be_a_ticket_is_rejected() -> None:
    assert rejected("ticket_id,owner", "", "x") == "has no ticket_id"
    assert rejected("ticket_id,owner", " ", "x") == "has no ticket_id"
    assert rejected("ticket_id,owner", "NULL", "x") == "has no ticket_id"
    assert rejected("ticket_id,owner", "INC1", "a\0b") == "has a NUL byte in it"
    assert rejected("ticket_id,owner", "INC1", "x" * 2_000_000) == (
        "has a field of 2,000,000 characters, more than 1,048,576"
    )
    assert rejected("ticket_id", "x" * 201) == "has a ticket_id of 201 characters, more than 200"
    assert rejected("ticket_id", "Ticket ID") == "has the name of a column where an id belongs"


@pytest.mark.parametrize(
    ("value", "is_never"),
    [
        ("1989-12-31T23:59:59+03:00", True),
        ("1990-01-01", False),
        ("2099-12-31T23:59:59-12:00", False),
        ("2100-01-01", True),
        ("0001-01-01T00:00:00+14:00", True),
        ("0000-00-00 00:00:00", True),
        ("9999-12-31T23:59:59-12:00", True),
        ("", False),
    ],
)
def test_a_date_of_no_year_that_a_ticket_can_be_of_is_none_and_is_counted(value: str, is_never: bool) -> None:
    cleaner = cleaner_of(["ticket_id", "closed_at"])
    row = cleaner.clean(Record(2, ["INC1", value], ""))
    assert isinstance(row, TicketRow)
    assert (json.loads(row.raw)["closed_at"] or "") == value
    assert (cleaner.never, row.closed_at is None) == (int(is_never), is_never or not value)


def test_a_date_of_never_in_a_column_that_stands_twice_is_counted_once() -> None:
    cleaner = cleaner_of(["ticket_id", "closed_at", "Closed At"])
    cleaner.clean(Record(2, ["INC1", "0001-01-01", "0001-01-01"], ""))
    assert cleaner.never == 1


@pytest.mark.parametrize("word", INC.nothing)
def test_a_word_for_nothing_is_an_empty_value_in_columns_of_the_feed(word: str) -> None:
    header = "ticket_id,closed_at,cluster,owner,is_alarm,mttr,department,other"
    assert kept(header, "INC1", word, word, word, word, word, word, word) == {
        "ticket_id": "INC1",
        "department": word,
        "other": word,
    }


def test_places_are_spelt_in_one_way() -> None:
    assert kept("ticket_id,cluster,location_name,owner", "INC1", "Nyali\u00a0 A", '="Gate\u200b B"', "A\u00a0B") == {
        "ticket_id": "INC1",
        "cluster": "Nyali A",
        "location_name": "Gate B",
        "owner": "A\u00a0B",
    }


def test_an_id_is_in_the_case_that_its_column_has() -> None:
    upper = INC.columns[INC.id].model_copy(update={"case": "upper"})
    feed = INC.model_copy(update={"columns": INC.columns | {INC.id: upper}})
    row = clean("ticket_id,owner", "inc1", "x", feed=feed)
    assert isinstance(row, TicketRow)
    assert (row.ticket_id, json.loads(row.raw)["ticket_id"]) == ("INC1", "INC1")


def test_an_id_that_stands_twice_and_once_as_nothing_fails_the_file() -> None:
    with pytest.raises(Permanent, match="columns twice"):
        clean("ticket_id,owner,Ticket ID", "", "x", "INC1")


def test_what_is_never_kept_is_neither_too_long_nor_has_to_be_alike_nor_is_told() -> None:
    feed = INC.model_copy(update={"never_kept": frozenset({"notes"})})
    fields = ("INC1", "a secret", "x" * 2_000_000)
    assert raw_of("ticket_id,notes,Notes", *fields, feed=feed) == {"ticket_id": "INC1"}


@pytest.mark.promise("Bounded")
def test_what_is_remembered_of_columns_is_bounded_in_bytes() -> None:
    name = "x" * 15_000
    header = ["ticket_id", "is_alarm", name]
    tracemalloc.start()
    try:
        cleaner = cleaner_of(header)
        for number in range(5000):
            assert cleaner.clean(Record(7, [f"INC{number}", "true", f"{number}é\U0001f600"], "")) is Dropped.ALARM
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20 * 1024 * 1024


def test_what_is_never_kept_has_no_other_spelling_that_is() -> None:
    feed = INC.model_copy(update={"never_kept": frozenset({"phone"})})
    assert raw_of("ticket_id,Phone,PHO-NE", "INC1", "0700", "0700", feed=feed) == {"ticket_id": "INC1"}


def test_the_text_of_a_rejected_row_is_kept_in_a_form_that_postgres_takes() -> None:
    row = clean("ticket_id,owner", "INC1", "\0", raw="INC1,\0" + "x" * 20_000)
    assert isinstance(row, RowReject)
    assert row.raw.startswith("INC1,\u2400xxx")
    assert len(row.raw) == 10_000


@pytest.mark.parametrize(
    "text",
    [
        "2026-06-25 14:20",
        "2026-06-25 14:20:00",
        "2026-06-25T14:20:00.000",
        "2026-06-25T11:20:00Z",
        "2026-06-25T14:20:00+03:00",
        "2026-06-25 14:20:00 +0300",
        "2026-06-25 14:20+03",
        "2026-06-25T06:20:00-05:00",
    ],
)
def test_timestamps_without_a_zone_are_east_africa_time(text: str) -> None:
    assert read_timestamp(text) == datetime(2026, 6, 25, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "2026", "25-06-2026 10:00", "2026-06-25 1:00", "2026-06-25 10:60", "2026-06-25T10:00+25:00", "20260625"],
)
def test_anything_else_is_no_timestamp(text: str) -> None:
    assert read_timestamp(text) is None


IDS = ("INC1", " inc-2 ", "", "N/A", "00118", "='INC3'", "INC\u200b4", "owner", "INC\n5", "EXPORT STOPPED", "x" * 201)
TEXTS = (
    "", " ", "N/A", "closed", "2026-06-25 14:20", "0001-01-01", "soon", "true", "TRUE ", "90.5", "x\0y", 'a "b"\\',
    "Karen\u00a0Gate", "\U0001f600", "EXPORT STOPPED", "é" * 3000,
)  # fmt: skip
HEADERS = (
    ["ticket_id", "closed_at", "is_alarm", "raw_status", "mttr", "location_name"],
    ["owner", "note", "ticket_id", "Closed At", "REGION", "é", "", ""],
    ["ticket_id", "owner", "Owner", "TICKET ID", "is_alarm"],
)


@st.composite
def records(draw: st.DrawFn) -> tuple[list[str], list[Record]]:
    header = draw(st.sampled_from(HEADERS))
    found = []
    for line in range(2, 2 + draw(st.integers(0, 12))):
        fields = draw(st.lists(st.sampled_from(TEXTS), min_size=len(header), max_size=len(header)))
        fields[header.index("ticket_id")] = draw(st.sampled_from(IDS))
        fault = draw(st.sampled_from((None, None, None, "has 3 fields", "is not UTF-8: byte 0xFC")))
        if fault:
            fields = [*fields[: draw(st.integers(0, len(fields)))], "M\udcfcthaiga"]
        found.append(Record(line, fields, ",".join(fields) + "\n", fault=fault))
    return header, found


@given(records())
def test_several_are_cleaned_as_each_by_itself(given_records: tuple[list[str], list[Record]]) -> None:
    header, found = given_records
    one_by_one, together = cleaner_of(header), cleaner_of(header)
    told: list[list[object]] = [[], []]
    for judged, rows in zip(told, (map(one_by_one.clean, found), together.clean_all(found)), strict=True):
        try:
            judged.extend(rows)
        except Permanent as error:
            judged.append(error.detail)
    assert told[1] == told[0]
    assert together.never == one_by_one.never


def test_what_a_row_keeps_is_in_the_order_in_which_jsonb_keeps_it() -> None:
    header = "owner,ticket_id,week_start,mttr,é,department,closed_at,aa"
    names = list(raw_of(header, "x", "INC1", "x", "1", "x", "x", "", "x"))
    assert names == ["aa", "é", "mttr", "owner", "closed_at", "ticket_id", "department", "week_start"]

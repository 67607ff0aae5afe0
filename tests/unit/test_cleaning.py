"""What one row goes through."""

import json
from datetime import UTC, datetime

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.feeds.feed import Feed, Years
from consumer.files.cleaning import Cleaner, Dropped, RowReject, TicketRow, read_timestamp
from consumer.files.reading import Record
from publisher.errors import Permanent

INC = packaged_feeds().named("inc")


def clean(header: str, *fields: str, raw: str = "as it was\n", feed: Feed = INC) -> TicketRow | RowReject | Dropped:
    cleaner = Cleaner(Record(1, header.split(","), header), feed)
    return cleaner.clean(Record(7, list(fields), raw))


def kept(header: str, *fields: str) -> dict[str, str | None]:
    row = clean(header, *fields)
    assert isinstance(row, TicketRow)
    values: dict[str, str | None] = json.loads(row.raw)
    return values


def rejected(header: str, *fields: str) -> str:
    row = clean(header, *fields)
    assert isinstance(row, RowReject)
    assert row.line == 7
    assert row.raw == "as it was"
    return row.reason


def test_every_value_is_kept() -> None:
    assert kept("owner,ticket_id,week_start,department,other", "", "INC1", "2026-06-22", "NOC", " x ") == {
        "ticket_id": "INC1",
        "week_start": "2026-06-22",
        "department": "NOC",
        "other": "x",
    }


def test_the_feeds_own_columns_are_null_where_they_are_empty_and_others_are_not_there() -> None:
    cleaner = Cleaner(Record(1, ["owner", "ticket_id", "other", "source_type", ""], ""), INC)
    assert json.loads(cleaner.blanks) == {"owner": None, "ticket_id": None, "source_type": None}


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
        ("mttr", "NaN"),
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
    assert rejected(f"ticket_id,{column}", "INC1", value).startswith(f"{column} {value[:60]!r} is ")


def test_a_row_that_cannot_be_a_ticket_is_rejected() -> None:
    assert rejected("ticket_id,owner", "", "x") == "no ticket_id"
    assert rejected("ticket_id,owner", " ", "x") == "no ticket_id"
    assert rejected("ticket_id,owner", "INC1") == "1 fields where the header has 2"
    assert rejected("ticket_id,owner", "INC1", "a", "b") == "3 fields where the header has 2"
    assert rejected("ticket_id,owner", "INC1", "a\0b") == "a NUL byte"
    assert (
        rejected("ticket_id,owner", "INC1", "x" * 2_000_000) == "a field of 2,000,000 characters, more than 1,048,576"
    )
    assert rejected("ticket_id", "x" * 201) == "a ticket_id of 201 characters"


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        ("1989-12-31T23:59:59+03:00", False),
        ("1990-01-01", True),
        ("2099-12-31T23:59:59-12:00", True),
        ("2100-01-01", False),
        ("0001-01-01T00:00:00+14:00", False),
        ("9999-12-31T23:59:59-12:00", False),
        ("", True),
    ],
)
def test_a_feed_may_say_of_which_years_its_timestamps_are(value: str, is_kept: bool) -> None:
    feed = INC.model_copy(update={"years": Years(first=1990, last=2099)})
    row = clean("ticket_id,closed_at", "INC1", value, feed=feed)
    assert isinstance(row, TicketRow if is_kept else RowReject)
    assert not isinstance(row, RowReject) or "no timestamp of 1990 to 2099" in row.reason


def test_the_text_of_a_rejected_row_is_kept_in_a_form_that_postgres_takes() -> None:
    row = clean("ticket_id,owner", "INC1", "\0", raw="INC1,\0" + "x" * 20_000)
    assert isinstance(row, RowReject)
    assert row.raw.startswith("INC1,\u2400xxx")
    assert len(row.raw) == 10_000


@pytest.mark.parametrize(
    ("header", "reason"),
    [("owner,region", "no ticket_id"), ("ticket_id,owner,owner", "double column"), ("", "no ticket_id")],
)
def test_a_header_that_cannot_be_used_fails_the_file(header: str, reason: str) -> None:
    with pytest.raises(Permanent) as failure:
        Cleaner(Record(1, header.split(","), header), INC)
    assert failure.value.reason == reason


def test_a_name_made_up_for_a_column_must_not_hide_another() -> None:
    with pytest.raises(Permanent, match="'column_3' twice"):
        Cleaner(Record(1, ["ticket_id", "column_3", ""], ""), INC)


def test_a_header_of_millions_of_columns_fails_the_file_before_it_fills_the_memory() -> None:
    with pytest.raises(Permanent, match="too many columns: the header has 2,001"):
        Cleaner(Record(1, ["ticket_id"] + [f"c{number}" for number in range(2000)], ""), INC)


@pytest.mark.parametrize("names", [[f"{number:01000}" for number in range(17)], ["ŷ" * 8189], [""] * 1600])
def test_a_header_of_long_names_fails_the_file_for_each_row_would_repeat_them(names: list[str]) -> None:
    with pytest.raises(Permanent, match=r"header too large: names of [\d,]+ bytes, more than 16,384"):
        Cleaner(Record(1, ["ticket_id", *names], ""), INC)
    Cleaner(Record(1, ["ticket_id", *(name[:8000] for name in names[:16])], ""), INC)


def test_a_header_that_cannot_be_read_is_not_one_without_ticket_id() -> None:
    with pytest.raises(Permanent, match="no header: more than 2,097,152 characters"):
        Cleaner(Record(1, [], "", "more than 2,097,152 characters"), INC)


def test_an_empty_file_has_no_header() -> None:
    with pytest.raises(Permanent, match="the file is empty"):
        Cleaner(None, INC)


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

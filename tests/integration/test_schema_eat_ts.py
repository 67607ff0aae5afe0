"""tickets.eat_ts(): what the feed calls a time, whatever the connection's settings are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Protocol

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EAT = timezone(timedelta(hours=3))


class Database(Protocol):
    @property
    def url(self) -> str: ...


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        yield connection


TIMES = {
    "2026-06-25": "2026-06-24T21:00:00Z",
    "2026-06-25 14:20": "2026-06-25T11:20:00Z",
    "2026-06-25 14:20:30": "2026-06-25T11:20:30Z",
    "2026-06-25 14:20:30.5": "2026-06-25T11:20:30.500000Z",
    "2026-06-25 14:20:30.123456": "2026-06-25T11:20:30.123456Z",
    "2026-06-25 14:20:30.123456789": "2026-06-25T11:20:30.123456Z",
    "2026-06-25 23:59:59.999999999": "2026-06-25T20:59:59.999999Z",
    "2026-06-25T14:20": "2026-06-25T11:20:00Z",
    "2026-06-25T14:20:30": "2026-06-25T11:20:30Z",
    "2026-06-25T14:20Z": "2026-06-25T14:20:00Z",
    "2026-06-25T14:20:30Z": "2026-06-25T14:20:30Z",
    "2026-06-25T14:20:30.123456789Z": "2026-06-25T14:20:30.123456Z",
    "2026-06-25 14:20:30+03:00": "2026-06-25T11:20:30Z",
    "2026-06-25 14:20:30 +03:00": "2026-06-25T11:20:30Z",
    "2026-06-25T14:20:30+0300": "2026-06-25T11:20:30Z",
    "2026-06-25T14:20:30+03": "2026-06-25T11:20:30Z",
    "2026-06-25T14:20+03:00": "2026-06-25T11:20:00Z",
    "2026-06-25T14:20:30-05:30": "2026-06-25T19:50:30Z",
    "2026-06-25T14:20:30.25-05": "2026-06-25T19:20:30.250000Z",
    "2026-06-25T14:20:30+00:00": "2026-06-25T14:20:30Z",
    "  2026-06-25 14:20:30  ": "2026-06-25T11:20:30Z",
    "\t2026-06-25\r\n": "2026-06-24T21:00:00Z",
    "2024-02-29": "2024-02-28T21:00:00Z",
    "2000-02-29 12:00": "2000-02-29T09:00:00Z",
    "2026-04-30 12:00": "2026-04-30T09:00:00Z",
    "2026-01-31T12:00Z": "2026-01-31T12:00:00Z",
    "2026-01-01 01:30": "2025-12-31T22:30:00Z",
    "2026-02-03 04:05:06": "2026-02-03T01:05:06Z",
    "1990-01-01": "1989-12-31T21:00:00Z",
    "2099-12-31T23:59:59.999999-15:00": "2100-01-01T14:59:59.999999Z",
}
NO_TIMES = [
    "",
    "   ",
    "now",
    "today",
    "infinity",
    "epoch",
    "2026",
    "2026-06",
    "20260625",
    "25-06-2026",
    "06/25/2026",
    "2026/06/25 14:20",
    "2026-6-25",
    "2026-02-29",
    "2026-02-30",
    "2026-04-31 10:00",
    "1900-02-29",
    "2026-00-10",
    "2026-13-10",
    "2026-06-00",
    "2026-06-32",
    "0000-01-01",
    "0001-01-02",
    "0001-01-01T00:00:00",
    "1753-01-01",
    "1899-12-30",
    "1900-01-01 00:00:00",
    "1970-01-01T00:00:00Z",
    "1989-12-31 23:59:59.999999",
    "2100-01-01",
    "2999-12-31",
    "9999-12-31 23:59:59",
    "12026-06-25",
    "2026-06-25 14",
    "2026-06-25 24:00",
    "2026-06-25 25:00:00",
    "2026-06-25 14:60",
    "2026-06-25 14:20:60",
    "2026-06-25 14:20.5",
    "2026-06-25 14:20:30.",
    "2026-06-25 14:20:30,5",
    "2026-06-25 14:20:30.5.5",
    "2026-06-25 14:20:30." + "9" * 500,
    "2026-06-25  14:20",
    "2026-06-25_14:20",
    "2026-06-25t14:20:30z",
    "2026-06-25 14:20:30 EAT",
    "2026-06-25 14:20:30+3",
    "2026-06-25 14:20:30+03:60",
    "2026-06-25 14:20:30+16:00",
    "2026-06-25 14:20:30+03:00:00",
    "2026-06-25Z",
    "2026-06-25+03:00",
    "2026-06-25 1a:20:30",
    "2026-06-25 14:20:30 BC",
    "٢٠٢٦-06-25 14:20:30",
    "20\uff126-06-25",
    "éééé-06-25 14:20",
    "2026-06-25 14:20:30'; SELECT 1",
]


ZONES = ["UTC", "Africa/Nairobi", "America/New_York", "Asia/Kolkata"]
DATE_STYLES = ["ISO, MDY", "SQL, DMY", "German", "Postgres, YMD"]


def use(connection: psycopg.Connection, zone: str, date_style: str) -> None:
    connection.execute(
        "SELECT set_config('TimeZone', %s, false), set_config('DateStyle', %s, false)", [zone, date_style]
    )


def eat_ts(connection: psycopg.Connection, text: str | None) -> str | None:
    """The instant in UTC as text, so that no setting of the connection has a part in the comparison."""
    row = connection.execute(
        """SELECT to_char(tickets.eat_ts(%s) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""", [text]
    ).fetchone()
    assert row is not None
    instant: str | None = row[0]
    return instant.replace(".000000Z", "Z") if instant else None


def test_a_time_means_the_same_on_every_connection(connection: psycopg.Connection) -> None:
    for zone, date_style in product(ZONES, DATE_STYLES):
        use(connection, zone, date_style)
        assert {text: eat_ts(connection, text) for text in TIMES} == TIMES, (zone, date_style)


def test_anything_else_is_null_and_no_error(connection: psycopg.Connection) -> None:
    for zone, date_style in product(ZONES, DATE_STYLES):
        use(connection, zone, date_style)
        assert {text: eat_ts(connection, text) for text in NO_TIMES} == dict.fromkeys(NO_TIMES), (zone, date_style)
    assert eat_ts(connection, None) is None


def test_a_z_is_utc_even_where_the_connection_has_other_abbreviations(connection: psycopg.Connection) -> None:
    connection.execute("SET timezone_abbreviations = 'Australia'")
    assert eat_ts(connection, "2026-06-25T14:20:30Z") == "2026-06-25T14:20:30Z"


@given(
    moment=st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2099, 12, 31)),  # noqa: DTZ001 - the zone is drawn apart
    separator=st.sampled_from([" ", "T"]),
    precision=st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]),
    offset=st.none() | st.integers(min_value=-15 * 60, max_value=15 * 60),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_reads_what_python_writes(
    connection: psycopg.Connection, moment: datetime, separator: str, precision: str, offset: int | None
) -> None:
    if offset is not None:
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = moment.isoformat(sep=separator, timespec=precision)
    written = datetime.fromisoformat(text)
    instant = (written if written.tzinfo else written.replace(tzinfo=EAT)).astimezone(UTC)
    row = connection.execute("SELECT tickets.eat_ts(%s) = %s", [text, instant]).fetchone()
    assert row == (True,), text


@given(text=st.from_regex(r"[0-9]{4}-[0-3][0-9]-[0-3][0-9]([ T][0-2][0-9]:[0-6][0-9](:[0-6][0-9])?)?", fullmatch=True))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_knows_the_calendar_as_python_does(connection: psycopg.Connection, text: str) -> None:
    try:
        exists = 1990 <= datetime.fromisoformat(text).year <= 2099
    except ValueError:
        exists = False
    row = connection.execute("SELECT tickets.eat_ts(%s) IS NOT NULL", [text]).fetchone()
    assert row == (exists,), text


@given(text=st.text(alphabet="0123456789-+:.TZ eE\t٣é", max_size=40))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_makes_a_reader_of_the_feed_fail(connection: psycopg.Connection, text: str) -> None:
    connection.execute(
        "SELECT tickets.eat_ts(%(text)s), tickets.feed_number(%(text)s), tickets.feed_degrees(%(text)s),"
        " tickets.feed_minutes(%(text)s), tickets.feed_flag(%(text)s)",
        {"text": text},
    )

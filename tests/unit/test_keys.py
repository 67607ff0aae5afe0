"""The key grammar: what counts as a change file, and which instant its name says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.arrivals.keys import EAT, ChangeFileKey, NotAChangeFile, read_key

CHANGES = "automations/inc/changes/"
NOON = datetime(2026, 6, 25, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        "2026-06-25T142000",
        "2026-06-25T14-20-00",
        "2026-06-25T14:20:00",
        "20260625_142000",
        "20260625T142000",
        "2026-06-25 14:20:00+03:00",
        "2026-06-25 14:20:00+0300",
        "2026-06-25T11:20:00Z",
        "2026-06-25T06-20-00-05:00",
        "2026-06-25T1420",
        "2026-06-25T142000.000",
        "20260625_142000,000000000",
    ],
)
def test_every_form_that_exporters_write_names_the_same_instant(name: str) -> None:
    assert read_key(f"{CHANGES}{name}.csv", CHANGES) == ChangeFileKey(f"{CHANGES}{name}.csv", NOON)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2026-06-25T142000.txt", "not a .csv or .csv.gz file"),
        ("readme.csv", "its name is not a timestamp"),
        ("2026-06-25.csv", "its name is not a timestamp"),
        ("2026-06-25T142000-part1.csv", "its name is not a timestamp"),
        ("2026-0625T142000.csv", "its name is not a timestamp"),
        ("2026-02-30T142000.csv", "its name is not a date that exists"),
        ("2026-06-25T252000.csv", "its name is not a date that exists"),
        ("2026-06-25T142000+99:00.csv", "its name is not a date that exists"),
        ("9999-12-31T235959-12:00.csv", "its name is not a date that exists"),
        ("٢٠٢٦-06-25T142000.csv", "its name is not a timestamp"),
        ("sub/2026-06-25T142000.csv", "in a folder below changes/"),
        ("", "not a .csv or .csv.gz file"),
        (".csv", "its name is not a timestamp"),
        ("2026-06-25T142000.gz", "not a .csv or .csv.gz file"),
    ],
)
def test_any_other_key_is_left_alone_with_a_reason(name: str, reason: str) -> None:
    assert read_key(f"{CHANGES}{name}", CHANGES) == NotAChangeFile(f"{CHANGES}{name}", reason)


@pytest.mark.parametrize("suffix", [".csv.gz", ".CSV", ".Csv.GZ"])
def test_a_packed_file_has_its_instant_too(suffix: str) -> None:
    key = f"{CHANGES}2026-06-25T142000{suffix}"
    assert read_key(key, CHANGES) == ChangeFileKey(key, NOON)


def test_fractions_of_a_second_order_files() -> None:
    keys = [
        read_key(f"{CHANGES}2026-06-25T142000.{digits}.csv", CHANGES) for digits in ("1", "25", "999999", "9999999")
    ]
    times = [key.time for key in keys if isinstance(key, ChangeFileKey)]
    assert times == sorted(times)
    assert len(times) == len(keys)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=0)))  # noqa: DTZ001
def test_a_stamp_without_a_zone_is_east_africa_time(at: datetime) -> None:
    key = read_key(f"{CHANGES}{at:%Y-%m-%dT%H%M%S}.csv", CHANGES)
    assert isinstance(key, ChangeFileKey)
    assert key.time == at.replace(tzinfo=EAT)
    assert key.time.utcoffset() == timedelta(0)


@given(st.text())
def test_no_name_makes_it_fail(name: str) -> None:
    assert read_key(f"{CHANGES}{name}", CHANGES).key == f"{CHANGES}{name}"

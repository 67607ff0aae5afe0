"""The demo's feed is the same for the same seed and has in it what it is there to show."""

import csv
import functools
import io
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from consumer.demo.feed import COLUMNS, FEWEST_FILES, FEWEST_ROWS, MadeFeed, make_feed, make_feeds
from consumer.demo.model import INC
from publisher.arrivals.keys import ChangeFileKey, read_key

UNTIL = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@functools.cache
def made(files: int = 60, rows: int = 200) -> MadeFeed:
    return make_feed(INC, files=files, rows=rows, seed=7, until=UNTIL)


def rows_of(feed: MadeFeed) -> list[dict[str, str]]:
    """Every row of the right length, in the order in which the files are put."""
    texts = [file.body.decode("latin-1") for file in feed.files]
    lines = [fields for text in texts for fields in list(csv.reader(io.StringIO(text)))[1:]]
    return [dict(zip(COLUMNS, fields, strict=True)) for fields in lines if len(fields) == len(COLUMNS)]


@pytest.fixture(scope="module", params=[(60, 200), (FEWEST_FILES, FEWEST_ROWS)], ids=["usual", "smallest"])
def feed(request: pytest.FixtureRequest) -> MadeFeed:
    return made(*request.param)


@pytest.fixture(scope="module")
def rows(feed: MadeFeed) -> list[dict[str, str]]:
    return rows_of(feed)


def test_the_same_seed_gives_the_same_bytes(feed: MadeFeed) -> None:
    rows = len(feed.files[0].body.splitlines()) - 1

    assert make_feed(INC, files=len(feed.files), rows=rows, seed=7, until=UNTIL) == feed
    assert make_feed(INC, files=len(feed.files), rows=rows, seed=8, until=UNTIL) != feed


def test_every_name_is_a_change_file_s_and_stands_for_its_instant(feed: MadeFeed) -> None:
    for file in feed.files:
        assert read_key(f"changes/{file.key}", "changes/") == ChangeFileKey(f"changes/{file.key}", file.key_time)


def test_the_names_show_more_than_one_form(feed: MadeFeed) -> None:
    assert any("+03:00" in file.key for file in feed.files)
    assert any("_" in file.key for file in feed.files)


def test_the_late_file_is_put_last_and_is_not_the_newest(feed: MadeFeed) -> None:
    *others, last = feed.files

    assert last.key == feed.late
    assert any(file.key_time > last.key_time for file in others)


def test_exactly_one_file_lacks_a_column(feed: MadeFeed) -> None:
    assert [file.key for file in feed.files if b"closed_at" not in file.body.splitlines()[0]] == [feed.incomplete]


def test_the_special_files_are_different_ones(feed: MadeFeed) -> None:
    assert len({feed.late, feed.incomplete, feed.announced_twice}) == 3
    assert {feed.late, feed.incomplete, feed.announced_twice} <= {file.key for file in feed.files}


def test_tickets_are_opened_closed_and_reopened(rows: list[dict[str, str]]) -> None:
    seen: dict[str, set[bool]] = {}
    for row in rows:
        seen.setdefault(row["ticket_id"], set()).add(bool(row["closed_at"]))
    assert {True, False} in seen.values()
    assert {False} in seen.values()


def test_a_reopened_ticket_is_closed_in_an_older_file() -> None:
    feed = made()
    closed: set[str] = set()
    reopened = set()
    for file in sorted(feed.files, key=lambda file: file.key_time):
        if file.key == feed.incomplete:
            continue
        for row in csv.DictReader(io.StringIO(file.body.decode("latin-1")), fieldnames=COLUMNS):
            if row["closed_at"] and row["closed_at"] != "closed_at":
                closed.add(row["ticket_id"])
            elif row["ticket_id"] in closed:
                reopened.add(row["ticket_id"])
    assert len(reopened) > 50


def test_only_closed_tickets_have_a_mttr(rows: list[dict[str, str]]) -> None:
    assert all(bool(row["mttr"]) == bool(row["closed_at"]) for row in rows)
    assert any("." in row["mttr"] for row in rows)


def test_it_has_alarms_the_sentinel_and_bad_rows(feed: MadeFeed, rows: list[dict[str, str]]) -> None:
    assert any(row["is_alarm"].lower() in {"true", "t", "1"} for row in rows)
    assert any(row["ticket_id"].startswith("EXPORT STOPPED") for row in rows)
    assert any("31/06/2026 14:20" in row.values() for row in rows)
    assert any(not row["ticket_id"] for row in rows)
    complete = [file for file in feed.files if file.key != feed.incomplete]
    lengths = {len(fields) for file in complete for fields in csv.reader(io.StringIO(file.body.decode()))}
    assert lengths == {len(COLUMNS), len(COLUMNS) + 1}


def test_about_three_in_ten_tickets_have_no_start() -> None:
    rows = rows_of(made())
    starts = {row["ticket_id"]: row["created_at_service"] for row in rows}

    assert 0.25 < sum(not start for start in starts.values()) / len(starts) < 0.35


def test_the_awkward_clusters_and_the_network_codes_are_there(rows: list[dict[str, str]]) -> None:
    assert {"QOA", "PTMP"} <= {row["cluster"] for row in rows}
    assert any("GPON-" in row["location_name"] and "-FAT" in row["location_name"] for row in rows)
    assert any("," in row["location_name"] for row in rows)


def test_some_rows_come_again_as_they_were(feed: MadeFeed) -> None:
    by_time = sorted(feed.files, key=lambda file: file.key_time)
    lines = [set(file.body.splitlines()[1:]) for file in by_time]

    assert all(before & after for before, after in pairwise(lines[:3]))


@pytest.mark.parametrize("files", [2 * FEWEST_FILES, 60])
def test_both_feeds_are_played_and_share_the_files(files: int) -> None:
    incidents, changes = make_feeds(files=files, rows=FEWEST_ROWS, seed=7, until=UNTIL)

    assert (incidents.model.name, changes.model.name) == ("inc", "crq")
    assert len(incidents.files) + len(changes.files) == files
    assert len(incidents.files) >= len(changes.files) >= FEWEST_FILES
    assert {file.body.partition(b",")[0] for file in changes.files} == {b"ticket_id"}
    assert b"is_alarm" not in changes.files[0].body

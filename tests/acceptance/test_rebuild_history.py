"""What tickets were before their history was kept comes from the archive, whatever happens meanwhile."""

from typing import Any

import pytest

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

OFF = {"FLEETTICKETS_KEEP_VERSIONS_DAYS": "0"}
OWNERS = ("Ann", "Ben", "Ben", "Cy", "Ann", "Dan")


@pytest.fixture
def past(stage: Stage) -> Stage:
    """Six files of before, in the archive."""
    stage.bucket.put_all({
        key_at(place): csv([ticket(f"INC{number}", owner=owner) for number in range(3)])
        for place, owner in enumerate(OWNERS)
    })  # fmt: skip
    assert stage.run("drain", "--apply", **OFF).returncode == 0
    return stage


def owners(stage: Stage, number: int = 0) -> list[tuple[str, str]]:
    """Who had a ticket, and from which file on."""
    changes = stage.ask("explain", "--ticket", f"INC{number}", "--history")["history"]["changes"]
    return [
        (value["new"], change["key"])
        for change in changes for value in change["values"] if value["column"] == "owner"
    ]  # fmt: skip


EXPECTED = [("Ann", key_at(0)), ("Ben", key_at(1)), ("Cy", key_at(3)), ("Ann", key_at(4)), ("Dan", key_at(5))]


def rebuilt(stage: Stage) -> dict[str, Any]:
    (inc,) = stage.ask("rebuild-history", "--feed", "inc")["feeds"]
    return dict(inc)


def contents(stage: Stage) -> list[dict[str, Any]]:
    return stage.query(
        "SELECT ticket_id, until_line, until, raw FROM tickets.versions WHERE feed = 'inc' ORDER BY ticket_id, until"
    )


@pytest.mark.promise("Order-free", "Late files count")
def test_all_that_was_told_before_is_read_once(past: Stage) -> None:
    assert past.ask("explain", "--ticket", "INC0", "--history")["history"]["is_kept"] is False
    before = past.query("SELECT * FROM tickets.inc ORDER BY ticket_id")
    assert past.ask("rebuild-history", "--dry-run", "--feed", "inc") == {"files": {"inc": 6}}
    assert contents(past) == []
    first = rebuilt(past)
    assert (first["files"], first["rows"], first["unread"], first["since"]) == (6, 18, [], None)
    assert owners(past) == EXPECTED
    assert past.query("SELECT * FROM tickets.inc ORDER BY ticket_id") == before
    known = contents(past)
    assert rebuilt(past)["files"] == 0
    assert contents(past) == known


@pytest.mark.promise("Order-free", "Late files count")
def test_files_that_come_before_it_and_late_ones_are_in_their_places(past: Stage) -> None:
    past.bucket.put_all({
        key_at(6): csv([ticket("INC0", owner="Eve")]),
        key_at(2.5): csv([ticket("INC0", owner="Late")]),
    })  # fmt: skip
    assert past.run("drain", "--apply").returncode == 0
    assert owners(past)[-1] == ("Eve", key_at(6))
    since = past.ask("explain", "--ticket", "INC0", "--history")["history"]["since"]
    assert since is not None
    rebuilt(past)
    late = ("Late", key_at(2.5))
    assert owners(past) == [*EXPECTED[:2], late, *EXPECTED[2:], ("Eve", key_at(6))]
    assert owners(past, 1) == EXPECTED


def kill_after(stage: Stage, files: int) -> int:
    """Kill it while it reads, once so many were told of. Gives how many were then."""
    told = "SELECT count(*) FROM ingest.tellings WHERE feed = 'inc' AND is_whole"
    reading = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND starts_with(query, 'COPY staging')"
    )
    process = stage.start("rebuild-history", "--feed", "inc")
    wait_until(lambda: stage.one(told) >= files and stage.one(reading), "it reads")
    process.kill()
    return int(stage.one(told))


@pytest.mark.promise("Exactly once")
def test_killed_at_any_moment_it_goes_on(stage: Stage) -> None:
    files = 250  # more than are read in two transactions
    stage.bucket.put_all({
        key_at(place): csv([ticket(f"INC{place % 7}", owner=OWNERS[place // 7 % len(OWNERS)])])
        for place in range(files)
    })  # fmt: skip
    assert stage.run("drain", "--apply", **OFF).returncode == 0
    found = [kill_after(stage, told) for told in (0, 1, 101)]
    assert found[0] < found[1] < found[2] < files  # on its way each time
    assert rebuilt(stage)["files"] == files - found[-1]
    for number in range(7):
        expected = [key_at(place) for place in range(number, files, 7)]
        assert [key for _, key in owners(stage, number)] == [
            key for key, place in zip(expected, range(number, files, 7), strict=True)
            if place < 7 or OWNERS[place // 7 % 6] != OWNERS[(place // 7 - 1) % 6]
        ]  # fmt: skip


def test_a_file_that_is_gone_is_named_and_holds_back_what_is_known(past: Stage) -> None:
    archived = past.one("SELECT archive_key FROM ingest.ledger WHERE key = %s", key_at(2))
    past.bucket.s3.delete_object(Bucket=past.bucket.name, Key=archived)
    ended = past.run("rebuild-history", "--feed", "inc", "--json")
    assert ended.returncode == 1
    (inc,) = past.json(ended)["feeds"]
    assert [file["key"] for file in inc["unread"]] == [key_at(2)]
    assert inc["files"] == len(OWNERS) - 1
    assert inc["since"] is not None
    assert owners(past) == EXPECTED  # it said what the one before it said


def test_where_nothing_is_kept_it_says_so(past: Stage) -> None:
    ended = past.run("rebuild-history", **OFF)
    assert ended.returncode == 2
    assert "FLEETTICKETS_KEEP_VERSIONS_DAYS is 0" in ended.stderr

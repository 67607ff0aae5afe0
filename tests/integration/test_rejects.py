"""Rejected rows: grouped by reason, and open until a later change of their ticket is applied."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres.database import Connection, Pool, Role
from consumer.settings import DatabaseSettings
from consumer.upkeep import rejects
from consumer.upkeep.rejects import Chosen
from tests.conftest import Database
from tests.integration.change_files import CHANGES, ChangeFile
from tests.stage.feeds import csv

INC = packaged_feeds().named("inc")
COLUMNS = (INC.id, *INC.always)
FIRST, SECOND, THIRD = "2026-06-25T140000", "2026-06-25T150000", "2026-06-25T160000"
MINUTE = timedelta(minutes=1)

Apply = Callable[..., Any]


@pytest.fixture
def reader(database: Database) -> Iterator[Connection]:
    """As the commands have it, with the rights of who only reads."""
    settings = DatabaseSettings.model_validate({"DATABASE_URL": database.url})
    with postgres.connect(settings, Role.READ) as connection:
        yield connection


def row(ticket_id: str, **values: str) -> dict[str, str]:
    return {"ticket_id": ticket_id, "raw_status": "NEW"} | values


def file(name: str, *rows: dict[str, str], etag: str = "etag", at: int = 0) -> ChangeFile:
    modified = datetime(2026, 6, 25, tzinfo=UTC) + at * MINUTE
    return ChangeFile(name, csv(rows, COLUMNS), etag, modified)


def still_open(reader: Connection) -> list[tuple[str, int]]:
    """File and line of each, as every way of asking tells it."""
    found = [(one.key.removeprefix(CHANGES)[:17], one.line) for one in rejects.rows(reader, INC, Chosen())]
    groups = rejects.groups(reader, INC, Chosen())
    assert sum(group.rows for group in groups) == len(found)
    assert rejects.open_rejects(reader, [INC])["inc"].rows == len(found)
    everything = list(rejects.rows(reader, INC, Chosen(with_settled=True)))
    assert [(one.key.removeprefix(CHANGES)[:17], one.line) for one in everything if not one.is_settled] == found
    total = rejects.groups(reader, INC, Chosen(with_settled=True))
    assert sum(group.rows - group.settled for group in total) == len(found)
    return found


def test_rows_that_differ_in_their_values_alone_are_one_group(apply: Apply, reader: Connection) -> None:
    apply(file(FIRST, row("A", mttr="soon"), row("B", closed_at="25.6.26"), row("C", mttr="later")))
    apply(file(SECOND, row("D", mttr="never")))
    minutes, times = rejects.groups(reader, INC, Chosen())
    assert (minutes.rows, minutes.files, minutes.key, minutes.line) == (3, 2, f"{CHANGES}{FIRST}.csv", 2)
    assert (times.rows, times.files, times.key, times.line) == (1, 1, f"{CHANGES}{FIRST}.csv", 3)
    assert "soon" not in minutes.reason
    assert minutes.reason.startswith("mttr ")
    first, second = (one["applied_at"] for one in reader.execute("SELECT applied_at FROM ingest.ledger ORDER BY 1"))
    assert (minutes.oldest, minutes.newest) == (first, second)
    of_group = list(rejects.rows(reader, INC, Chosen(group=minutes.fingerprint)))
    assert [(one.ticket_id, one.line, one.fingerprint) for one in of_group] == [
        (ticket, line, minutes.fingerprint) for ticket, line in (("A", 2), ("C", 4), ("D", 2))
    ]
    assert rejects.groups(reader, INC, Chosen(group=times.fingerprint)) == [times]


def test_a_row_stands_as_it_stood(apply: Apply, reader: Connection) -> None:
    apply(file(FIRST, row("A", mttr="soon", owner='"Two\nlines", he said')))
    (found,) = rejects.rows(reader, INC, Chosen())
    assert found.raw == csv([row("A", mttr="soon", owner='"Two\nlines", he said')], COLUMNS).decode().split("\n", 1)[
        1
    ].rstrip("\n")
    assert (found.line, found.lines, found.ticket_id, found.is_refused) == (2, 2, "A", False)


def test_a_file_and_an_age_choose(apply: Apply, reader: Connection, pool: Pool) -> None:
    apply(file(FIRST, row("A", mttr="soon")))
    apply(file(SECOND, row("B", mttr="soon")))
    with postgres.transaction(pool) as connection:
        connection.execute(
            "UPDATE ingest.ledger SET applied_at = now() - interval '3 h' WHERE key LIKE %s", [f"%{FIRST}%"]
        )
    for given in (f"{CHANGES}{FIRST}.csv", f"{FIRST}.csv"):
        files = rejects.files_called(reader, INC, given)
        assert [one.ticket_id for one in rejects.rows(reader, INC, Chosen(files))] == ["A"]
        assert [group.rows for group in rejects.groups(reader, INC, Chosen(files))] == [1]
    assert rejects.files_called(reader, INC, "2026-06-25T140000") == ()
    for chosen, tickets in (
        (Chosen(older_than=timedelta(hours=2)), ["A"]),
        (Chosen(newer_than=timedelta(hours=2)), ["B"]),
        (Chosen(older_than=timedelta(hours=2), newer_than=timedelta(hours=4)), ["A"]),
        (Chosen(older_than=timedelta(hours=4)), []),
    ):
        assert [one.ticket_id for one in rejects.rows(reader, INC, chosen)] == tickets
        assert sum(group.rows for group in rejects.groups(reader, INC, chosen)) == len(tickets)


def test_a_later_file_with_the_ticket_settles_its_reject(apply: Apply, reader: Connection) -> None:
    apply(file(SECOND, row("A", mttr="soon"), row("B", mttr="soon"), row("", mttr="soon")))
    assert still_open(reader) == [(SECOND, 2), (SECOND, 3), (SECOND, 4)]
    apply(file(THIRD, row("A", mttr="5")))
    assert still_open(reader) == [(SECOND, 3), (SECOND, 4)]


def test_a_late_file_with_the_ticket_does_not(apply: Apply, reader: Connection) -> None:
    apply(file(SECOND, row("A", mttr="soon")))
    apply(file(FIRST, row("A", mttr="5")))
    assert still_open(reader) == [(SECOND, 2)]


def test_a_later_line_with_the_ticket_settles_its_reject_and_an_earlier_one_does_not(
    apply: Apply, reader: Connection
) -> None:
    apply(file(FIRST, row("A"), row("A", mttr="soon"), row("B", mttr="soon"), row("B")))
    assert still_open(reader) == [(FIRST, 3)]


def test_a_mended_file_under_the_same_key_settles_all_rejects_of_the_one_before(
    apply: Apply, reader: Connection
) -> None:
    apply(file(FIRST, row("", mttr="soon"), row("B", mttr="soon"), row("C")))
    apply(file(FIRST, row("A"), row("B", mttr="still"), row("C"), etag="mended", at=1))
    assert still_open(reader) == [(FIRST, 3)]
    apply(file(FIRST, row("", mttr="soon"), row("B", mttr="soon"), row("C"), at=2))
    assert still_open(reader) == [(FIRST, 2), (FIRST, 3)], "the first bytes are back, and count"


def test_an_older_version_of_the_key_settles_nothing(apply: Apply, reader: Connection) -> None:
    apply(file(FIRST, row("", mttr="soon"), row("C"), at=1))
    apply(file(FIRST, row("C"), etag="older", at=0))
    assert still_open(reader) == [(FIRST, 2)]


@pytest.mark.parametrize(
    "fate",
    [
        "state = 'failed', applied_at = NULL",
        "state = 'failed'",
        "state = 'done', applied_at = NULL",
        "state = 'seen', applied_at = NULL",
    ],
    ids=["refused", "back and refused", "passed over", "seen"],
)
def test_a_later_version_that_is_not_applied_settles_nothing(
    apply: Apply, reader: Connection, pool: Pool, fate: str
) -> None:
    apply(file(FIRST, row("", mttr="soon"), row("C")))
    apply(file(FIRST, row("C"), etag="later", at=1))
    assert still_open(reader) == []
    with postgres.transaction(pool) as connection:
        connection.execute(
            f"UPDATE ingest.ledger SET {fate} WHERE etag = 'later'".encode()  # noqa: S608
        )
    assert still_open(reader) == [(FIRST, 2)]


def test_a_refused_version_is_settled_by_one_of_its_second(apply: Apply, reader: Connection, pool: Pool) -> None:
    """Which of them is the later one nobody knows: it counts as history, as everywhere."""
    apply(file(FIRST, row("", mttr="soon"), row("C"), etag="zzz"))
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.ledger SET state = 'failed', applied_at = NULL")
    assert still_open(reader) == [(FIRST, 2)]
    apply(file(FIRST, row("C"), etag="aaa"))
    assert still_open(reader) == []


def test_a_reject_of_a_line_that_was_taken_when_its_file_was_judged_anew_is_settled(
    apply: Apply, reader: Connection, pool: Pool
) -> None:
    apply(file(FIRST, row("A"), row("B")))
    with postgres.transaction(pool) as connection:
        connection.execute("""INSERT INTO ingest.rejects (file_id, line, reason, raw, reason_group, ticket_id)
                              SELECT file_id, 2, 'then', 'A', 'then', 'A' FROM ingest.ledger""")
    assert still_open(reader) == []


def test_a_file_that_the_policy_passes_over_has_nothing_open(apply: Apply, reader: Connection, pool: Pool) -> None:
    apply(file(FIRST, row("A", mttr="soon")))
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.ledger SET state = 'done', decision = 'changed', applied_at = NULL")
    assert still_open(reader) == []


def test_rows_come_page_by_page_and_each_once(
    apply: Apply, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (FIRST, SECOND):
        apply(file(name, row("GOOD"), *(row(f"{name}{number}", mttr="soon") for number in range(4))))
    monkeypatch.setattr(rejects, "_PAGE", 3)
    found = [(one.key, one.line) for one in rejects.rows(reader, INC, Chosen())]
    assert found == [(f"{CHANGES}{name}.csv", line) for name in (FIRST, SECOND) for line in range(3, 7)]
    for limit in (1, 3, 4, 8, 9):
        assert [(one.key, one.line) for one in rejects.rows(reader, INC, Chosen(), limit)] == found[:limit]


def test_a_total_looks_at_the_newest_alone_and_says_so(
    apply: Apply, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(file(FIRST, row("A", mttr="soon"), row("B", mttr="soon")))
    apply(file(SECOND, row("C", mttr="soon")))
    second = reader.execute("SELECT max(applied_at) AS at FROM ingest.ledger").fetchone()
    found = rejects.open_rejects(reader, packaged_feeds().served)
    assert (found["inc"].rows, found["inc"].files, found["inc"].newest_alone) == (3, 2, False)
    assert (found["crq"].rows, found["crq"].files, found["crq"].oldest) == (0, 0, None)
    monkeypatch.setattr(rejects, "LOOKED_AT", 1)
    found = rejects.open_rejects(reader, packaged_feeds().served)
    assert second is not None
    assert found["inc"].model_dump() == {
        "rows": 1, "of_refused_files": 0, "files": 1, "oldest": second["at"], "newest_alone": True,
    }  # fmt: skip

"""What has changed is told for each version of the data: all of it, once, in the order of the commits."""

import json
from collections.abc import Iterator
from threading import Thread
from typing import Any

import psycopg
import pytest

from consumer.api.bodies import Bodies
from consumer.api.changes import ChangesPage, read_page
from consumer.api.problems import Problem
from consumer.api.reading import Reader, changes
from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import feed_tables
from consumer.postgres.database import Pool
from consumer.settings import DatabaseSettings
from publisher.absences import Absences
from tests.conftest import Database
from tests.doubles.geocoder import LocationIQ
from tests.integration.change_files import ChangeFile, apply_to
from tests.integration.gazetteers import execute, gazetteer, look_up
from tests.stage.reads import read_rows

INC = packaged_feeds().named("inc")


@pytest.fixture
def reading(database: Database) -> Iterator[Pool]:
    settings = DatabaseSettings.model_validate({"DATABASE_URL": database.url})
    with postgres.open_reading_pool(settings, 2, "test", 30) as opened:
        yield opened


def file(number: int, *rows: str) -> ChangeFile:
    lines = "\n".join(rows or (f"INC{number},Karen",))
    return ChangeFile(f"2026-06-25T{number // 60:02}{number % 60:02}00", f"ticket_id,cluster\n{lines}\n")


def told(pool: Pool) -> list[tuple[int, list[str]]]:
    rows = execute(pool, "SELECT data_version, ticket_ids FROM ingest.changes WHERE feed = 'inc' ORDER BY data_version")
    return [(row["data_version"], sorted(row["ticket_ids"])) for row in rows]


def version(pool: Pool) -> int:
    found = execute(pool, "SELECT data_version FROM tickets.import_meta WHERE source = 'inc'")
    return int(found[0]["data_version"]) if found else 0


def page(reading: Pool, since: int, limit: int = 1000) -> ChangesPage:
    with postgres.look(reading) as connection:
        found = postgres.rows(connection, "api", "stamp", {"feed": "inc"})[0]["version"]
        return read_page(connection, INC, since, found, limit)


def ids(page: ChangesPage) -> list[str]:
    return [feature["id"] for feature in json.loads(page.text)["features"]]


def test_a_file_tells_the_tickets_that_it_wrote_and_no_others(pool: Pool, apply: Any) -> None:
    apply(file(1, "INC1,Karen", "INC2,Karen"))
    apply(file(2, "INC1,Karen", "INC2,Lavington", "INC3,Karen"))
    apply(file(3, "INC1,Karen"))
    apply(file(3, "INC1,Karen"))
    assert told(pool) == [(1, ["INC1", "INC2"]), (2, ["INC2", "INC3"]), (3, [])]


def test_a_large_file_is_several_versions(pool: Pool, reading: Pool, apply: Any) -> None:
    apply(file(1, *(f"INC{number:05},Karen" for number in range(1201))))
    assert sorted(len(each) for _, each in told(pool)) == [201, 500, 500]
    since, seen = 0, []
    while (found := page(reading, since, 600)).next != since:
        assert len(ids(found)) <= 600
        seen += ids(found)
        since = found.next
    assert (since, len(seen), len(set(seen))) == (3, 1201, 1201)
    assert len(ids(page(reading, 0, 1))) == len(told(pool)[0][1]), "a version is whole"


@pytest.mark.promise("One transaction")
def test_a_file_that_is_undone_tells_nothing(pool: Pool, apply: Any) -> None:
    apply(file(1))
    with postgres.transaction(pool, keep=False) as connection:
        connection.execute("INSERT INTO changed VALUES ('{INC9}')")
        postgres.rows(connection, "merge", "count_import", {"feed": "inc", "inserted": 1})
    assert told(pool) == [(1, ["INC1"])]
    apply(file(2))
    assert told(pool)[1:] == [(2, ["INC2"])], "nothing of it is left for the next one"


def test_a_placing_tells_the_tickets_that_it_placed(pool: Pool, provider: LocationIQ, apply: Any) -> None:
    apply(file(1, "INC1,Westlands", "INC2,"))
    assert look_up(gazetteer(pool, provider)).placed == 1
    assert told(pool)[1:] == [(2, ["INC1"])]


def test_a_page_tells_each_ticket_once_as_it_is_now(reading: Pool, apply: Any) -> None:
    for number, cluster in enumerate(("Karen", "Lavington", "Westlands"), 1):
        apply(file(number, f"INC1,{cluster}", f"INC{number + 1},Karen"))
    found = page(reading, 1)
    assert (found.since, found.next, ids(found)) == (1, 3, ["INC1", "INC3", "INC4"])
    assert '"cluster":"Westlands"' in found.features
    assert page(reading, 3).features == ""


def test_a_ticket_that_somebody_deleted_has_nothing(reading: Pool, apply: Any, database: Database) -> None:
    apply(file(1))
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute("DELETE FROM tickets.inc")
    assert '"id" : "INC1", "geometry" : null, "properties" : null' in page(reading, 0).text


@pytest.mark.parametrize("since", [0, 1])
def test_what_is_forgotten_is_said(pool: Pool, reading: Pool, apply: Any, since: int) -> None:
    for number in range(1, 4):
        apply(file(number))
    execute(pool, "UPDATE ingest.changes SET at = at - interval '4 days'")
    with postgres.transaction(pool) as connection:
        postgres.rows(connection, "changes", "forget")
    assert [number for number, _ in told(pool)] == [3], "the data are at the last one, however old it is"
    with pytest.raises(Problem, match=r"since version \d is not known any more; load the map") as gone:
        page(reading, since)
    assert gone.value.status == 410
    assert ids(page(reading, 2)) == ["INC3"]


@pytest.mark.promise("Bounded")
def test_a_sweep_does_not_read_what_is_too_young_to_forget(pool: Pool, apply: Any) -> None:
    for number in range(50):
        apply(file(number))
    with pool.connection() as connection:
        before = read_rows(connection)
    with postgres.transaction(pool) as connection:
        postgres.rows(connection, "changes", "forget")
        connection.execute("SELECT pg_stat_force_next_flush()")
    with pool.connection() as connection:
        read = read_rows(connection) - before
    assert read["changes_pkey"] + read["changes"] <= 2
    assert read["import_meta"] + read["import_meta_pkey"] > 0, "it has looked"


def test_a_version_that_the_data_have_not_reached_is_said(reading: Pool, apply: Any) -> None:
    apply(file(1))
    with pytest.raises(Problem, match="at version 1, and have not been at 2: they were restored"):
        page(reading, 2)


def test_a_version_that_nobody_told_of_is_a_gap(pool: Pool, reading: Pool, apply: Any) -> None:
    """As one of a consumer of before, or of somebody who has changed tickets by hand and says so."""
    apply(file(1))
    apply(file(2))
    execute(pool, "UPDATE tickets.import_meta SET data_version = data_version + 1 WHERE source = 'inc'")
    assert page(reading, 0).next == 2
    with pytest.raises(Problem, match="since version 2 is not known"):
        page(reading, 2)
    apply(file(3))
    with pytest.raises(Problem, match="since version 2 is not known"):
        page(reading, 2)
    assert ids(page(reading, 3)) == ["INC3"]


def test_a_feed_that_is_declared_anew_is_a_gap(pool: Pool, apply: Any, database: Database) -> None:
    apply(file(1))
    titled = INC.model_copy(update={"title": "Of another title"})
    with psycopg.connect(database.url, row_factory=psycopg.rows.dict_row) as owner:
        assert feed_tables.make(owner, [titled]) == ["inc"]
        assert feed_tables.make(owner, [titled]) == []
    assert (version(pool), told(pool)) == (2, [(1, ["INC1"])])


def test_an_answer_of_a_version_that_is_reached_anew_is_another_one(pool: Pool, reading: Pool, apply: Any) -> None:
    reader = Reader(reading, Bodies(), Absences())
    apply(file(1))
    apply(file(2))
    before = reader.told(changes(INC, 1, 10), ())
    assert reader.told(changes(INC, 1, 10), {before.tag}).body is None
    # As a restore leaves it, and a file of after it.
    execute(pool, "DELETE FROM ingest.changes WHERE data_version = 2")
    execute(pool, "UPDATE tickets.import_meta SET data_version = 1 WHERE source = 'inc'")
    apply(file(3))
    after = reader.told(changes(INC, 1, 10), {before.tag})
    assert (before.version, after.version) == (2, 2)
    assert before.body is not None
    assert after.body is not None
    assert [b"INC3" in each.body.plain for each in (before, after)] == [False, True]  # type: ignore[union-attr]


def test_a_version_that_is_set_back_stops_no_file(pool: Pool, apply: Any) -> None:
    apply(file(1))
    apply(file(2))
    execute(pool, "UPDATE tickets.import_meta SET data_version = 1 WHERE source = 'inc'")
    apply(file(3))
    assert told(pool) == [(1, ["INC1"]), (2, ["INC3"])]


@pytest.mark.promise("One transaction")
def test_who_follows_beside_many_writers_misses_nothing_and_sees_nothing_twice(pool: Pool, reading: Pool) -> None:
    writers = [
        Thread(target=lambda first: [apply_to(pool, file(number)) for number in range(first, 90, 6)], args=(first,))
        for first in range(6)
    ]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    since = looks = 0
    while any(writer.is_alive() for writer in writers) or since < version(pool):
        found = page(reading, since)
        seen += ids(found)
        looks += found.next > since
        since = found.next
    for writer in writers:
        writer.join()
    assert (since, len(seen), len(set(seen))) == (90, 90, 90)
    assert looks > 5


def test_what_is_asked_is_planned_for_what_it_is(reading: Pool) -> None:
    """And not compiled: both would take longer, the one from the eleventh question of a connection on."""
    with postgres.look(reading) as connection:
        found = connection.execute(
            "SELECT current_setting('jit') AS jit, current_setting('plan_cache_mode') AS plans"
        ).fetchone()
    assert found == {"jit": "off", "plans": "force_custom_plan"}

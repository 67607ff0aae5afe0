"""The version of the data moves with whatever writes tickets, and who sees one sees all that came with it."""

from threading import Thread
from typing import Any

import pytest

from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from tests.doubles.geocoder import LocationIQ
from tests.integration.change_files import ChangeFile, apply_to
from tests.integration.gazetteers import execute, gazetteer, look_up


def version(pool: Pool) -> int:
    found = execute(pool, "SELECT data_version FROM tickets.import_meta WHERE source = 'inc'")
    return int(found[0]["data_version"]) if found else 0


def file(number: int, row: str = "INC1,Karen") -> ChangeFile:
    return ChangeFile(f"2026-06-25T14{number:02}00", f"ticket_id,cluster\n{row}\n")


def test_each_file_moves_it(pool: Pool, apply: Any) -> None:
    versions = [version(pool)]
    for number in range(3):
        apply(file(number))
        versions.append(version(pool))
    assert versions == [0, 1, 2, 3]


def test_a_file_that_is_applied_twice_moves_it_once(pool: Pool, apply: Any) -> None:
    for _ in range(2):
        apply(file(1))
    assert version(pool) == 1


def test_a_placing_moves_it_where_it_moves_tickets(pool: Pool, provider: LocationIQ, apply: Any) -> None:
    apply(file(1, "INC1,Westlands"))
    places = gazetteer(pool, provider)
    before = version(pool)
    assert look_up(places).placed == 1
    assert version(pool) == before + 1
    assert look_up(places).placed == 0
    assert version(pool) == before + 1


@pytest.mark.promise("One transaction")
def test_whoever_sees_a_version_sees_the_tickets_of_all_before_it(pool: Pool) -> None:
    """With many writers: of no version may a ticket come to light later."""
    writers = [
        Thread(target=lambda first: [apply_to(pool, file(number, f"INC{number},x")) for number in range(first, 60, 3)],
               args=(first,))
        for first in range(3)
    ]  # fmt: skip
    for writer in writers:
        writer.start()
    seen: dict[int, int] = {}
    while any(writer.is_alive() for writer in writers):
        with postgres.transaction(pool) as connection:
            found = connection.execute(
                "SELECT coalesce(max(data_version), 0) AS version, (SELECT count(*) FROM tickets.inc) AS tickets"
                " FROM tickets.import_meta"
            ).fetchone()
        assert found is not None
        assert seen.setdefault(found["version"], found["tickets"]) == found["tickets"] == found["version"]
    for writer in writers:
        writer.join()
    assert version(pool) == 60
    assert len(seen) > 5

"""What one more file reads does not depend on how many there were before it, whatever the planner knows of them.

Rows and index entries are counted, alike on any machine; no table is analyzed meanwhile, as on the first day.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from consumer.files import tellings
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from tests.conftest import Database
from tests.integration.change_files import ChangeFile, apply_to, apply_together
from tests.stage.feeds import csv, ticket
from tests.stage.private import private_postgres
from tests.stage.reads import grown, keep_unanalyzed, read_rows

BEGAN = datetime(2026, 6, 25, 12, tzinfo=UTC)
FEW, MANY = 20, 200
"""Files that are measured, and those between the two times."""
TICKETS = 10


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """On a server of its own: while a transaction is open in any database of a server, no dead row goes in another."""
    with private_postgres(tmp_path) as server:
        yield Database(server.url)


def file(number: int, *, is_closed: bool = False) -> ChangeFile:
    """Of tickets that some files around it have as well, one of them twice."""
    values = {"closed_at": "2026-06-25 13:00:00", "normalized_status": "closed"} if is_closed else {}
    rows = [ticket(f"INC{number // FEW}{row:03}", owner=f"{number}", **values) for row in range(TICKETS)]
    at = BEGAN + timedelta(minutes=number)
    return ChangeFile(f"{at:%Y-%m-%dT%H%M%S}", csv([*rows, rows[0] | {"owner": "Nobody"}]))


def one_by_one(pool: Pool, files: Sequence[ChangeFile]) -> None:
    for each in files:
        apply_to(pool, each)


def in_tens(pool: Pool, files: Sequence[ChangeFile]) -> None:
    for place in range(0, len(files), 10):
        apply_together(pool, files[place : place + 10])


def sweep(pool: Pool) -> None:
    """As a consumer does now and then; there is nothing to forget."""
    with postgres.transaction(pool) as connection:
        tellings.prune(connection, "inc", BEGAN - timedelta(days=1))
        postgres.rows(connection, "changes", "forget")


def reads(pool: Pool) -> Counter[str]:
    with pool.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        return read_rows(connection)


@pytest.mark.promise("Bounded")
@pytest.mark.parametrize("applied", [one_by_one, in_tens])
@pytest.mark.parametrize("kind", [{}, {"is_closed": True}])
def test_one_more_file_reads_as_much_as_the_first_ones(
    database: Database, pool: Pool, applied: Callable[[Pool, Sequence[ChangeFile]], None], kind: dict[str, bool]
) -> None:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as owner:
        keep_unanalyzed(owner)
    applied(pool, [file(number, **kind) for number in range(FEW)])  # all is planned by then, for empty tables
    read: list[Counter[str]] = []
    for first in (FEW, FEW + MANY):
        before = reads(pool)
        applied(pool, [file(number, **kind) for number in range(first, first + FEW)])
        sweep(pool)
        read.append(reads(pool) - before)
        applied(pool, [file(number, **kind) for number in range(first + FEW, MANY)])
    assert grown(read[0], read[1], FEW) == {}


@pytest.mark.promise("Bounded")
def test_a_late_file_reads_what_is_near_it_and_not_all_behind_it(database: Database, pool: Pool) -> None:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as owner:
        keep_unanalyzed(owner)
    one_by_one(pool, [file(number) for number in range(2 * FEW) if number % 4])
    read: list[Counter[str]] = []
    for first in (0, FEW):
        before = reads(pool)
        one_by_one(pool, [file(number) for number in range(first, first + FEW, 4)])
        read.append(reads(pool) - before)
        one_by_one(pool, [file(number) for number in range(2 * FEW, 2 * FEW + MANY)] if not first else [])
    # It looks at so many files more each time, so not at as many; but at no more than a part of what is behind it.
    for name in ("tellings_feed_head_key", "told_rows_pkey"):
        assert 0 < read[1][name] < FEW // 4 * MANY // 2, name

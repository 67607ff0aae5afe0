"""What the rows of a file take in the database, while it is applied and when that fails."""

import io
import json
import random

import pytest

from consumer.demo import model
from consumer.feeds.declared import packaged_feeds
from consumer.files import proportion
from consumer.files.cleaning import RowReject, TicketRow
from consumer.files.proportion import Cost
from consumer.files.rows import Rows
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import DatabaseSettings
from publisher.errors import FleetticketsError
from tests.conftest import Database
from tests.integration.change_files import ChangeFile, apply_to
from tests.stage.feeds import COLUMNS, csv, ticket

INC = packaged_feeds().named("inc")

RANDOM = random.Random(3)
WIDE = ["ticket_id", *sorted(model.INC.columns - {"ticket_id"})]
LONG = ["ticket_id", RANDOM.randbytes(200).hex()]
ROWS = 10_000


def size(pool: Pool) -> int:
    """Bytes of all tables and indexes of ours."""
    with postgres.transaction(pool) as connection:
        found = connection.execute(
            "SELECT sum(pg_total_relation_size(oid)) AS bytes FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace IN ('tickets'::regnamespace, 'ingest'::regnamespace)"
        ).fetchone()
    assert found is not None
    return int(found["bytes"])


def cost(body: bytes) -> int:
    rows = Rows(io.BytesIO(body).read, INC, max_reject_share=1, allows_missing=True)
    counted = Cost(lambda: 1 << 50)
    for row in rows:
        assert isinstance(row, TicketRow | RowReject)
        counted.add(row)
    return counted.bytes


@pytest.mark.promise("Bounded")
@pytest.mark.parametrize(
    "body",
    [
        csv(({"ticket_id": f"{number:x}"} for number in range(ROWS)), ["ticket_id"]),
        csv(({"ticket_id": f"{number:x}"} for number in range(ROWS)), WIDE),
        csv(
            ({"ticket_id": f"{n:x}", "closed_at": "2026-06-25 14:20"} for n in range(ROWS)), ["ticket_id", "closed_at"]
        ),
        csv(({"ticket_id": f"{number:x}", LONG[1]: "x"} for number in range(ROWS)), LONG),
        csv((ticket(f"INC{number:07}") for number in range(ROWS)), COLUMNS),
        b"ticket_id,owner\n" + b"x\n" * ROWS,
    ],
    ids=["ids", "ids in wide rows", "closures", "a long name", "tickets", "bad rows"],
)
def test_a_lean_row_costs_the_database_no_more_than_is_counted(
    pool: Pool, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proportion, "ALLOWANCE", 1 << 40)
    monkeypatch.setenv("FLEETTICKETS_MAX_REJECT_SHARE", "1")
    before = size(pool)
    apply_to(pool, ChangeFile("2026-06-25T142000", body))
    assert size(pool) - before <= cost(body)


def test_rows_that_were_not_committed_take_no_room(database: Database) -> None:
    settings = DatabaseSettings.model_validate({"DATABASE_URL": database.url})
    with postgres.open_pool(settings, size=1) as pool:
        with pytest.raises(FleetticketsError), postgres.transaction(pool) as connection:
            connection.execute(
                "INSERT INTO staging (place, line, ticket_id)"
                " SELECT 1, n, repeat('x', 200) FROM generate_series(1, 20000) AS n;"
                "SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)"
            )
        with postgres.transaction(pool) as connection:
            found = connection.execute("SELECT pg_relation_size('staging') AS bytes").fetchone()
    assert found == {"bytes": 0}


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_no_table_is_read_as_a_whole_by_a_plan_of_when_it_was_empty(pool: Pool, *, is_analyzed: bool) -> None:
    """For each row of a file, that would take minutes as soon as the table is large."""
    if is_analyzed:
        with pool.connection() as connection:
            connection.execute("ANALYZE")
    for number in range(8):  # planned once for all that follow, as psycopg has it from the fifth on
        apply_to(pool, ChangeFile(f"2026-06-25T1400{number:02}", csv([ticket(f"INC{number}")], COLUMNS)))
    before = read_whole(pool)
    for minute, owner in enumerate(("one", "two", "two"), 10):
        rows = (ticket(f"INC{number:07}", owner=owner) for number in range(300))
        apply_to(pool, ChangeFile(f"2026-06-25T14{minute}00", csv(rows, COLUMNS)))
    assert read_whole(pool) == before


def read_whole(pool: Pool) -> dict[str, int]:
    """How often each table of what files say was, also on behalf of a foreign key or a trigger."""
    with pool.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        found = connection.execute(
            "SELECT relname AS name, seq_scan AS times FROM pg_stat_all_tables"
            " WHERE relname IN ('inc', 'inc_positions', 'closure_events', 'ledger')"
        ).fetchall()
    return {row["name"]: row["times"] for row in found}


def test_rows_keep_their_columns_in_the_order_that_the_database_has_them_in(pool: Pool) -> None:
    """What is sorted already it takes in half the time."""
    others = dict.fromkeys(["\u00e9", LONG[1], "b", "aa"], "x")
    body = csv([ticket("INC1") | others], [*COLUMNS, *others])
    (row,) = Rows(io.BytesIO(body).read, INC, max_reject_share=1, allows_missing=True)
    assert isinstance(row, TicketRow)
    with postgres.transaction(pool) as connection:
        found = connection.execute("SELECT array(SELECT jsonb_object_keys(%s::jsonb)) AS names", [row.raw]).fetchone()
    assert found is not None
    assert list(json.loads(row.raw)) == found["names"]

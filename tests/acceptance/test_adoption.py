"""Installed over the database of the batch import that came before."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.acceptance.conftest import MakeStage
from tests.acceptance.feeds import csv, ticket
from tests.acceptance.stage import Stage
from tests.acceptance.store import CHANGES
from tests.conftest import Database

MIGRATIONS = Path(__file__).parents[2] / "sql" / "migrations"
WATERMARK = f"{CHANGES}2026-06-25T142000.csv"
OLDER = f"{CHANGES}2026-06-25T132000.csv"
NEWER = f"{CHANGES}2026-06-25T152000.csv"


@pytest.fixture
def adopted(empty_database: Database, make_stage: MakeStage) -> Iterator[Stage]:
    """What the batch import leaves behind: its schema, rows without positions, and the key it read last."""
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        for migration in sorted(MIGRATIONS.glob("*.sql"))[:10]:
            connection.execute(migration.read_bytes())
        for name in ("OLD1", "OLD2"):
            raw = ticket(name, region="nairobi", raw_status="OPEN", owner="batch")
            connection.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)", (name, Jsonb(raw)))
        connection.execute(
            """INSERT INTO tickets.import_meta (source, snapshot_at, imported_at, row_count, metadata)
               VALUES ('inc', %s, now(), 2, %s)""",
            (datetime(2026, 6, 25, 11, 20, tzinfo=UTC), Jsonb({"source_max_key": WATERMARK})),
        )
    with make_stage(empty_database.url) as stage:
        yield stage


def owners(stage: Stage) -> dict[str, str]:
    return {row["ticket_id"]: row["owner"] for row in stage.query("SELECT ticket_id, owner FROM tickets.inc")}


def test_migrations_find_the_old_objects_and_the_watermark_guards_the_old_rows(adopted: Stage) -> None:
    stage = adopted
    rows = stage.query("SELECT * FROM tickets.inc ORDER BY ticket_id")
    migrations = stage.ask("migrate")["migrations"]
    assert [row["name"][:2] for row in migrations if row["how"] == "adopted"] == [f"{n:02}" for n in range(1, 11)]
    assert stage.query("SELECT * FROM tickets.inc ORDER BY ticket_id") == rows
    watermark = "SELECT metadata ->> 'source_max_key' FROM tickets.import_meta WHERE source = 'inc'"
    assert stage.one(watermark) == WATERMARK
    assert stage.ask("migrate")["migrations"] == []

    consumer = stage.start("consume")
    stage.bucket.put(OLDER, csv([ticket("OLD1", owner="older"), ticket("NEW1", owner="older")]))
    stage.announce(OLDER)
    stage.wait_for("done", OLDER)
    assert owners(stage) == {"OLD1": "batch", "OLD2": "batch", "NEW1": "older"}
    assert stage.ledger(OLDER)["decision"] == "late"
    assert stage.one(watermark) == WATERMARK

    stage.bucket.put(NEWER, csv([ticket("OLD1", owner="newer")]))
    stage.announce(NEWER)
    stage.wait_for("done", NEWER)
    consumer.stop()
    assert owners(stage) == {"OLD1": "newer", "OLD2": "batch", "NEW1": "older"}
    assert stage.ledger(NEWER)["decision"] == "new"
    assert stage.one(watermark) == NEWER
    assert (
        stage.one("SELECT count(*) FROM tickets.inc WHERE owner = 'batch' AND ingested_at = %s", rows[1]["ingested_at"])
        == 1
    )

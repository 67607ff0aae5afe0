"""Installed over the database of the batch import that came before."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.acceptance.conftest import MakeStage
from tests.acceptance.test_restore import dumped, turn_to, unrecorded
from tests.conftest import Database
from tests.doubles.geocoder import KEY, LocationIQ
from tests.stage.feeds import csv, ticket
from tests.stage.stage import Stage
from tests.stage.store import CHANGES, PROCESSED

MIGRATIONS = Path(__file__).parents[2] / "sql" / "migrations"
WATERMARK = f"{CHANGES}2026-06-25T142000.csv"
OLDER = f"{CHANGES}2026-06-25T132000.csv"
NEWER = f"{CHANGES}2026-06-25T152000.csv"
BETWEEN = f"{CHANGES}2026-06-25T145000.csv"
LATE = f"{CHANGES}2026-06-25T141000.csv"


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


def owners(stage: Stage) -> dict[str, str | None]:
    return {row["ticket_id"]: row["owner"] for row in stage.query("SELECT ticket_id, owner FROM tickets.inc")}


def migrate_in_another_second(stage: Stage) -> None:
    """LastModified can have whole seconds, so the second of an adoption counts as after it."""
    time.sleep(1 - time.time() % 1)
    stage.ask("migrate")


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


def test_of_the_archive_only_what_the_batch_import_had_read_is_left_to_it(adopted: Stage) -> None:
    """Also where the database is restored to a dump from before the ledger, and adopted again."""
    stage = adopted

    def archived(key: str) -> str:
        return key.replace(CHANGES, PROCESSED)

    with dumped(stage) as dump:
        # What the batch import left in its archive: of before the dump, a stranger's, and of between dump and adoption.
        of_the_batch = [archived(OLDER), archived(WATERMARK), f"{PROCESSED}list.txt"]
        stage.bucket.put_all(dict.fromkeys(of_the_batch, csv([ticket("OLD1", owner="batch")])))
        stage.bucket.put(archived(BETWEEN), csv([ticket("OLD2", owner="between")]))
        read_since = Jsonb({"owner": "between"})
        stage.connection.execute("UPDATE tickets.inc SET raw = raw || %s WHERE ticket_id = 'OLD2'", [read_since])
        stage.connection.execute("UPDATE tickets.import_meta SET metadata = %s", [Jsonb({"source_max_key": BETWEEN})])
        migrate_in_another_second(stage)
        stage.bucket.put_all({LATE: csv([ticket("LATE")]), NEWER: csv([ticket("OLD1", owner="newer")])})
        stage.ask("drain", "--apply")
        assert unrecorded(stage) == []
        assert stage.ask("drain", "--from-archive")["files"] == []
        assert stage.ask("verify")["notes"]["before_the_ledger"] == 4
        owned = owners(stage)
        assert owned == {"OLD1": "newer", "OLD2": "between", "LATE": None}

        turn_to(stage, dump)
        migrate_in_another_second(stage)
        # That the late one was applied after the dump is known to nobody: it could be the batch import's.
        assert unrecorded(stage) == [archived(BETWEEN), archived(NEWER)]
        stage.ask("drain", "--from-archive", "--apply")
        assert unrecorded(stage) == []
        del owned["LATE"]
        assert owners(stage) == owned

        stage.connection.execute("DELETE FROM ingest.positions WHERE ticket_id = 'OLD2'")
        stage.connection.execute("DELETE FROM tickets.inc WHERE ticket_id = 'OLD2'")
        (missing,) = stage.json(stage.run("verify", "--json"))["discrepancies"]["rows_missing"]["examples"]
        assert missing["detail"] == "1 of 2 are there", "no file inserted it"


def test_a_gazetteer_of_other_columns_is_taken_over_with_its_points(
    empty_database: Database, make_stage: MakeStage
) -> None:
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        for migration in sorted(MIGRATIONS.glob("*.sql"))[:10]:
            connection.execute(migration.read_bytes())
        connection.execute(
            """DROP TABLE tickets.geo_clusters, tickets.geo_locations;
               CREATE TABLE tickets.geo_clusters (cluster text, geom geometry(Point, 4326));
               CREATE TABLE tickets.geo_locations (cluster text, location_name text, geom geometry(Point, 4326));
               INSERT INTO tickets.geo_clusters VALUES
                   ('Westlands', ST_SetSRID(ST_MakePoint(36.81, -1.26), 4326)), ('Nowhere', NULL);
               INSERT INTO tickets.geo_locations VALUES
                   ('Westlands', 'Gate B', ST_SetSRID(ST_MakePoint(36.80, -1.27), 4326))"""
        )
    with make_stage(empty_database.url) as stage:
        stage.ask("migrate")
        known = stage.query("SELECT cluster, latitude, longitude, status FROM tickets.geo_clusters ORDER BY cluster")
        assert [tuple(row.values()) for row in known] == [
            ("Nowhere", None, None, "miss"),
            ("Westlands", -1.26, 36.81, "hit"),
        ]
        with LocationIQ({"Nowhere, nairobi": (-1.3, 36.9)}) as provider:
            stage.environment |= {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url}
            local = stage.folder / "2026-06-25T142000.csv"
            rows = [ticket("INC1"), ticket("INC2", location_name=""), ticket("INC3", cluster="Nowhere")]
            local.write_bytes(csv(rows))
            assert stage.run("import-csv", "--feed", "inc", str(local), "--apply").returncode == 0
            assert stage.run("geocode", "set", "--cluster", "Nowhere", "--", "-1.3", "36.9").returncode == 0
            assert stage.ask("geocode", "clusters")["to_ask"] == 0, "what is known is not asked for again"
        places = stage.query("SELECT ticket_id, latitude, longitude, geo_source FROM tickets.inc ORDER BY ticket_id")
        assert [tuple(row.values()) for row in places] == [
            ("INC1", -1.27, 36.8, "location"),
            ("INC2", -1.26, 36.81, "cluster"),
            ("INC3", -1.3, 36.9, "cluster"),
        ]

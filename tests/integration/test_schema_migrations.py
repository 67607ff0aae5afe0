"""The ten migrations of the batch system: what they end in, run twice, and found in place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

FOLDER = Path(__file__).parents[2] / "sql" / "migrations"
TEN = sorted(file for file in FOLDER.glob("*.sql") if "01" <= file.name[:2] <= "10")
PROBE = "-- adopted when: "


class Database(Protocol):
    @property
    def url(self) -> str: ...


@pytest.fixture
def connection(empty_database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        yield connection


def apply(connection: psycopg.Connection, *files: Path) -> None:
    """As the runner does: each file whole, in a transaction, under a lock timeout."""
    for file in files:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '5s'")
            connection.execute(file.read_bytes())


def probe(connection: psycopg.Connection, file: Path) -> bool:
    first_line = file.read_bytes().split(b"\n", 1)[0]
    assert first_line.startswith(PROBE.encode() + b"SELECT ")
    assert not first_line.rstrip().endswith(b";")
    ((answer,),) = connection.execute(first_line.removeprefix(PROBE.encode())).fetchall()
    assert isinstance(answer, bool)
    return answer


def schema(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Everything of ours in the catalogue; relfilenode tells whether a table was written anew."""
    queries = {
        "relations": "SELECT relname, relkind, relfilenode, reloptions, obj_description(oid, 'pg_class')"
        " FROM pg_class WHERE relnamespace::regnamespace::text IN ('tickets', 'reporting')",
        "columns": "SELECT relname, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attgenerated,"
        " pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)"
        " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE relnamespace::regnamespace::text IN ('tickets', 'reporting')"
        " AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped",
        "constraints": "SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace::regnamespace::text IN ('tickets', 'reporting')",
        "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname IN ('tickets', 'reporting')",
        "triggers": "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "views": "SELECT viewname, definition FROM pg_views WHERE schemaname IN ('tickets', 'reporting')",
        "functions": "SELECT proname, pg_get_functiondef(oid), obj_description(oid, 'pg_proc') FROM pg_proc"
        " WHERE pronamespace::regnamespace::text IN ('tickets', 'reporting')",
    }
    return {name: sorted(connection.execute(query.encode()).fetchall(), key=repr) for name, query in queries.items()}


def rows(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'tickets'").fetchall()
    return {
        table: sorted(
            connection.execute(sql.SQL("SELECT * FROM tickets.{}").format(sql.Identifier(table))).fetchall(), key=repr
        )
        for (table,) in tables
    }


def fill(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO tickets.geo_clusters (cluster, latitude, longitude, status) VALUES ('A', -1, 37, 'hit')"
    )
    connection.execute(
        "INSERT INTO tickets.geo_locations (cluster, location_name, status) VALUES ('A', 'HERE', 'miss')"
    )
    for ticket_id, raw in {
        "1": {"cluster": "A", "normalized_status": "open", "service_type": "FTTH", "is_alarm": "false"},
        "2": {"cluster": "B", "closed_at": "2026-06-25 10:00", "mttr": "12.5", "created_at_service": "2026-06-24"},
    }.items():
        for table in ("inc", "crq"):
            connection.execute(
                sql.SQL("INSERT INTO tickets.{} (ticket_id, raw) VALUES (%s, %s)").format(sql.Identifier(table)),
                [ticket_id, Jsonb(raw)],
            )


def test_the_names_are_those_of_the_batch_system() -> None:
    assert [file.stem for file in TEN] == [
        "01_tickets_schema",
        "02_import_meta",
        "03_inc_columns",
        "04_inc_latlng",
        "05_inc_geography",
        "06_inc_mttr_minutes",
        "07_inc_drop_service_type",
        "08_inc_open_sla_view",
        "09_inc_dashboard_fn",
        "10_inc_history_capture",
    ]


def test_the_ten_end_in_exactly_these_columns(connection: psycopg.Connection) -> None:
    apply(connection, *TEN)
    found = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attgenerated = 's', attnotnull"
        " FROM pg_attribute WHERE attrelid = 'tickets.inc'::regclass AND attnum > 0 AND NOT attisdropped"
    ).fetchall()
    generated = {
        "text": [
            "normalized_status", "raw_status", "bucket", "cluster", "region", "location_name", "assigned_team",
            "owner", "sla_status",
        ],
        "boolean": ["is_actionable"],
        "integer": ["mttr"],
        "timestamp with time zone": [
            "created_at_service", "scheduled_at", "closed_at", "first_seen_at", "last_seen_at", "source_created_at",
            "source_updated_at",
        ],
        "double precision": ["latitude", "longitude"],
        "geography(Point,4326)": ["geog"],
    }  # fmt: skip
    assert set(found) == {
        ("ticket_id", "text", False, True),
        ("raw", "jsonb", False, True),
        ("geom", "geometry(Point,4326)", False, False),
        ("geo_source", "text", False, False),
        ("ingested_at", "timestamp with time zone", False, True),
        *((name, kind, True, False) for kind, names in generated.items() for name in names),
    }


def test_the_first_migration_makes_the_raw_shape_only(connection: psycopg.Connection) -> None:
    apply(connection, TEN[0])
    for table in ("inc", "crq"):
        found = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = %s",
            [table],
        ).fetchall()
        assert {name for (name,) in found} == {"ticket_id", "raw", "geom", "geo_source", "ingested_at"}


def test_the_map_function_works_after_every_migration(connection: psycopg.Connection) -> None:
    apply(connection, TEN[0])
    fill(connection)
    for level, file in enumerate(TEN, start=1):
        apply(connection, file)
        ((collection,),) = connection.execute("SELECT reporting.fn_tickets_for_map()").fetchall()
        assert [feature["properties"]["ticket_id"] for feature in collection["features"]] == ["1"]
        assert (collection["summary"]["total"], collection["summary"]["open"]) == (2, 1)
        assert ("freshness" in collection["summary"]) == (level >= 2)
        assert ("by_sla_state" in collection["summary"]) == (level >= 8)


def test_rows_that_are_there_get_their_typed_columns(connection: psycopg.Connection) -> None:
    apply(connection, TEN[0])
    fill(connection)
    apply(connection, *TEN[1:])
    found = connection.execute(
        "SELECT ticket_id, cluster, mttr, closed_at IS NULL, latitude FROM tickets.inc ORDER BY 1"
    ).fetchall()
    assert found == [("1", "A", None, True, -1.0), ("2", "B", 13, False, None)]


def test_running_all_again_changes_nothing(connection: psycopg.Connection) -> None:
    apply(connection, *TEN)
    fill(connection)
    connection.execute("SELECT tickets.capture_history()")
    before = (schema(connection), rows(connection))
    apply(connection, *TEN)
    assert (schema(connection), rows(connection)) == before


@pytest.mark.parametrize("level", range(1, 11))
def test_running_the_first_ones_again_and_going_on_ends_the_same(connection: psycopg.Connection, level: int) -> None:
    apply(connection, *TEN[:level], *TEN)
    found = connection.execute(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc'"
    ).fetchall()
    assert found == [(26,)]
    assert all(probe(connection, file) for file in TEN)


def test_each_probe_is_true_from_its_own_migration_on(connection: psycopg.Connection) -> None:
    assert [probe(connection, file) for file in TEN] == [False] * 10
    for level, file in enumerate(TEN, start=1):
        apply(connection, file)
        assert [probe(connection, file) for file in TEN] == [True] * level + [False] * (10 - level), file.name


def test_an_empty_schema_of_that_name_is_not_taken_for_the_batch_system(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SCHEMA tickets; CREATE SCHEMA reporting; CREATE EXTENSION postgis")
    assert [probe(connection, file) for file in TEN] == [False] * 10


def test_a_database_of_the_batch_system_passes_every_probe(connection: psycopg.Connection) -> None:
    """Only what the record of that system names; its own helpers and bodies were others than ours."""
    connection.execute("""
        CREATE EXTENSION postgis;
        CREATE SCHEMA tickets;
        CREATE SCHEMA reporting;
        CREATE TABLE tickets.inc (
            ticket_id text PRIMARY KEY, raw jsonb NOT NULL, geom geometry(Point, 4326), geo_source text,
            created_at_service timestamptz
                GENERATED ALWAYS AS (timezone('Africa/Nairobi', make_timestamp(2026, 1, 1, 0, 0, 0))) STORED,
            latitude double precision GENERATED ALWAYS AS (COALESCE((raw->>'latitude')::numeric, ST_Y(geom))) STORED,
            longitude double precision GENERATED ALWAYS AS (COALESCE((raw->>'longitude')::numeric, ST_X(geom))) STORED,
            geog geography(Point, 4326) GENERATED ALWAYS AS (geom::geography) STORED,
            mttr integer GENERATED ALWAYS AS (round((raw->>'mttr')::numeric)::integer) STORED
        );
        CREATE TABLE tickets.crq (ticket_id text PRIMARY KEY, raw jsonb NOT NULL);
        CREATE TABLE tickets.geo_clusters (cluster text PRIMARY KEY, lat double precision, lon double precision);
        CREATE TABLE tickets.geo_locations (location_name text PRIMARY KEY, lat double precision, lon double precision);
        CREATE TABLE tickets.import_meta (source text PRIMARY KEY, metadata jsonb);
        CREATE VIEW tickets.inc_open_sla AS SELECT ticket_id FROM tickets.inc;
        CREATE TABLE tickets.closure_events (ticket_id text, closed_at timestamptz);
        CREATE TABLE tickets.inc_daily_snapshot (snapshot_date date, cluster text);
        CREATE FUNCTION tickets.capture_history() RETURNS void LANGUAGE sql AS '';
        CREATE FUNCTION reporting.fn_tickets_for_map() RETURNS json LANGUAGE sql AS 'SELECT NULL::json';
        CREATE FUNCTION reporting.fn_inc_dashboard(text, text, text, date, date) RETURNS json
            LANGUAGE sql AS 'SELECT NULL::json';
    """)
    assert [probe(connection, file) for file in TEN] == [True] * 10

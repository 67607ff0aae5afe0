"""Migrating: under a lock, twice without effect, and over a database that the batch import made."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.files.outcomes import Applied
from consumer.geocoding import known_places
from consumer.geocoding.known_places import Point
from consumer.postgres import database as postgres
from consumer.postgres import migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from publisher.errors import Misconfigured, Refused
from tests.integration.change_files import ChangeFile, apply_to


def connect(database: Any) -> postgres.Connection:
    return postgres.connect(DatabaseSettings.model_validate({"DATABASE_URL": database.url}), None)


def nothing(_name: str, _how: str) -> None:
    pass


def made_by_the_batch_import(connection: postgres.Connection, upto: int, watermark: str | None) -> None:
    for migration in migrate.all_migrations()[:upto]:
        connection.execute(migration.sql)
    connection.execute("""INSERT INTO tickets.inc (ticket_id, raw) VALUES ('OLD1', '{"ticket_id": "OLD1"}')""")
    if watermark:
        connection.execute(
            "INSERT INTO tickets.import_meta (source, metadata)"
            " VALUES ('inc', jsonb_build_object('source_max_key', %s::text))",
            (watermark,),
        )


def test_a_fresh_database_runs_every_migration_once(empty_database: Any) -> None:
    with connect(empty_database) as connection:
        names = [migration.name for migration in migrate.all_migrations()]
        done: list[tuple[str, str]] = []
        warnings: list[str | None] = []
        connection.add_notice_handler(
            lambda told: warnings.append(told.message_primary) if told.severity_nonlocalized == "WARNING" else None
        )
        assert migrate.migrate(
            connection, lambda name, how: done.append((name, how)), packaged_feeds().declared
        ) == len(names)
        assert done == [*((name, "run") for name in names), ("feed crq", "declared"), ("feed inc", "declared")]
        assert warnings == []
        assert migrate.migrate(connection, nothing, packaged_feeds().declared) == 0
        assert [step.how for step in migrate.status(connection)] == ["run"] * len(names)
        migrate.require_migrated(connection)


def test_the_status_of_an_untouched_database_leaves_it_untouched(empty_database: Any) -> None:
    with connect(empty_database) as connection:
        assert {step.how for step in migrate.status(connection)} == {None}
        assert postgres.row(connection, "migrations", "log_exists") == {"exists": False}
        with pytest.raises(Misconfigured, match="lacks migration 01_tickets_schema; run: fleettickets migrate"):
            migrate.require_migrated(connection)


def test_migrating_from_four_places_at_once_runs_each_file_once(empty_database: Any) -> None:
    def run(_number: int) -> int:
        with connect(empty_database) as connection:
            return migrate.migrate(connection, nothing, packaged_feeds().declared)

    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(run, range(4)))
    assert sum(counts) == len(migrate.all_migrations())


def test_a_migration_that_fails_leaves_those_before_it_and_can_be_run_again(
    empty_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = migrate.all_migrations()
    broken = migrate.Migration("02_broken", "CREATE TABLE half (); SELECT 1 / 0", "x")
    with connect(empty_database) as connection:
        monkeypatch.setattr(migrate, "all_migrations", lambda: [whole[0], broken, *whole[1:]])
        told = "migration 02_broken: division by zero; nothing of it is done: mend that and migrate again"
        with pytest.raises(Refused, match=told):
            migrate.migrate(connection, nothing, packaged_feeds().declared)
        assert connection.execute("SELECT to_regclass('half') AS half").fetchone() == {"half": None}
        monkeypatch.setattr(migrate, "all_migrations", lambda: whole)
        assert migrate.migrate(connection, nothing, packaged_feeds().declared) == len(whole) - 1


def test_a_migration_edited_after_it_was_run_stops_everything(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, last = migrate.all_migrations()
    monkeypatch.setattr(migrate, "all_migrations", lambda: [migrate.Migration(last.name, last.sql, "other")])
    with connect(database) as connection, pytest.raises(Misconfigured, match=f"{last.name} was changed after"):
        migrate.migrate(connection, nothing, packaged_feeds().declared)


@pytest.mark.parametrize("upto", range(1, 11))
def test_a_database_at_any_of_the_first_ten_is_taken_over_from_there(empty_database: Any, upto: int) -> None:
    with connect(empty_database) as connection:
        watermark = "automations/inc/changes/2026-06-25T142000.csv" if upto >= 2 else None
        made_by_the_batch_import(connection, upto, watermark)
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        steps = migrate.status(connection)
        assert [step.how for step in steps] == ["adopted"] * upto + ["run"] * (len(steps) - upto)
        assert connection.execute("SELECT ticket_id FROM tickets.inc").fetchall() == [{"ticket_id": "OLD1"}]


def test_rows_that_were_there_count_as_written_at_the_old_watermark(empty_database: Any) -> None:
    key = "automations/inc/changes/2026-06-25T142000.csv"
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, key)
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        position = connection.execute(
            "SELECT ticket_id, (position).epoch, (position).key FROM ingest.positions"
        ).fetchall()
        assert position == [{"ticket_id": "OLD1", "epoch": 1, "key": key}]
        watermark = connection.execute("SELECT row_count, metadata FROM tickets.import_meta").fetchone()
        assert watermark is not None
        assert watermark["row_count"] == 1
        assert watermark["metadata"]["source_max_key"] == key


def adoption(connection: postgres.Connection) -> list[Any]:
    found = connection.execute(
        "SELECT adopted_key, adopted_key_time::text, adopted_rows FROM ingest.epochs WHERE feed = 'inc'"
    ).fetchone()
    return list((found or {}).values())


def test_where_the_batch_import_had_got_to_is_kept_also_of_a_database_adopted_before(empty_database: Any) -> None:
    key = "automations/inc/changes/2026-06-25T142000.csv"
    with connect(empty_database) as connection:
        connection.execute("SET timezone = 'UTC'")
        made_by_the_batch_import(connection, 10, key)
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        assert adoption(connection) == [key, "2026-06-25 11:20:00+00", 1]

        # Before that was kept, an adoption left no more than this.
        connection.execute(
            "DROP FUNCTION ingest.is_before_ledger, ingest.is_superseded, ingest.is_open, ingest.is_back,"
            " ingest.counts_no_more;"
            "ALTER TABLE ingest.epochs DROP adopted_key, DROP adopted_key_time, DROP adopted_rows"
        )
        connection.execute("DELETE FROM fleettickets_migrations WHERE name = '19_what_came_before'")
        assert migrate.migrate(connection, nothing, packaged_feeds().declared) == 1
        assert adoption(connection) == [key, "2026-06-25 11:20:00+00", None]


def test_a_watermark_that_names_no_instant_is_said_clearly_and_nothing_is_half_done(empty_database: Any) -> None:
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, "automations/inc/changes/latest.csv")
        with pytest.raises(Misconfigured, match=r"watermark '.*latest.csv', and its name is not a timestamp: set"):
            migrate.migrate(connection, nothing, packaged_feeds().declared)
        connection.execute(
            "UPDATE tickets.import_meta SET metadata = jsonb_build_object('source_max_key',"
            " 'automations/inc/changes/2026-06-25T142000.csv')"
        )
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        assert connection.execute("SELECT count(*) AS rows FROM ingest.positions").fetchone() == {"rows": 1}


def test_tables_that_the_batch_import_made_smaller_are_completed(empty_database: Any) -> None:
    key = "automations/inc/changes/2026-06-25T142000.csv"
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, None)
        connection.execute(
            "DROP TABLE tickets.import_meta, tickets.closure_events CASCADE;"
            "CREATE TABLE tickets.import_meta (id integer PRIMARY KEY DEFAULT 1 CHECK (id = 1), metadata jsonb);"
            "CREATE TABLE tickets.closure_events (ticket_id text, closed_at timestamptz)"
        )
        connection.execute(
            "INSERT INTO tickets.import_meta (metadata) VALUES (jsonb_build_object('source_max_key', %s::text))", (key,)
        )
        migrate.migrate(connection, nothing, packaged_feeds().declared)
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.open_pool(settings, size=1) as pool:
        outcome = apply_to(pool, ChangeFile("2026-06-25T150000", "ticket_id,closed_at\nNEW1,2026-06-25 14:00\n"))
        assert isinstance(outcome, Applied)
        assert (outcome.decision, outcome.counts.closures) == ("new", 1)
        late = apply_to(pool, ChangeFile("2026-06-25T140000", "ticket_id,cluster\nOLD1,x\nNEW2,x\n"))
        assert isinstance(late, Applied)
        assert (late.decision, late.counts.stale, late.counts.inserted) == ("late", 1, 1)


FORMER_GAZETTEERS = {
    "points only": """
        CREATE TABLE tickets.geo_clusters (cluster text PRIMARY KEY, geom geometry(Point, 4326) NOT NULL);
        CREATE TABLE tickets.geo_locations (cluster text, location_name text, geom geometry(Point, 4326));
        CREATE VIEW tickets.known AS SELECT geom FROM tickets.geo_locations;
        GRANT SELECT ON tickets.geo_locations TO PUBLIC;
        INSERT INTO tickets.geo_clusters VALUES ('Westlands', ST_SetSRID(ST_MakePoint(36.8, -1.2), 4326));
        INSERT INTO tickets.geo_locations VALUES ('Westlands', 'Gate', ST_SetSRID(ST_MakePoint(36.9, -1.3), 4326));
    """,
    "other names, and places without their cluster": """
        CREATE TABLE tickets.geo_clusters (cluster text PRIMARY KEY, lat float8 NOT NULL, lon float8 NOT NULL);
        CREATE TABLE tickets.geo_locations (location_name text PRIMARY KEY, lat numeric, lng text, of text NOT NULL);
        INSERT INTO tickets.geo_clusters VALUES ('Westlands', -1.2, 36.8), ('QOA', -1.2, 36.8);
        INSERT INTO tickets.geo_locations VALUES ('Gate', -1.3, '36.9', ''), ('Elsewhere', -1.4, '36.9', ''),
            ('Miss', NULL, NULL, '');
    """,
    "other states, and a name twice": """
        CREATE TABLE tickets.geo_clusters (cluster text, latitude float8, longitude float8, status text,
            geom geometry GENERATED ALWAYS AS (ST_SetSRID(ST_MakePoint(longitude, latitude), 4326)) STORED);
        CREATE TABLE tickets.geo_locations (cluster text, location_name text, lat float8, lon float8, status text);
        INSERT INTO tickets.geo_clusters VALUES ('Westlands', -1.2, 36.8, 'ok'), (NULL, -1.2, 36.8, 'ok');
        INSERT INTO tickets.geo_locations VALUES ('Westlands', 'Gate', NULL, NULL, 'failed'),
            ('Westlands', 'Gate', -1.3, 36.9, 'ok'), ('Westlands', NULL, -1.3, 36.9, 'ok');
    """,
}


@pytest.mark.parametrize("name", FORMER_GAZETTEERS)
def test_the_gazetteer_of_the_batch_import_is_taken_over_with_its_points(empty_database: Any, name: str) -> None:
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, None)
        connection.execute("DROP TABLE tickets.geo_clusters, tickets.geo_locations")
        connection.execute(FORMER_GAZETTEERS[name].encode())
        connection.execute("""
            CREATE OR REPLACE FUNCTION tickets.place_it() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN NEW.geo_source := 'geo_clusters'; RETURN NEW; END$$;
            CREATE TRIGGER place_it BEFORE INSERT OR UPDATE ON tickets.inc
            FOR EACH ROW EXECUTE FUNCTION tickets.place_it();
            DROP TRIGGER resolve_geom ON tickets.inc;
            CREATE FUNCTION tickets.note_it() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE NOTICE '%', NEW.geo_source; RETURN NULL; END$$;
            CREATE TRIGGER note_it AFTER UPDATE ON tickets.inc FOR EACH ROW EXECUTE FUNCTION tickets.note_it();
            INSERT INTO tickets.inc (ticket_id, raw)
            VALUES ('GATE', '{"cluster": "Westlands", "location_name": "Gate"}'),
                ('COARSE', '{"cluster": "Westlands"}'),
                ('FED', '{"cluster": "Westlands", "latitude": "-1.5", "longitude": "36.5"}')
        """)
        told: list[str] = []
        connection.add_notice_handler(
            lambda found: told.append(f"{found.severity_nonlocalized} {found.message_primary}")
        )
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        told = [line for line in told if line.startswith("WARNING")]
        assert told[-1] == "WARNING trigger place_it on tickets.inc is replaced by ours"
        if name == "points only":
            assert "view tickets.known goes on reading tickets.geo_locations_former" in told[0]
            (may,) = connection.execute(
                "SELECT count(*) FROM information_schema.table_privileges"
                " WHERE table_name = 'geo_locations' AND grantee = 'PUBLIC'"
            ).fetchall()
            assert may["count"] == 1
        fed = connection.execute("SELECT geo_source FROM tickets.inc WHERE ticket_id = 'FED'").fetchone()
        assert fed == {"geo_source": "feed"}, "whatever the batch import called it"
        connection.execute("UPDATE tickets.inc SET raw = raw")
        placed = connection.execute(
            "SELECT ticket_id, latitude, longitude, geo_source FROM tickets.inc WHERE geom IS NOT NULL ORDER BY 1 DESC"
        ).fetchall()
        assert [tuple(row.values()) for row in placed] == [
            ("GATE", -1.3, 36.9, "location"),
            ("FED", -1.5, 36.5, "feed"),
            ("COARSE", -1.2, 36.8, "cluster"),
        ]
        kept = connection.execute("SELECT cluster, status, is_manual FROM tickets.geo_locations").fetchall()
        assert kept == [{"cluster": "Westlands", "status": "hit", "is_manual": False}]
        triggers = connection.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'tickets.inc'::regclass AND NOT tgisinternal ORDER BY 1"
        ).fetchall()
        assert [row["tgname"] for row in triggers] == ["note_it", "resolve_geom"]
        # What the provider was asked for, as far as anybody can know: nothing is asked for again at once.
        asked = connection.execute("SELECT asked_as FROM tickets.geo_clusters ORDER BY 1").fetchall()
        assert asked[-1] == {"asked_as": "Westlands"}
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.connect(settings, Role.INGEST) as ingest:
        assert known_places.is_in_kenya(ingest, Point(-1.2, 36.8))
        known_places.place_tickets(ingest, packaged_feeds().geocoded)

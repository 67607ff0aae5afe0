"""Names mean the same whatever search_path a session begins with, and wherever PostGIS was installed."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.acceptance.conftest import MakeStage
from tests.conftest import Database
from tests.doubles.geocoder import KEY, LocationIQ
from tests.stage.feeds import csv, ticket
from tests.stage.logins import logged_in, role_of
from tests.stage.stage import Stage

PLACED = "SELECT ticket_id, round(latitude::numeric, 2)::text AS latitude, geo_source, geog IS NOT NULL AS has_geog"
MAP = "SELECT jsonb_path_query_array(reporting.fn_tickets_for_map(), '$.features[*].id') AS ids"


@pytest.fixture(params=["", "public, gis"])
def stage(empty_database: Database, make_stage: MakeStage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """PostGIS in a schema of its own, which is on the database's path or not."""
    with psycopg.connect(empty_database.url, autocommit=True) as administrator:
        administrator.execute("CREATE SCHEMA gis; CREATE EXTENSION postgis SCHEMA gis")
        if request.param:
            name = sql.Identifier(urlsplit(empty_database.url).path.removeprefix("/"))
            administrator.execute(sql.SQL("ALTER DATABASE {} SET search_path = public, gis").format(name))
    with make_stage(empty_database.url) as made:
        made.ask("migrate")
        yield made


def imported(stage: Stage, *rows: dict[str, str], minute: int = 0, **environment: str) -> None:
    file = stage.folder / f"2026-06-25T14{minute:02}00.csv"
    file.write_bytes(csv(rows))
    ended = stage.run("import-csv", "--feed", "inc", str(file), "--apply", **environment)
    assert ended.returncode == 0, ended.stderr


def places(stage: Stage) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in stage.query(f"{PLACED} FROM tickets.inc ORDER BY ticket_id")]


def test_postgis_in_a_schema_of_its_own(stage: Stage) -> None:
    owner = stage.connection
    with (
        LocationIQ({"Westlands, nairobi": (-1.26, 36.81), "Gate B, Westlands": (-1.27, 36.8)}) as provider,
        logged_in(owner, stage.database, role_of(owner, "ingest")) as login,
    ):
        stage.environment |= {"DATABASE_URL": login.url, "GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url}
        imported(
            stage,
            ticket("INC1", latitude="-1.5", longitude="36.5"),
            ticket("INC2", cluster="Westlands", region="nairobi", location_name=""),
            ticket("INC3", cluster="Kasarani", region="nairobi", location_name=""),
        )
        assert stage.run("geocode", "clusters", "--apply").returncode == 0
        set_by_hand = stage.run("geocode", "set", "--cluster", "Kasarani", "--", "-1.22", "36.9")
        assert set_by_hand.returncode == 0, set_by_hand.stderr
        imported(stage, ticket("INC4", cluster="Westlands", region="nairobi", location_name=""), minute=1)
        assert places(stage) == [
            ("INC1", "-1.50", "feed", True),
            ("INC2", "-1.26", "cluster", True),
            ("INC3", "-1.22", "cluster", True),
            ("INC4", "-1.26", "cluster", True),
        ]
        assert stage.run("geocode", "locations", "--apply").returncode == 0
        unset = stage.run("geocode", "unset", "--cluster", "Kasarani")
        assert unset.returncode == 0, unset.stderr
        assert ("INC3", None, None, False) in places(stage)
        assert stage.one("SELECT reporting.fn_inc_dashboard() -> 'metrics' -> 'open' ->> 'with_geom'") == "3"
        assert stage.query(MAP) == [{"ids": ["INC1", "INC2", "INC4"]}]
        assert stage.run("capture-history").returncode == 0
        verified = stage.run("verify", "--json", "--without-broker")
        assert verified.returncode == 0, verified.stdout
        examined = stage.json(stage.run("doctor", "--json"))["findings"]
        fine = {found["about"] for found in examined if found["level"] == "ok"}
        assert fine >= {"postgres", "postgis", "migrations", "rights", "merge"}


HOSTILE = """
    CREATE SCHEMA hostile;
    CREATE FUNCTION hostile.lower(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN 'closed'::text;
    CREATE FUNCTION hostile.btrim(text, text) RETURNS text IMMUTABLE LANGUAGE sql RETURN NULL::text;
    CREATE FUNCTION hostile.get(jsonb, text) RETURNS text IMMUTABLE LANGUAGE sql RETURN NULL::text;
    CREATE OPERATOR hostile.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = hostile.get);
    CREATE TABLE hostile.staging (LIKE tickets.inc);
    GRANT USAGE ON SCHEMA hostile TO PUBLIC;
"""


def test_a_login_whose_path_begins_elsewhere_runs_the_same_functions(shared_stage: Stage) -> None:
    stage, owner = shared_stage, shared_stage.connection
    owner.execute(HOSTILE.encode())
    row = ticket("INC1", cluster="Westlands", latitude="-1.5", longitude="36.5", created_at_service="2026-06-01 09:00")
    with logged_in(owner, stage.database, role_of(owner, "ingest")) as login:
        owner.execute(sql.SQL("ALTER ROLE {} SET search_path = hostile, pg_catalog").format(sql.Identifier(login.name)))
        imported(stage, row, DATABASE_URL=login.url)
        assert places(stage) == [("INC1", "-1.50", "feed", True)]
        assert stage.one("SELECT created_at_service::text FROM tickets.inc") is not None
        with psycopg.connect(login.url, row_factory=dict_row) as session:
            answers = [
                session.execute(MAP.encode()).fetchone(),
                session.execute("SELECT reporting.fn_inc_dashboard() -> 'metrics' AS metrics").fetchone(),
            ]
    assert answers == [
        {"ids": ["INC1"]},
        *stage.query("SELECT reporting.fn_inc_dashboard() -> 'metrics' AS metrics"),
    ]


def test_a_function_whose_names_are_read_when_it_runs_has_a_path_of_its_own(shared_stage: Stage) -> None:
    """But for those that run for each row, which the program alone writes, and those that are part of who asks."""
    without = shared_stage.query("""
        SELECT proname FROM pg_proc
        WHERE pronamespace IN ('tickets'::regnamespace, 'reporting'::regnamespace, 'ingest'::regnamespace)
          AND prosqlbody IS NULL AND coalesce(strpos(array_to_string(proconfig, ' '), 'search_path='), 0) = 0
        ORDER BY proname
    """)
    assert [row["proname"] for row in without] == [
        "crq_as_of", "eat_ts", "feed_minutes", "inc_as_of", "keep_sha256", "resolve_geom",
    ]  # fmt: skip

"""What is read costs what it shows: the plans of the read functions, and answers that are the same for a minute."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import migrate
from consumer.settings import DatabaseSettings
from tests.conftest import Database
from tests.integration.former_schemas import make_schema

# So many older ones that a plan which looks at them all is a worse one, and none of them in any window but `all`.
PAST = """
    INSERT INTO tickets.inc (ticket_id, raw)
    SELECT format('OLD%s', n), jsonb_build_object(
        'ticket_id', format('OLD%s', n), 'normalized_status', 'closed', 'cluster', format('C%s', n % 50),
        'created_at_service', '2020-01-01 00:00', 'closed_at', timestamp '2020-01-02' + n * interval '1 minute',
        'latitude', (-1 - n % 300 / 100.0)::text, 'longitude', (36 + n % 290 / 100.0)::text
    )
    FROM generate_series(1, 20000) AS n;
    INSERT INTO tickets.inc (ticket_id, raw)
    SELECT format('NEW%s', n), jsonb_build_object(
        'ticket_id', format('NEW%s', n), 'normalized_status', CASE WHEN n % 2 = 0 THEN 'open' ELSE 'closed' END,
        'cluster', format('C%s', n % 50), 'created_at_service', now() - interval '1 day',
        'closed_at', CASE WHEN n % 2 = 1 THEN now() - interval '1 hour' END,
        'latitude', (-1 - n % 300 / 100.0)::text, 'longitude', (36 + n % 290 / 100.0)::text
    )
    FROM generate_series(1, 400) AS n;
    INSERT INTO tickets.import_meta (source, row_count) VALUES ('inc', 20400);
    SELECT tickets.capture_history();
"""


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def with_a_past(connection: psycopg.Connection[dict[str, Any]]) -> psycopg.Connection[dict[str, Any]]:
    connection.execute(PAST.encode())
    connection.execute("VACUUM ANALYZE")
    return connection


def plans(connection: psycopg.Connection[dict[str, Any]], call: LiteralString) -> str:
    """Of all statements that a call runs, those inside functions too."""
    told: list[str] = []
    connection.add_notice_handler(lambda found: told.append(found.message_primary or ""))
    connection.execute("LOAD 'auto_explain'")
    for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_level = notice", "log_analyze = on"):
        connection.execute(f"SET auto_explain.{setting}".encode())
    connection.execute(call)
    return "\n".join(told)


WHOLE = re.compile(r"Seq Scan on (inc|closure_events|ledger)\b")


@pytest.mark.promise("Bounded")
@pytest.mark.parametrize(
    ("call", "indexes"),
    [
        (
            "SELECT reporting.fn_inc_dashboard()",
            {"inc_closed_at_idx", "inc_created_at_service_idx"},
        ),
        (
            "SELECT reporting.fn_inc_dashboard('C7', 'open', 'today')",
            {"inc_closed_at_idx", "inc_created_at_service_idx"},
        ),
        ("SELECT reporting.fn_tickets_for_map()", {"inc_closed_at_idx|inc_open_idx"}),
        ("SELECT tickets.capture_history()", {"closure_events_closed_at_idx", "inc_created_at_service_idx"}),
        (
            "SELECT * FROM reporting.mttr_and_sla_by_team WHERE week >= current_date - 14",
            {"closure_events_closed_at_idx"},
        ),
        (
            "SELECT * FROM reporting.created_and_closed_by_day WHERE day >= current_date - 7",
            {"closure_events_closed_at_idx", "inc_created_at_service_idx"},
        ),
    ],
)
def test_nothing_looks_at_the_whole_past(
    with_a_past: psycopg.Connection[dict[str, Any]], call: LiteralString, indexes: set[str]
) -> None:
    with_a_past.execute(
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, key_time, first_seen_by, decision, state,
                                      applied_at)
           SELECT 'b', 'automations/inc/', format('k%s', n), 'e', 1, now() - n * interval '1 hour', 'poller', 'new',
                  'done', now()
           FROM generate_series(1, 3000) AS n"""
    )
    with_a_past.execute("ANALYZE ingest.ledger")
    found = plans(with_a_past, call)
    assert not WHOLE.search(found), found
    for index in indexes:
        assert re.search(rf"using ({index})\b|Bitmap Index Scan on ({index})\b", found), found


def test_a_window_reads_no_more_rows_than_it_shows(with_a_past: psycopg.Connection[dict[str, Any]]) -> None:
    """200 are open, 200 were closed in it, and 20,000 before."""
    found = plans(with_a_past, "SELECT reporting.fn_inc_dashboard()")
    scans = re.findall(r"Scan[^\n]* on [^\n]*actual time=\S+ rows=(\d+)", found)
    assert scans
    assert max(int(rows) for rows in scans) <= 400, found


def test_the_nearest_come_one_by_one(with_a_past: psycopg.Connection[dict[str, Any]]) -> None:
    with_a_past.execute("""
        INSERT INTO tickets.inc (ticket_id, raw)
        SELECT format('MORE%s', n), jsonb_build_object(
            'ticket_id', format('MORE%s', n), 'latitude', (-1 - n % 300 / 100.0)::text,
            'longitude', (36 + n % 290 / 100.0)::text
        )
        FROM generate_series(1, 5000) AS n
    """)
    with_a_past.execute("VACUUM ANALYZE tickets.inc")
    found = plans(with_a_past, "SELECT * FROM reporting.fn_nearest_open(-1.3, 36.9, 5)")
    assert re.search(r"Index Scan using inc_geog_idx[^\n]*\n\s+Index Cond[^\n]*\n\s+Order By: \(geog <->", found), found


def the_minute(connection: psycopg.Connection[dict[str, Any]]) -> str:
    row = connection.execute("SELECT to_char(clock_timestamp(), 'HH24:MI') AS minute").fetchone()
    assert row is not None
    return str(row["minute"])


@pytest.mark.parametrize(
    "call",
    [
        "SELECT reporting.fn_inc_dashboard()::text AS answer",
        "SELECT reporting.fn_inc_dashboard(p_window => 'all')::text AS answer",
        "SELECT reporting.fn_inc_dashboard('C7', 'open', 'today')::text AS answer",
        "SELECT reporting.fn_tickets_for_map()::text AS answer",
        "SELECT reporting.inc_map_json()::text AS answer",
    ],
)
def test_two_answers_within_a_minute_are_equal_to_the_byte(
    with_a_past: psycopg.Connection[dict[str, Any]], call: LiteralString
) -> None:
    while True:
        begun = the_minute(with_a_past)
        first = with_a_past.execute(call).fetchone()
        time.sleep(1.1)
        with_a_past.execute("SET TimeZone = 'America/New_York'")
        second = with_a_past.execute(call).fetchone()
        if the_minute(with_a_past) == begun:
            break
    assert first == second


@pytest.mark.parametrize(
    ("moment", "as_of"),
    [
        ("2026-06-25T12:00:00Z", "2026-06-25T12:00:00Z"),
        ("2026-06-25T12:00:00.000001Z", "2026-06-25T12:01:00Z"),
        ("2026-06-25T12:00:59.999999Z", "2026-06-25T12:01:00Z"),
        ("1969-12-31T23:59:30Z", "1970-01-01T00:00:00Z"),
    ],
)
def test_an_answer_is_as_of_the_end_of_its_minute(
    connection: psycopg.Connection[dict[str, Any]], moment: str, as_of: str
) -> None:
    row = connection.execute("SELECT reporting.fn_as_of(%s::timestamptz) AS as_of", [moment]).fetchone()
    assert row is not None
    assert row["as_of"].astimezone(UTC) == datetime.fromisoformat(as_of)


def test_what_stands_on_the_dashboard_goes_on_to_work(empty_database: Database) -> None:
    """A view of somebody else keeps the function from being made anew as json."""
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.connect(settings, None) as connection:
        make_schema(connection, "29_positions_unchecked")
        connection.execute("CREATE VIEW public.ours AS SELECT reporting.fn_inc_dashboard() @> '{}'::jsonb AS is_there")
        migrate.migrate(connection, lambda _name, _how: None, packaged_feeds().declared)
        assert connection.execute("SELECT is_there FROM public.ours").fetchone() == {"is_there": True}
        row = connection.execute("SELECT reporting.fn_inc_dashboard() ? 'as_of' AS is_new").fetchone()
        assert row == {"is_new": True}


def test_closures_that_nobody_recorded_before_are_found_after_the_upgrade(empty_database: Database) -> None:
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.connect(settings, None) as connection:
        make_schema(connection, "29_positions_unchecked")
        for ticket_id, closed_at in (("known", "2026-06-25 10:00"), ("new", "2026-06-25 11:00"), ("open", None)):
            raw = Jsonb({"ticket_id": ticket_id, "closed_at": closed_at})
            connection.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)", [ticket_id, raw])
            if ticket_id == "known":
                connection.execute("SELECT tickets.capture_history()")
        migrate.migrate(connection, lambda _name, _how: None, packaged_feeds().declared)
        captured = "SELECT tickets.capture_history() ->> 'closures_added' AS added"
        assert connection.execute(captured).fetchone() == {"added": "1"}
        assert connection.execute(captured).fetchone() == {"added": "0"}


def test_a_database_of_the_batch_import_keeps_its_own_and_gets_ours_beside(empty_database: Database) -> None:
    """Of what that import made, other functions and a snapshot with other columns."""
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.connect(settings, None) as connection:
        for migration in migrate.all_migrations()[:10]:
            connection.execute(migration.sql)
        connection.execute("""
            DROP FUNCTION reporting.fn_inc_window(text, timestamptz, timestamptz, timestamptz);
            DROP FUNCTION tickets.capture_history();
            DROP FUNCTION reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz);
            DROP FUNCTION reporting.fn_tickets_for_map(), reporting.fn_import_freshness(text);
            DROP VIEW tickets.inc_open_sla;
            DROP FUNCTION tickets.sla_state(interval);
            DROP INDEX tickets.inc_open_idx, tickets.inc_closed_at_idx, tickets.inc_created_at_service_idx;
            DROP TABLE tickets.inc_daily_snapshot;
            CREATE VIEW tickets.inc_open_sla AS SELECT ticket_id FROM tickets.inc;
            CREATE TABLE tickets.inc_daily_snapshot (snapshot_date date, cluster text, backlog integer);
            CREATE FUNCTION tickets.capture_history() RETURNS void LANGUAGE sql AS '';
            CREATE FUNCTION reporting.fn_tickets_for_map() RETURNS json LANGUAGE sql AS 'SELECT ''{"own": 1}''::json';
            CREATE FUNCTION reporting.fn_inc_dashboard(text, text, text, date, date) RETURNS json
                LANGUAGE sql AS 'SELECT ''{"own": 1}''::json';
            INSERT INTO tickets.inc_daily_snapshot VALUES (current_date, 'A', 1);
        """)
        raw = Jsonb({"ticket_id": "1", "latitude": "-1.3", "longitude": "36.8"})
        connection.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES ('1', %s)", [raw])
        migrate.migrate(connection, lambda _name, _how: None, packaged_feeds().declared)
        own = connection.execute(
            "SELECT reporting.fn_tickets_for_map() AS map,"
            " reporting.fn_inc_dashboard('', '', '', NULL, NULL) AS dashboard"
        ).fetchone()
        assert own == {"map": {"own": 1}, "dashboard": {"own": 1}}
        row = connection.execute("""
            SELECT reporting.inc_dashboard_json(NULL, NULL, NULL, NULL, NULL) #>> '{metrics,open,total}' AS open,
                   reporting.inc_map_json() #>> '{summary,total}' AS total
        """).fetchone()
        assert row == {"open": "1", "total": "1"}
        backlog = connection.execute("SELECT open_total, is_gap FROM reporting.backlog_by_day").fetchall()
        assert backlog[:1] == [{"open_total": None, "is_gap": False}]
        connection.execute("""UPDATE tickets.inc SET raw = raw || '{"closed_at": "2026-06-25 10:00"}'""")
        assert connection.execute("SELECT FROM ingest.closures_noted").fetchall() == []

"""What a migration mends in rows that are there already: dates that mean never, and words for nothing as places."""

from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import feed_tables, migrate
from consumer.settings import DatabaseSettings
from tests.conftest import Database
from tests.integration.former_schemas import make_schema

BEFORE = "24_missing_is_open"
ROWS = {
    "NEVER": {"closed_at": "0001-01-01T00:00:00", "cluster": "NULL", "location_name": "Gate B"},
    "OLD": {"closed_at": "1900-01-01", "created_at_service": "1970-01-01T00:00:00Z", "cluster": "Nyali"},
    "FAR": {"closed_at": "9999-12-31 23:59:59", "cluster": "n/a", "location_name": "-"},
    "EDGE": {"closed_at": "2099-12-31T23:59:59-15:00", "cluster": "Nyali"},
    "GOOD": {"closed_at": "2026-06-25 14:20", "cluster": "Nyali", "location_name": "Gate B"},
}


def made_before(connection: Connection[dict[str, Any]]) -> None:
    make_schema(connection, BEFORE)
    connection.execute("SET check_function_bodies = off")  # of what came later
    for feed in packaged_feeds().served:
        for statement in feed_tables.definition(feed):
            connection.execute(statement)
        made = {"feed": feed.name, "prefix": feed.prefix, "declaration": Jsonb({})}
        postgres.rows(connection, "feeds", "record_feed", made)
    for table in ("inc", "crq"):
        for ticket_id, raw in ROWS.items():
            connection.execute(
                f"INSERT INTO tickets.{table} (ticket_id, raw) VALUES (%s, %s)",  # noqa: S608
                (ticket_id, Jsonb({"ticket_id": ticket_id} | raw)),
            )
    connection.execute(
        """INSERT INTO tickets.closure_events (ticket_id, closed_at, created_at_service)
           SELECT ticket_id, closed_at, created_at_service FROM tickets.inc WHERE closed_at IS NOT NULL"""
    )


def test_rows_of_before_get_what_a_file_would_bring_now(empty_database: Database) -> None:
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.connect(settings, None) as connection:
        made_before(connection)
        migrate.migrate(connection, lambda _name, _how: None, packaged_feeds().declared)
        for table in ("inc", "crq"):
            rows = connection.execute(
                f"""SELECT ticket_id, closed_at IS NOT NULL AS is_closed, cluster, location_name,
                           raw->>'closed_at' AS text
                    FROM tickets.{table}"""  # noqa: S608
            ).fetchall()
            assert {row["ticket_id"]: (row["is_closed"], row["cluster"], row["location_name"]) for row in rows} == {
                "NEVER": (False, None, "Gate B"),
                "OLD": (False, "Nyali", None),
                "FAR": (False, None, None),
                "EDGE": (True, "Nyali", None),
                "GOOD": (True, "Nyali", "Gate B"),
            }
            assert {row["ticket_id"]: row["text"] for row in rows} == {
                name: raw["closed_at"] for name, raw in ROWS.items()
            }
        closures = connection.execute("SELECT ticket_id, created_at_service FROM tickets.closure_events").fetchall()
        assert sorted(row["ticket_id"] for row in closures) == ["EDGE", "GOOD"]

"""A gazetteer on a test's database, tickets that wait for a place, and what became of them."""

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from consumer.feeds.declared import packaged_feeds
from consumer.geocoding import known_places
from consumer.geocoding.gazetteer import Batch, Gazetteer
from consumer.geocoding.known_places import PlaceKind, Point
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import GazetteerSettings, GeocoderSettings
from tests.doubles.geocoder import KEY, LocationIQ

WESTLANDS = (-1.2676, 36.8108)
FEEDS = packaged_feeds().geocoded


def settings(url: str = "http://127.0.0.1:1", **others: object) -> GeocoderSettings:
    fast = {"GEOCODER_PER_SECOND": 1000, "GEOCODER_PER_MINUTE": 60_000}
    return GeocoderSettings.model_validate({"GEOCODER_API_KEY": KEY, "GEOCODER_URL": url} | fast | others)


def gazetteer(pool: Pool, provider: LocationIQ, **kept: float) -> Gazetteer:
    return Gazetteer(pool, FEEDS, GazetteerSettings.model_validate(kept), settings(provider.url), threading.Event())


def look_up(of: Gazetteer, limit: int = 100) -> Batch:
    batch = Batch()
    of.work(PlaceKind, limit, batch)
    return batch


def execute(pool: Pool, statement: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
    with postgres.transaction(pool) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def ticket(pool: Pool, ticket_id: str, **raw: str) -> None:
    parameters = {"ticket_id": ticket_id, "raw": Jsonb({"cluster": "Westlands"} | raw)}
    execute(pool, "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%(ticket_id)s, %(raw)s)", parameters)


def sources(pool: Pool) -> dict[str, str | None]:
    return {
        row["ticket_id"]: row["geo_source"] for row in execute(pool, "SELECT ticket_id, geo_source FROM tickets.inc")
    }


def statuses(pool: Pool) -> dict[str, str]:
    return {row["cluster"]: row["status"] for row in execute(pool, "SELECT cluster, status FROM tickets.geo_clusters")}


def tickets(pool: Pool, **clusters: int) -> None:
    """So many tickets of each cluster."""
    for cluster, count in clusters.items():
        for number in range(count):
            ticket(pool, f"{cluster}{number}", cluster=cluster.replace("_", " "))


def pass_time(pool: Pool, **of: float) -> None:
    """Make everything that is known older."""
    for table in ("geo_clusters", "geo_locations"):
        execute(pool, f"UPDATE tickets.{table} SET geocoded_at = geocoded_at - %(of)s", {"of": timedelta(**of)})  # noqa: S608


def move_westlands(pool: Pool, latitude: float, longitude: float) -> None:
    with postgres.transaction(pool) as connection:
        known_places.set_cluster(connection, "Westlands", Point(latitude, longitude))


def locations(pool: Pool) -> dict[str, str]:
    rows = execute(pool, "SELECT location_name, status FROM tickets.geo_locations")
    return {row["location_name"]: row["status"] for row in rows}


UNHANDLED = "SELECT request_id FROM ingest.outbox WHERE handled_at IS NULL"
MOMBASA = (-4.0435, 39.6682)
NEAR = (-1.25, 36.82)

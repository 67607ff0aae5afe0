"""The geocode follow-on: places that tickets name become points, and the points become the tickets' geom.

The gazetteer is asked first and the provider only for what it does not have: clusters, then the locations of actionable
tickets. One batch at a time runs on a database, since the provider's limits leave room for no more; its rest is a new
request of the outbox, so that no batch keeps a message in hand for long.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from threading import Event
from typing import Any

import psycopg
import structlog
from psycopg.types.json import Jsonb

from consumer import database
from consumer.database import Pool
from consumer.fail_points import AtPoint, nowhere
from consumer.locationiq import (
    GEOCODER,
    AnswerUnusable,
    Found,
    Geocoder,
    NotFound,
    QueryRefused,
    RateLimited,
    Viewbox,
)
from consumer.place_names import place_name
from consumer.quota import Quota, Stopped
from consumer.settings import GazetteerSettings, GeocoderSettings
from publisher.errors import DependencyDown, HeldByAnother, Refused

GUARD_METRES = 25_000.0
"""An answer farther from its cluster's point is a place of the same name in another city."""
BATCH = 20
"""Lookups with one message in hand; at one a second, less than a minute."""
_BIAS_DEGREES = 0.25
"""Half the side of the box around the cluster that is looked in first; a quarter of a degree is 28 km there."""
_TOO_COARSE = frozenset({"city", "county", "state", "country", "postalcode"})
"""Levels at which an answer says no more than the cluster's point does."""
_NOBODY = "nobody"
log = structlog.get_logger()


class Kind(StrEnum):
    """What is looked up."""

    CLUSTERS = "clusters"
    LOCATIONS = "locations"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to ask for, by the place its alias names, or its own name; and the region of most of its tickets."""

    cluster: str
    place: str
    region: str | None

    @property
    def queries(self) -> list[str]:
        """With the region first: a name is a street of some other city's, too."""
        return [f"{self.place}, {self.region}", self.place] if self.region else [self.place]


@dataclass(frozen=True, slots=True)
class Location:
    """A location name to ask for, and its cluster's point in degrees."""

    cluster: str
    location_name: str
    latitude: float
    longitude: float

    @property
    def near(self) -> Viewbox:
        return Viewbox(
            self.longitude - _BIAS_DEGREES,
            self.latitude - _BIAS_DEGREES,
            self.longitude + _BIAS_DEGREES,
            self.latitude + _BIAS_DEGREES,
        )


Place = Cluster | Location


@dataclass(slots=True)
class Batch:
    """What became of some places: `outcomes` counts hit, miss and rejected; `rest` says whether there are more."""

    outcomes: Counter[str] = field(default_factory=Counter)
    placed: int = 0
    """Tickets that got another geom."""
    rest: bool = False
    left: int = 0
    """Requests left of the day's."""
    sources: dict[str, int] = field(default_factory=dict)
    """All tickets, by where their place is from; `nowhere` has those without one."""


class Gazetteer:
    """What is known of places, and how more of it becomes known."""

    def __init__(
        self,
        pool: Pool,
        settings: GazetteerSettings,
        geocoder_settings: GeocoderSettings,
        stop: Event,
        at: AtPoint = nowhere,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._geocoder = Geocoder(geocoder_settings)
        self._provider = geocoder_settings.url.host or ""
        self._stop = stop
        self._at = at
        self._was_answered = False
        self.quota = Quota(pool, geocoder_settings, stop)

    def to_ask(self, kind: Kind) -> list[Place]:
        """Everything that the provider would be asked for now; that of most tickets first.

        Raises: DependencyDown.
        """
        make: Callable[..., Place] = Cluster if kind is Kind.CLUSTERS else Location
        with database.transaction(self._pool) as connection:
            return [make(**row) for row in database.rows(connection, "geocoding", f"{kind}_to_ask", self._ages())]

    def work(
        self, kinds: Iterable[Kind], limit: int, batch: Batch, told: Callable[[str], None] = lambda _outcome: None
    ) -> None:
        """Look up to `limit` places up and place the tickets; `batch` tells of it, also of one that ends early.

        Raises: HeldByAnother, when somebody else is at it; Paused, when the quota is spent; Refused, when a setting
        has to be changed; Stopped; DependencyDown.
        """
        with self._alone():
            self.quota.forget_old()
            batch.placed = self._place_tickets()
            try:
                found = (place for kind in kinds for place in self.to_ask(kind))
                for place in islice(found, limit):
                    if self._stop.is_set():
                        raise Stopped("told to stop")
                    outcome = self._look_up(place)
                    batch.outcomes[outcome] += 1
                    told(outcome)
                batch.rest = next(found, None) is not None
            finally:
                # Also of a batch that ends early, for what it has found.
                batch.placed += self._place_tickets()
                batch.left = self.quota.left()
                with database.transaction(self._pool) as connection:
                    rows = database.rows(connection, "status", "tickets_by_place")
                batch.sources = {row["source"] or "nowhere": row["tickets"] for row in rows}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Not by a transaction, which would be open for as long as all the lookups take."""
        with database.translated_errors(), self._pool.connection() as connection:
            mine = database.row(connection, "geocoding", "lock_lookups")
            if mine is None or not mine["mine"]:
                raise HeldByAnother("the gazetteer", "somebody else is looking places up")
            try:
                yield
            finally:
                with suppress(psycopg.Error):  # a lost connection has let go of it
                    database.rows(connection, "geocoding", "unlock_lookups")

    def _look_up(self, place: Place) -> str:
        """Ask for one place and keep what comes of it; a crash before that asks once more, and keeps the same."""
        if isinstance(place, Cluster):
            return self._look_up_cluster(place)
        return self._look_up_location(place)

    def _look_up_cluster(self, place: Cluster) -> str:
        for query in place.queries:
            found = self._search(query, None)
            if isinstance(found, Found):
                break
        return self._keep("cluster", _row(found, query, self._provider) | {"cluster": place.cluster})

    def _look_up_location(self, place: Location) -> str:
        name = place_name(place.location_name)
        key = {"cluster": place.cluster, "location_name": place.location_name, "cleaned_query": name}
        if name is None:
            # Nothing but codes: kept as a miss, so that it is not looked at with every batch.
            return self._keep("location", _row(None, None, _NOBODY) | key | {"distance_m": None})
        with database.transaction(self._pool) as connection:
            same = database.row(connection, "geocoding", "answered_before", key | self._ages())
        if same is not None:
            answer = None if same["answer"] is None else Jsonb(same["answer"])
            return self._keep("location", same | key | {"answer": answer})
        found = self._search(name, place.near)
        row = _row(found, name, self._provider) | key | {"distance_m": None}
        if isinstance(found, Found):
            row["distance_m"] = self._distance(place, found)
            if row["distance_m"] > GUARD_METRES or found.quality.rpartition("/")[2] in _TOO_COARSE:
                row["status"] = "rejected"
        return self._keep("location", row)

    def _search(self, query: str, near: Viewbox | None) -> Found | NotFound | None:
        """One answer; None for a query that the provider does not take, or answers with what is of no use.

        Raises: Paused, Refused, Stopped, DependencyDown.
        """
        while True:
            try:
                answer = self._geocoder.search(query, near, self.quota.book)
            except RateLimited as error:
                log.warning("rate limited", window=error.window)
                self.quota.limited(error.window, str(error))
            except (AnswerUnusable, QueryRefused) as error:
                if not self._was_answered:
                    self.quota.refused(str(error))
                    raise Refused(GEOCODER, error.detail) from error
                # Others were answered, so it is this one query. Kept as a miss, it holds up nothing.
                log.warning("no use of it", query=query, detail=str(error))
                return None
            except Refused as error:
                self.quota.refused(str(error))
                raise
            except DependencyDown:
                self.quota.ended(failed=True)
                raise
            else:
                self._was_answered = True
                return answer
            finally:
                self.quota.ended()

    def _distance(self, place: Location, found: Found) -> float:
        with database.transaction(self._pool) as connection:
            row = database.row(
                connection,
                "geocoding",
                "distance",
                {
                    "latitude": found.latitude,
                    "longitude": found.longitude,
                    "from_latitude": place.latitude,
                    "from_longitude": place.longitude,
                },
            )
        assert row is not None  # noqa: S101 - a query without FROM
        return float(row["metres"])

    def _keep(self, of: str, row: dict[str, Any]) -> str:
        self._at("answered, not kept")
        with database.transaction(self._pool) as connection:
            database.rows(connection, "geocoding", f"{of}_was_asked", row)
            database.rows(connection, "geocoding", f"keep_{of}", row)
        return str(row["status"])

    def _place_tickets(self) -> int:
        with database.transaction(self._pool) as connection:
            return len(database.rows(connection, "geocoding", "place_tickets"))

    def _ages(self) -> dict[str, datetime | None]:
        now = datetime.now(UTC)
        hits, misses = self._settings.keep_hits_days, self._settings.keep_misses_days
        return {
            "hits_before": now - timedelta(days=hits) if hits is not None else None,
            "misses_before": now - timedelta(days=misses),
        }


def _row(found: Found | NotFound | None, query: str | None, provider: str) -> dict[str, Any]:
    if isinstance(found, Found):
        known: dict[str, Any] = {
            "latitude": found.latitude, "longitude": found.longitude, "quality": found.quality, "status": "hit",
        }  # fmt: skip
    else:
        known = {"latitude": None, "longitude": None, "quality": None, "status": "miss"}
    return known | {"query": query, "provider": provider, "answer": Jsonb(found.raw) if found else None}


class GeocodeHandler:
    """Handles GeocodeTickets: one batch for all open requests, and a new request for the rest."""

    def __init__(self, pool: Pool, gazetteer: Gazetteer, relay: Callable[[], int], at: AtPoint) -> None:
        self._pool = pool
        self._gazetteer = gazetteer
        self._relay = relay
        self._at = at

    def geocode(self) -> Batch:
        """Run one batch.

        Raises: what Gazetteer.work does; then the requests stay open.
        """
        with database.transaction(self._pool) as connection:
            requests = [r["request_id"] for r in database.rows(connection, "outbox", "unhandled", {"kind": "geocode"})]
        batch = Batch()
        self._gazetteer.work(Kind, BATCH, batch)
        with database.transaction(self._pool) as connection:
            database.rows(connection, "outbox", "mark_handled", {"requests": requests})
            if batch.rest:
                database.rows(connection, "geocoding", "ask_for_rest")
            self._at("geocoded, not committed")
        self._at("geocoded, before relay")
        if batch.rest:
            self._relay()
        return batch

"""What is known of places: answers of the provider, points set by hand. The only caller of `sql/queries/geocoding.sql`.

Every verb works in the caller's transaction. Raises of each: psycopg.Error.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from psycopg.types.json import Jsonb

from consumer.feeds.feed import Feed
from consumer.geocoding.locationiq import ATTEMPTS, Viewbox
from consumer.geocoding.place_names import place_name
from consumer.postgres import database
from consumer.postgres.database import Connection

GUARD_METRES = 25_000.0
"""An answer farther from its cluster's point is a place of the same name in another city."""
TOO_COARSE = ("city", "county", "state", "country", "postalcode")
"""Levels at which an answer says no more than the cluster's point does."""
_BIAS_DEGREES = 0.25
"""Half the side of the box around the cluster that is the geocoder's hint; a quarter of a degree is 28 km there."""

Status = Literal["hit", "miss", "rejected"]


class PlaceKind(StrEnum):
    """What is looked up."""

    CLUSTERS = "clusters"
    LOCATIONS = "locations"


@dataclass(frozen=True, slots=True)
class Point:
    """In degrees north and east."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to ask for, by the place its alias names, or its own name; and the region of most of its tickets."""

    cluster: str
    place: str
    region: str | None

    @property
    def queries(self) -> list[str]:
        """With the region first: a name is a street of some other city's, too. None for a name that is blank."""
        if not self.place.strip():
            return []
        return [f"{self.place}, {self.region}", self.place] if self.region else [self.place]


@dataclass(frozen=True, slots=True)
class Location:
    """A location name to ask for, and its cluster's point in degrees."""

    cluster: str
    location_name: str
    latitude: float
    longitude: float

    @property
    def query(self) -> str | None:
        """The name without its network codes; None where it has nothing else."""
        return place_name(self.location_name)

    @property
    def near(self) -> Viewbox:
        return Viewbox(
            self.longitude - _BIAS_DEGREES,
            self.latitude - _BIAS_DEGREES,
            self.longitude + _BIAS_DEGREES,
            self.latitude + _BIAS_DEGREES,
        )


Place = Cluster | Location


@dataclass(frozen=True, slots=True)
class ToAsk:
    """The first `places` of a `total` to ask for; the last `of_many` of the total are those of files with many."""

    places: list[Place]
    total: int
    of_many: int

    @property
    def of_few(self) -> list[Place]:
        return self.places[: self.total - self.of_many]


@dataclass(frozen=True, slots=True)
class Ages:
    """What was answered before these moments is asked for again."""

    hits_before: datetime | None
    """None keeps them for good."""
    misses_before: datetime
    unanswered_before: datetime
    """Of a place that alone got no answer, and not yet ATTEMPTS times."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of a place once it was asked for."""

    status: Status
    provider: str | None
    point: Point | None = None
    """As answered, also of what is rejected; None for a miss."""
    query: str | None = None
    """What the provider was asked."""
    quality: str | None = None
    """`code/type/level`, as the provider tells it."""
    answer: dict[str, Any] | list[Any] | None = None
    """As it came."""
    distance_m: float | None = None
    """From the cluster's point, of a location that has one itself."""
    geocoded_at: datetime | None = None
    """None is now."""
    is_unanswered: bool = False
    """Others were answered and this one was not: after ATTEMPTS times in a row it is a miss."""


@dataclass(frozen=True, slots=True)
class Placing:
    """How many tickets got another point, and how many are nowhere now."""

    placed: int
    unplaced: int


def to_ask(connection: Connection, kind: PlaceKind, ages: Ages, limit: int, many: int | None) -> ToAsk:
    """Up to `limit` places that nothing is known of, or too old; those of most tickets first.

    Those of a file that has more than `many` come last; None makes no difference.
    """
    make: Callable[..., Place] = Cluster if kind is PlaceKind.CLUSTERS else Location
    rows = _rows(connection, f"{kind}_to_ask", _age_parameters(ages) | {"limit": limit, "many": many})
    counts = {name: max((row.pop(name) for row in rows), default=0) for name in ("total", "of_many")}
    return ToAsk([make(**row) for row in rows], **counts)


def count_waiting(connection: Connection, ages: Ages) -> int:
    """Location names that are not asked for before their cluster has a point."""
    return int(_one(connection, "locations_that_wait", _age_parameters(ages))["places"])


def answered_before(connection: Connection, place: Location, ages: Ages) -> Entry | None:
    """What is kept of another name of the cluster that asks for the same."""
    parameters = _age_parameters(ages) | _key(place.cluster, place.location_name) | {"cleaned_query": place.query}
    found = _row(connection, "answered_before", parameters)
    if found is None:
        return None
    latitude, longitude = found.pop("latitude"), found.pop("longitude")
    return Entry(**found, point=None if latitude is None else Point(latitude, longitude))


def distances(connection: Connection, cluster: str, points: Sequence[Point]) -> list[float]:
    """Metres from each point to the cluster's, which stays until the transaction ends; [] where it has none."""
    parameters = {
        "cluster": cluster,
        "latitudes": [point.latitude for point in points], "longitudes": [point.longitude for point in points],
    }  # fmt: skip
    return [row["metres"] for row in _rows(connection, "distances", parameters)]


def is_in_kenya(connection: Connection, point: Point) -> bool:
    return _row(connection, "is_in_kenya", asdict(point)) is not None


def keep_cluster(connection: Connection, place: Cluster, entry: Entry) -> None:
    """A point that is known stays until another one is answered, and one that was set by hand for good."""
    parameters = _entry_parameters(entry) | {
        "cluster": place.cluster, "asked_as": place.place, "attempts": ATTEMPTS,
    }  # fmt: skip
    with _moving(connection, place.cluster):
        _run(connection, "cluster_was_asked", parameters)
        _run(connection, "keep_cluster", parameters)


def keep_location(connection: Connection, place: Location, entry: Entry) -> None:
    """The same of a location."""
    parameters = _entry_parameters(entry) | _key(place.cluster, place.location_name) | {
        "cleaned_query": place.query, "distance_m": entry.distance_m, "geocoded_at": entry.geocoded_at,
    }  # fmt: skip
    _run(connection, "location_was_asked", parameters)
    _run(connection, "keep_location", parameters)


def set_cluster(connection: Connection, cluster: str, point: Point) -> None:
    """By hand: no answer overwrites it."""
    with _moving(connection, cluster):
        _run(connection, "set_cluster", {"cluster": cluster} | asdict(point))


def set_location(connection: Connection, cluster: str, location_name: str, point: Point) -> None:
    """The same of a location."""
    parameters = _key(cluster, location_name) | asdict(point) | {"cleaned_query": place_name(location_name)}
    _run(connection, "set_location", parameters)


def unset_cluster(connection: Connection, cluster: str) -> bool:
    """Take back what was set by hand, so that the provider is asked again; whether anything was."""
    with _moving(connection, cluster):
        return bool(_rows(connection, "unset_cluster", {"cluster": cluster}))


def unset_location(connection: Connection, cluster: str, location_name: str) -> bool:
    """The same of a location."""
    return bool(_rows(connection, "unset_location", _key(cluster, location_name)))


def is_set_by_hand(connection: Connection, cluster: str) -> bool:
    return _row(connection, "is_manual", {"cluster": cluster}) is not None


def set_alias(connection: Connection, cluster: str, place: str) -> None:
    """The cluster is asked for as `place` from now on."""
    _run(connection, "set_alias", {"cluster": cluster, "place": place})


def count_tickets(connection: Connection, cluster: str, location_name: str | None) -> int:
    """Tickets of the cluster, or of one of its locations."""
    return int(_one(connection, "tickets_there", _key(cluster, location_name))["tickets"])


def place_tickets(connection: Connection, feeds: Iterable[Feed]) -> Placing:
    """Put every ticket of the feeds where the gazetteer has it."""
    placing = Placing(0, 0)
    moved: dict[str, list[str]] = {}
    for feed in feeds:
        found = database.row(connection, "geocoding", "place_tickets", feed=feed)
        if found is not None and (found["placed"] or found["unplaced"]):
            placing = Placing(placing.placed + found["placed"], placing.unplaced + found["unplaced"])
            moved[feed.name] = found["ticket_ids"]
    for name, ticket_ids in sorted(moved.items()):
        _run(connection, "move_version", {"feed": name, "ticket_ids": ticket_ids})
    return placing


def ask_for_batch(connection: Connection) -> None:
    """Leave a request in the outbox: whoever consumes those looks up what there is to look up."""
    _run(connection, "ask_for_batch")


def ask_for_batch_tomorrow(connection: Connection) -> datetime | None:
    """The same for when the day's requests are renewed; gives when that is, None if somebody has asked before."""
    found = _row(connection, "ask_for_batch_tomorrow")
    return None if found is None else found["due_at"]


@contextmanager
def _moving(connection: Connection, cluster: str) -> Iterator[None]:
    """Draw the conclusions from what is done to the cluster's point meanwhile.

    Where that is moved, the answers for the cluster's locations are held against the new one; where it is taken away,
    they are not believed either. The next placing moves the tickets.
    """
    before = _point(connection, cluster)
    yield
    after = _point(connection, cluster)
    if after is None and before is not None:
        _run(connection, "disown_locations", {"cluster": cluster})
    elif after != before:
        parameters = {
            "cluster": cluster, "guard_m": GUARD_METRES, "too_coarse": list(TOO_COARSE),
            "was_latitude": before.latitude if before else None, "was_longitude": before.longitude if before else None,
        }  # fmt: skip
        _run(connection, "judge_locations", parameters)


def _point(connection: Connection, cluster: str) -> Point | None:
    found = _row(connection, "cluster_point", {"cluster": cluster})
    return None if found is None else Point(**found)


def _key(cluster: str, location_name: str | None) -> dict[str, Any]:
    return {"cluster": cluster, "location_name": location_name}


def _age_parameters(ages: Ages) -> dict[str, Any]:
    return asdict(ages) | {"attempts": ATTEMPTS}


def _entry_parameters(entry: Entry) -> dict[str, Any]:
    """Those that clusters and locations share."""
    return {
        "latitude": entry.point.latitude if entry.point else None,
        "longitude": entry.point.longitude if entry.point else None,
        "query": entry.query,
        "provider": entry.provider,
        "quality": entry.quality,
        "answer": None if entry.answer is None else Jsonb(entry.answer),
        "status": entry.status,
        "unanswered": int(entry.is_unanswered),
    }


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    return database.rows(connection, "geocoding", name, parameters)


def _row(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    return database.row(connection, "geocoding", name, parameters)


def _one(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found = _row(connection, name, parameters)
    assert found is not None  # noqa: S101 - it counts
    return found


def _run(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> None:
    _rows(connection, name, parameters)

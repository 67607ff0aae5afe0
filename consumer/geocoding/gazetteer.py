"""Places that tickets name become points, and the points become the tickets' geom.

The gazetteer is asked first and the provider only for what it does not have: clusters, then the locations of actionable
tickets. One batch at a time runs on a database, since the provider's limits leave room for no more; its rest is a new
request of the outbox, so that no batch keeps a message in hand for long. A file that names a lot of places comes after
the others, and leaves them a part of the day's requests.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from threading import Event
from time import monotonic

import structlog

from consumer.fail_points import Reached, nowhere
from consumer.feeds.feed import Feed
from consumer.geocoding import known_places
from consumer.geocoding.known_places import (
    GUARD_METRES,
    TOO_COARSE,
    Ages,
    Cluster,
    Entry,
    Location,
    Place,
    PlaceKind,
    Point,
    Status,
    ToAsk,
)
from consumer.geocoding.locationiq import (
    ATTEMPTS,
    AnswerUnusable,
    Found,
    Geocoder,
    GeocoderDown,
    GeocoderRefused,
    NotFound,
    QueryRefused,
    RateLimited,
    Viewbox,
)
from consumer.geocoding.quota import Quota, Stopped
from consumer.postgres import database, dry_runs
from consumer.postgres.database import Connection, Pool
from consumer.postgres.lease import Lease
from consumer.settings import GazetteerSettings, GeocoderSettings
from publisher import metrics
from publisher.errors import StatementRefused
from publisher.trace import Trace

BATCH = 20
"""Lookups with one message in hand; at one a second, less than a minute."""
BATCH_SECONDS = 120.0
"""The end of a batch whose lookups have to wait for longer."""
MANY = 100
"""A file that names more places to look up is one of many: its places come after those of all others."""
RESERVED = 0.5
"""The share of a day's requests that files of many places leave to others."""
_PAGE = 100
_NO_CLUSTER = frozenset({"county", "state", "country", "postalcode"})
"""What is too coarse for a cluster, which can be a city."""
_PROBE = "Nairobi"
"""Asked when a place got no answer: whatever is said to it, the provider answers."""
_ASKED_AGAIN_AFTER = timedelta(minutes=10)
"""A place that alone got no answer is asked for again after so long; after ATTEMPTS times it is a miss."""
_NOBODY = "nobody"
log = structlog.get_logger()


@dataclass(slots=True)
class Batch:
    """What became of some places: `outcomes` counts hit, miss, rejected and unanswered."""

    outcomes: Counter[str] = field(default_factory=Counter)
    placed: int = 0
    """Tickets that got another geom."""
    rest: bool = False
    """Whether there are more places to look up."""
    held_back: int = 0
    """More places, of files that have a lot of them: what is left of the day's requests is for others."""
    traces: list[Trace] = field(default_factory=list)
    """Of those who asked for it."""


def places_to_ask(
    pool: Pool, settings: GazetteerSettings, kind: PlaceKind, limit: int, many: int | None = None
) -> ToAsk:
    """What the provider would be asked for now, up to `limit` of it; that of most tickets first.

    Those of a file that has more than `many` come last; None makes no difference.
    Raises: DependencyDown.
    """
    with database.transaction(pool) as connection:
        return known_places.to_ask(connection, kind, _ages(settings), limit, many)


def places_that_wait(pool: Pool, settings: GazetteerSettings) -> int:
    """Location names that are not asked for before their cluster has a point.

    Raises: DependencyDown.
    """
    with database.transaction(pool) as connection:
        return known_places.count_waiting(connection, _ages(settings))


def _ages(settings: GazetteerSettings) -> Ages:
    now = datetime.now(UTC)
    return Ages(
        now - timedelta(days=settings.keep_hits_days) if settings.keep_hits_days is not None else None,
        now - timedelta(days=settings.keep_misses_days),
        now - _ASKED_AGAIN_AFTER,
    )


class Gazetteer:
    """What is known of places, and how more of it becomes known."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        pool: Pool,
        feeds: Sequence[Feed],
        settings: GazetteerSettings,
        geocoder_settings: GeocoderSettings,
        stop: Event,
        reached: Reached = nowhere,
        *,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """`feeds` are those whose tickets it places; `answered` is called with each answer of the provider."""
        self._pool = pool
        self._feeds = feeds
        self._settings = settings
        self._geocoder = Geocoder(geocoder_settings, stop)
        self._provider = geocoder_settings.url.host or ""
        self._stop = stop
        self._reached = reached
        self._answered = answered
        # For as long as a request can be under way, and the wait for one goes without a look at whose turn it is.
        self._turn = Lease(pool, "lookups", timedelta(seconds=4 * geocoder_settings.timeout + 10))
        self.quota = Quota(pool, geocoder_settings, stop, self._turn.renew)
        self._reserved = RESERVED * geocoder_settings.per_day

    def work(
        self,
        kinds: Iterable[PlaceKind],
        limit: int,
        batch: Batch,
        *,
        seconds: float = float("inf"),
        by_hand: bool = False,
        told: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        """Look up to `limit` places up, or for so many seconds, and place the tickets.

        `batch` tells of it, also when it ends early. `by_hand` says that a person has mended what a pause was for, or
        wants to see what still is wrong; and that no request of the outbox stands behind it, so it makes one first: if
        this process is killed, a consumer places what it has found.
        Raises: HeldByAnother, when somebody else is at it; Paused, when the quota is spent; GeocoderRefused, when a
        setting has to be changed; Stopped; DependencyDown.
        """
        end = monotonic() + seconds
        with self._turn.held():
            if by_hand:
                self.quota.lift_pause()
                with database.transaction(self._pool) as connection:
                    known_places.ask_for_batch(connection)
            self.quota.forget_old()
            placed = self._place_tickets()
            try:
                places = self._places(kinds, batch, by_hand=by_hand)
                for number, place in enumerate(islice(places, limit)):
                    if self._stop.is_set():
                        raise Stopped("told to stop")
                    self._turn.renew()
                    if number and number % BATCH == 0:  # a long run by hand shows what it has found
                        placed += self._place_tickets()
                    outcome = self._look_up(place)
                    batch.outcomes[outcome] += 1
                    metrics.LOOKUPS.labels(outcome).inc()
                    told(outcome)
                    if monotonic() > end:
                        break
                batch.rest = next(places, None) is not None
            finally:
                # Also of a batch that ends early, for what it has found.
                placed += self._place_tickets()
                batch.placed += placed
                self._tell_metrics(placed)

    def _places(self, kinds: Iterable[PlaceKind], batch: Batch, *, by_hand: bool) -> Iterator[Place]:
        """What to look up, in its order: of files with many places last, and only while others have enough left.

        A person who asks for it has looked at it, so by hand there is no difference.
        """
        many = None if by_hand else MANY
        of_many: list[PlaceKind] = []
        for kind in kinds:
            found = yield from self._pages(kind, many, lambda page: page.of_few)
            if found.of_many:
                of_many.append(kind)
        for kind in of_many:
            for place in self._pages(kind, many, lambda page: page.places):
                if self.quota.left() <= self._reserved:
                    batch.held_back += places_to_ask(self._pool, self._settings, kind, 1, many).of_many
                    break
                yield place

    def _pages(
        self, kind: PlaceKind, many: int | None, chosen: Callable[[ToAsk], list[Place]]
    ) -> Generator[Place, None, ToAsk]:
        """Give what is chosen of one page after the other, since what was asked for is on none of the next."""
        asked: set[Place] = set()
        while True:
            page = places_to_ask(self._pool, self._settings, kind, _PAGE, many)
            places = [place for place in chosen(page) if place not in asked]
            for place in places:
                asked.add(place)
                yield place
            if not places or len(places) < _PAGE:
                return page

    def _tell_metrics(self, placed: int) -> None:
        metrics.PLACED.inc(placed)
        metrics.QUOTA_LEFT.set(self.quota.left())
        with database.transaction(self._pool) as connection:
            rows = database.rows(connection, "status", "tickets_by_place")
        none = dict.fromkeys(("feed", "location", "cluster", "nowhere"), 0)
        for source, tickets in (none | {row["source"] or "nowhere": row["tickets"] for row in rows}).items():
            metrics.TICKETS.labels(source).set(tickets)

    def _look_up(self, place: Place) -> str:
        """Ask for one place and keep what comes of it; a crash before that asks once more, and keeps the same."""
        try:
            return self._look_up_cluster(place) if isinstance(place, Cluster) else self._look_up_location(place)
        except (GeocoderDown, QueryRefused) as error:
            self._require_answers()
            # So it is this place alone: it must not hold up the others.
            log.warning("no answer", place=_name(place), detail=error.detail)
            self._keep(place, Entry("miss", self._provider, is_unanswered=isinstance(error, GeocoderDown)))
            return "unanswered"
        except StatementRefused as error:
            # An answer that cannot be kept would hold up all the others with every batch.
            log.warning("answer not kept", place=_name(place), detail=error.detail)
            return self._keep(place, Entry("miss", self._provider))

    def _require_answers(self) -> None:
        """Find out whether the provider answers anything.

        Raises: what it raises to everybody.
        """
        try:
            self._search(_PROBE, None)
        except QueryRefused as error:
            self.quota.refused(str(error))
            raise

    def _look_up_cluster(self, place: Cluster) -> str:
        entries: dict[Status, Entry] = {}
        useless: AnswerUnusable | QueryRefused | None = None
        for query in place.queries:
            try:
                answer = self._search(query, None)
            except (AnswerUnusable, QueryRefused) as error:
                useless = error
                continue
            entry = self._judged_cluster(_entries(answer, query, self._provider))
            entries.setdefault(entry.status, entry)
            if entry.status == "hit":
                break
        if useless is not None and not entries:
            raise useless
        best = entries.get("hit") or entries.get("rejected") or entries.get("miss") or Entry("miss", _NOBODY)
        return self._keep_cluster(place, best)

    def _judged_cluster(self, entries: list[Entry]) -> Entry:
        """The first that can be a cluster's place; else the first of all, which tells what was found instead."""
        with database.transaction(self._pool) as connection:
            for entry in entries:
                if entry.point is None:
                    return entry
                if _is_fine_enough(entry.quality) and known_places.is_in_kenya(connection, entry.point):
                    return entry
        return replace(entries[0], status="rejected")

    def _look_up_location(self, place: Location) -> str:
        name = place.query
        if name is None:
            # Nothing but codes: kept as a miss, so that it is not looked at with every batch.
            return self._keep_location(place, [Entry("miss", _NOBODY)])
        with database.transaction(self._pool) as connection:
            same = known_places.answered_before(connection, place, _ages(self._settings))
        if same is not None:
            return self._keep_location(place, [same])
        return self._keep_location(place, _entries(self._search(name, place.near), name, self._provider))

    def _search(self, query: str, near: Viewbox | None) -> Found | NotFound:
        """One answer.

        Raises: GeocoderDown or QueryRefused, for none; Paused, GeocoderRefused, Stopped, DependencyDown.
        """
        limited = 0
        while True:
            try:
                answer = self._geocoder.search(query, near, self.quota.book)
            except RateLimited as error:
                self._answered()
                log.warning("rate limited", window=error.window)
                self.quota.limited(error.window, str(error))
                limited += 1
                if limited >= ATTEMPTS and (paused := self.quota.paused()) is not None:
                    raise paused from error
            except QueryRefused:
                self._answered()
                raise
            except GeocoderRefused as error:
                self._answered()
                self.quota.refused(str(error))
                raise
            except GeocoderDown as error:
                self.quota.ended(failed=not isinstance(error, AnswerUnusable))
                if self._stop.is_set():
                    raise Stopped("told to stop") from error
                raise
            else:
                self._answered()
                return answer
            finally:
                self.quota.ended()

    def _keep(self, place: Place, entry: Entry) -> str:
        return self._keep_cluster(place, entry) if isinstance(place, Cluster) else self._keep_location(place, [entry])

    def _keep_cluster(self, place: Cluster, entry: Entry) -> str:
        self._reached("answered, not kept")
        with database.transaction(self._pool) as connection:
            dry_runs.wait_for(connection)
            known_places.keep_cluster(connection, place, entry)
        self._reached("kept, not placed")
        return entry.status

    def _keep_location(self, place: Location, entries: list[Entry]) -> str:
        self._reached("answered, not kept")
        with database.transaction(self._pool) as connection:
            judged = _judged_location(connection, place, entries)
            if judged is None:
                return "unanswered"  # somebody took the cluster's point back, so there is nothing to judge it by
            known_places.keep_location(connection, place, judged)
        self._reached("kept, not placed")
        return judged.status

    def _place_tickets(self) -> int:
        with database.transaction(self._pool) as connection:
            dry_runs.wait_for(connection)
            return known_places.place_tickets(connection, self._feeds).placed


def _judged_location(connection: Connection, place: Location, entries: list[Entry]) -> Entry | None:
    """The first that is near its cluster and finer than that; else the first of all, with its distance.

    None where the cluster has no point any more.
    """
    points = [entry.point for entry in entries if entry.point is not None]
    if not points:
        return replace(entries[0], distance_m=None)
    judged = []
    for entry, metres in zip(entries, known_places.distances(connection, place.cluster, points), strict=False):
        is_hit = metres <= GUARD_METRES and _parts(entry.quality)[2] not in TOO_COARSE
        judged.append(replace(entry, distance_m=metres, status="hit" if is_hit else "rejected"))
    return next((entry for entry in judged if entry.status == "hit"), judged[0]) if judged else None


def _is_fine_enough(quality: str | None) -> bool:
    """Whether more is known than the country, the county or a post office, or, with `fallback`, the region's city."""
    code, _, level = _parts(quality)
    return level not in _NO_CLUSTER and not (level in TOO_COARSE and code == "fallback")


def _parts(quality: str | None) -> tuple[str, str, str]:
    """Code, type and level of a match, each "" where the provider tells none."""
    code, type_, level = (*(quality or "").split("/"), "", "", "")[:3]
    return code, type_, level


def _name(place: Place) -> str:
    return place.cluster if isinstance(place, Cluster) else f"{place.location_name} ({place.cluster})"


def _entries(answer: Found | NotFound, query: str, provider: str) -> list[Entry]:
    """What would be kept: of each place that was found, else of the miss."""
    if isinstance(answer, NotFound):
        return [Entry("miss", provider, query=query, answer=answer.raw)]
    return [
        Entry("hit", provider, Point(match.latitude, match.longitude), query, match.quality, match.raw)
        for match in answer.matches
    ]

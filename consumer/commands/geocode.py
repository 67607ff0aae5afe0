"""The geocoding steps by hand, and what an operator knows better than a provider."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from consumer import fail_points
from consumer.commands.served import served_feeds
from consumer.geocoding import known_places
from consumer.geocoding.gazetteer import Batch, Gazetteer, places_that_wait, places_to_ask
from consumer.geocoding.known_places import Cluster, Place, PlaceKind, Point, ToAsk
from consumer.geocoding.locationiq import GeocoderDown
from consumer.geocoding.quota import Paused, Quota, Stopped
from consumer.postgres import database, dry_runs, migrate
from consumer.postgres.database import Connection, Role
from consumer.settings import DatabaseSettings, GazetteerSettings, GeocoderChoice, GeocoderSettings
from publisher import program
from publisher.errors import FleetticketsError, HeldByAnother, Misconfigured, Refused
from publisher.program import EXIT_FAILED, EXIT_MISCONFIGURED, AsJson
from publisher.settings import load
from publisher.terminal import printable

Apply = Annotated[bool, typer.Option("--apply", help="Ask the provider; without this, only show what would be asked.")]


def _of_tickets(value: str) -> str:
    """Check a name that tickets may have.

    Raises: typer.BadParameter.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("it is not UTF-8") from None
    if not value.strip():
        raise typer.BadParameter("it is blank")
    if len(value) > _LONGEST or "\0" in value:
        raise typer.BadParameter(f"it has more than {_LONGEST} characters")
    return value


Limit = Annotated[int | None, typer.Option(min=1, help="Ask for so many at the most; those of most tickets first.")]
OfCluster = Annotated[str, typer.Option("--cluster", help="As the tickets have it.", callback=_of_tickets)]
OfLocation = Annotated[
    str | None,
    typer.Option(
        "--location",
        help="A location_name of the cluster, as the tickets have it.",
        callback=lambda value: None if value is None else _of_tickets(value),
    ),
]
_IF_HELD = "a consumer, or a run like this one, asks for the same places: let it, or end it and try again"
_SHOWN = 20
_LISTED = 1000
_LONGEST = 500

geocode = typer.Typer(
    no_args_is_help=True,
    help="Find the places that tickets name, and place the tickets. Consumers do it by themselves after each file; "
    "this is for a first run, for a look at what is missing, and for what the provider does not know.",
)


@geocode.command("clusters")
def clusters(apply: Apply = False, limit: Limit = None, as_json: AsJson = False) -> None:
    """Look up each cluster that has no point yet: the coarse place of all its tickets."""
    _look_up(PlaceKind.CLUSTERS, apply=apply, limit=limit, as_json=as_json)


@geocode.command("locations")
def locations(apply: Apply = False, limit: Limit = None, as_json: AsJson = False) -> None:
    """Look up the locations of actionable tickets: their precise place, where it is near enough to their cluster."""
    _look_up(PlaceKind.LOCATIONS, apply=apply, limit=limit, as_json=as_json)


@geocode.command("set")
def set_point(
    latitude: Annotated[float, typer.Argument(min=-90, max=90, help="Degrees north; south is -1.28, behind a --.")],
    longitude: Annotated[float, typer.Argument(min=-180, max=180, help="Degrees east.")],
    cluster: OfCluster,
    location: OfLocation = None,
    as_json: AsJson = False,
) -> None:
    """Set the point of a cluster or of one of its locations by hand. No answer of a provider overwrites it.

    Options come first: fleettickets geocode set --cluster QOA -- -1.2622 36.8519
    """
    point = Point(latitude, longitude)
    with _changing(cluster, location) as connection:
        if not known_places.is_in_kenya(connection, point):
            raise Misconfigured(f"{latitude}, {longitude} is not in Kenya; the order is latitude, longitude")
        if location is None:
            known_places.set_cluster(connection, cluster, point)
        else:
            known_places.set_location(connection, cluster, location, point)
        placed = known_places.place_tickets(connection, served_feeds().geocoded).placed
    told = {"cluster": cluster, "location_name": location, **asdict(point), "placed": placed}
    typer.echo(json.dumps(told) if as_json else f"set; {placed} tickets are placed anew")


@geocode.command("unset")
def unset_point(cluster: OfCluster, location: OfLocation = None, as_json: AsJson = False) -> None:
    """Take back what `set` did: the provider is asked with the next batch, and its answer counts again.

    Until then tickets of a location are at their cluster's point, and those of a cluster nowhere: what was answered for
    its locations was held against the point that goes.
    """
    with _changing(cluster, location) as connection:
        was_set = (
            known_places.unset_cluster(connection, cluster)
            if location is None
            else known_places.unset_location(connection, cluster, location)
        )
        if not was_set:
            raise Misconfigured(f"no point of {printable(location or cluster)} was set by hand")
        placing = known_places.place_tickets(connection, served_feeds().geocoded)
        known_places.ask_for_batch(connection)
    told = {"cluster": cluster, "location_name": location, **asdict(placing)}
    done = f"unset; {placing.placed} tickets are placed anew, {placing.unplaced} have no place for now"
    typer.echo(json.dumps(told) if as_json else done)


@geocode.command("alias")
def set_alias(
    cluster: Annotated[str, typer.Argument(help="A cluster as the tickets have it, like QOA.", callback=_of_tickets)],
    place: Annotated[str, typer.Argument(help="The name a map knows, like 'Quarry Road'.", callback=_of_tickets)],
    as_json: AsJson = False,
) -> None:
    """Have the provider asked for another name than the cluster's own; a cluster asked before is asked once more.

    Its own name again takes an alias back: fleettickets geocode alias QOA QOA
    """
    place = place.strip()
    with _changing(cluster, None) as connection:
        known_places.set_alias(connection, cluster, place)
        known_places.ask_for_batch(connection)
        is_set_by_hand = known_places.is_set_by_hand(connection, cluster)
    if is_set_by_hand:
        typer.echo(f"note: {printable(cluster)} has a point that was set by hand, which stays until unset", err=True)
    told = {"cluster": cluster, "place": place}
    typer.echo(json.dumps(told) if as_json else f"{printable(cluster)} is asked for as {printable(place)}")


@contextmanager
def _changing(cluster: str, location: str | None) -> Iterator[Connection]:
    """One transaction on the gazetteer. A place that no ticket has is told: it may be a slip of the pen."""
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        migrate.require_migrated(connection)
        with connection.transaction():
            dry_runs.wait_for(connection)
            tickets = known_places.count_tickets(connection, cluster, location)
            yield connection
        if not tickets:
            typer.echo(f"note: no ticket has {printable(location or cluster)} so far", err=True)


def _look_up(kind: PlaceKind, *, apply: bool, limit: int | None, as_json: bool) -> None:
    database_settings, settings = load(DatabaseSettings), load(GazetteerSettings)
    # A look takes no key; without one, how many requests are left cannot be told.
    geocoder_settings = load(GeocoderSettings) if apply or load(GeocoderChoice).is_made else None
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
    stop = program.stop_on_signals()
    with database.open_pool(database_settings, 1, "geocode") as pool:
        to_ask = places_to_ask(pool, settings, kind, limit or _LISTED)
        if not apply or geocoder_settings is None:
            waiting = places_that_wait(pool, settings) if kind is PlaceKind.LOCATIONS else 0
            quota = Quota(pool, geocoder_settings, stop) if geocoder_settings else None
            _show(kind, to_ask, limit, waiting, quota, as_json=as_json)
            return
        gazetteer = Gazetteer(
            pool, served_feeds().geocoded, settings, geocoder_settings, stop, fail_points.chosen(os.environ)
        )
        batch = Batch()
        ended: FleetticketsError | None = None
        wanted = min(to_ask.total, limit or to_ask.total)
        with program.progress(as_json=as_json) as bar:
            task = bar.add_task(kind.value, total=wanted)
            try:
                gazetteer.work([kind], wanted, batch, by_hand=True, told=lambda _outcome: bar.advance(task))
            except (Paused, Stopped, Refused, GeocoderDown, HeldByAnother) as error:
                ended = error
    told = f"{ended}; {_IF_HELD}" if isinstance(ended, HeldByAnother) else str(ended or "")
    result = {"asked": batch.outcomes.total(), **batch.outcomes, "placed": batch.placed, "ended": told}
    if as_json:
        typer.echo(json.dumps(result))
    else:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(batch.outcomes.items())) or "nothing"
        typer.echo(f"{batch.outcomes.total()} of {wanted} {kind} looked up: {counts}; {batch.placed} tickets placed")
    if ended is not None:
        typer.echo(f"ended early: {told}", err=True)
        raise typer.Exit(EXIT_MISCONFIGURED if isinstance(ended, Refused) else EXIT_FAILED)


def _show(
    kind: PlaceKind, to_ask: ToAsk, limit: int | None, waiting: int, quota: Quota | None, *, as_json: bool
) -> None:
    left, paused = (quota.left(), quota.paused()) if quota else (None, None)
    wanted = min(to_ask.total, limit or to_ask.total)
    asked = [_plain(place) for place in to_ask.places]
    # A cluster is asked for once more without its region where that finds nothing; names alike without codes share.
    requests = len({(place["cluster"], query) for place in asked for query in place["queries"]})
    requests += (wanted - len(asked)) * (2 if kind is PlaceKind.CLUSTERS else 1)
    if as_json:
        found = {
            "to_ask": wanted,
            "waiting": waiting,
            "requests_at_most": requests,
            "left": left,
            "places": asked,
        }
        typer.echo(json.dumps(found | {"paused_until": paused.until.isoformat() if paused else None}))
        return
    quota_left = "no GEOCODER_API_KEY is set to ask with" if left is None else f"{left} are left today"
    typer.echo(f"{wanted} {kind} to look up, {requests} requests at the most; {quota_left}")
    if waiting:
        typer.echo(f"{waiting} more wait until their cluster has a point: fleettickets geocode clusters --apply")
    if paused:
        typer.echo(f"{paused} (a run by hand asks nevertheless)")
    for place in asked[:_SHOWN]:
        name = place.get("location_name") or place["cluster"]
        query = " or ".join(place["queries"]) or "nothing: it has no words but codes"
        typer.echo(f"  {printable(name)} -> {printable(query)}")
    if wanted > _SHOWN:
        typer.echo(f"  and {wanted - _SHOWN} more; --json shows {_LISTED}, or as many as --limit")
    if wanted:
        typer.echo("nothing was asked; --apply does it")


def _plain(place: Place) -> dict[str, Any]:
    if isinstance(place, Cluster):
        return {"cluster": place.cluster, "queries": place.queries}
    queries = [place.query] if place.query else []
    return {"cluster": place.cluster, "location_name": place.location_name, "queries": queries}

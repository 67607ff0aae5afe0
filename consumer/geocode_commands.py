"""The geocoding steps by hand, and what an operator knows better than a provider."""

import json
from typing import Annotated, Any

import typer

from consumer import database, migrate
from consumer.database import Role
from consumer.geocoding import Batch, Cluster, Gazetteer, Kind, Place
from consumer.place_names import place_name
from consumer.quota import Paused, Stopped
from consumer.settings import DatabaseSettings, GazetteerSettings, GeocoderSettings
from publisher import cli
from publisher.cli import EXIT_FAILED, AsJson
from publisher.errors import Misconfigured
from publisher.settings import load
from publisher.terminal import printable

Apply = Annotated[bool, typer.Option("--apply", help="Ask the provider; without this, only show what would be asked.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask for so many at the most; those of most tickets first.")]
_SHOWN = 20

geocode = typer.Typer(
    no_args_is_help=True,
    help="Find the places that tickets name, and place the tickets. Consumers do it by themselves after each file; "
    "this is for a first run, for a look at what is missing, and for what the provider does not know.",
)


def add_commands(to: typer.Typer) -> None:
    """Add these commands to a program."""
    geocode.command("clusters")(clusters)
    geocode.command("locations")(locations)
    geocode.command("set")(set_point)
    geocode.command("alias")(set_alias)
    to.add_typer(geocode, name="geocode")


def clusters(apply: Apply = False, limit: Limit = None, as_json: AsJson = False) -> None:
    """Look up each cluster that has no point yet: the coarse place of all its tickets."""
    _look_up(Kind.CLUSTERS, apply=apply, limit=limit, as_json=as_json)


def locations(apply: Apply = False, limit: Limit = None, as_json: AsJson = False) -> None:
    """Look up the locations of actionable tickets: their precise place, where it is near enough to their cluster."""
    _look_up(Kind.LOCATIONS, apply=apply, limit=limit, as_json=as_json)


def set_point(
    latitude: Annotated[float, typer.Argument(min=-90, max=90, help="Degrees north; south is -1.28, behind a --.")],
    longitude: Annotated[float, typer.Argument(min=-180, max=180, help="Degrees east.")],
    cluster: Annotated[str, typer.Option("--cluster", help="As the tickets have it.")],
    location: Annotated[
        str | None, typer.Option("--location", help="A location_name of the cluster, as the tickets have it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set the point of a cluster or of one of its locations by hand. No answer of a provider overwrites it.

    Options come first: fleettickets geocode set --cluster QOA -- -1.2622 36.8519
    """
    point = {"cluster": cluster, "location_name": location, "latitude": latitude, "longitude": longitude}
    name = "set_location" if location is not None else "set_cluster"
    parameters = point | {"cleaned_query": place_name(location) if location is not None else None}
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        migrate.require_migrated(connection)
        with connection.transaction():
            if not database.row(connection, "geocoding", "is_in_kenya", point):
                raise Misconfigured(f"{latitude}, {longitude} is not in Kenya; the order is latitude, longitude")
            database.rows(connection, "geocoding", name, parameters)
            placed = len(database.rows(connection, "geocoding", "place_tickets"))
    typer.echo(json.dumps(point | {"placed": placed}) if as_json else f"set; {placed} tickets are placed anew")


def set_alias(
    cluster: Annotated[str, typer.Argument(help="A cluster as the tickets have it, such as QOA.")],
    place: Annotated[str, typer.Argument(help="The name that a map knows, such as 'Quarry Road'.")],
    as_json: AsJson = False,
) -> None:
    """Have the provider asked for another name than the cluster's own; a cluster asked before is asked once more."""
    if not place.strip():
        raise Misconfigured("the place is empty")
    alias = {"cluster": cluster, "place": place.strip()}
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        migrate.require_migrated(connection)
        database.rows(connection, "geocoding", "set_alias", alias)
    typer.echo(json.dumps(alias) if as_json else f"{printable(cluster)} is asked for as {printable(place.strip())}")


def _look_up(kind: Kind, *, apply: bool, limit: int | None, as_json: bool) -> None:
    database_settings, geocoder_settings = load(DatabaseSettings), load(GeocoderSettings)
    settings = load(GazetteerSettings)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
    stop = cli.stop_on_signals()
    # One connection holds the lock, one asks and keeps.
    with database.open_pool(database_settings, size=2) as pool:
        gazetteer = Gazetteer(pool, settings, geocoder_settings, stop)
        places = gazetteer.to_ask(kind)[:limit]
        if not apply:
            _show(kind, places, gazetteer.quota.left(), as_json=as_json)
            return
        batch, ended = Batch(), ""
        with cli.progress(as_json=as_json) as bar:
            task = bar.add_task(kind.value, total=len(places))
            try:
                gazetteer.work([kind], len(places), batch, told=lambda _outcome: bar.advance(task))
            except (Paused, Stopped) as error:
                ended = str(error)
    result = {"asked": batch.outcomes.total(), **batch.outcomes, "placed": batch.placed, "ended": ended}
    if as_json:
        typer.echo(json.dumps(result))
    else:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(batch.outcomes.items())) or "nothing"
        typer.echo(
            f"{batch.outcomes.total()} of {len(places)} {kind} looked up: {counts}; {batch.placed} tickets placed"
        )
    if ended:
        typer.echo(f"ended early: {ended}", err=True)
        raise typer.Exit(EXIT_FAILED)


def _show(kind: Kind, places: list[Place], left: int, *, as_json: bool) -> None:
    asked = [_plain(place) for place in places]
    # A cluster is asked for once more without its region where that finds nothing; names alike without codes share.
    requests = {(place["cluster"], query) for place in asked for query in place["queries"]}
    if as_json:
        typer.echo(
            json.dumps({"to_ask": len(places), "requests_at_most": len(requests), "left": left, "places": asked})
        )
        return
    typer.echo(f"{len(places)} {kind} to look up, {len(requests)} requests at the most; {left} are left today")
    for place in asked[:_SHOWN]:
        name = place.get("location_name") or place["cluster"]
        query = " or ".join(place["queries"]) or "nothing: it has no words but codes"
        typer.echo(f"  {printable(name)} -> {printable(query)}")
    if len(asked) > _SHOWN:
        typer.echo(f"  and {len(asked) - _SHOWN} more; --json shows all")
    if places:
        typer.echo("nothing was asked; --apply does it")


def _plain(place: Place) -> dict[str, Any]:
    if isinstance(place, Cluster):
        return {"cluster": place.cluster, "queries": place.queries}
    name = place_name(place.location_name)
    return {"cluster": place.cluster, "location_name": place.location_name, "queries": [name] if name else []}

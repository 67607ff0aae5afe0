"""`doctor`."""

from typing import Annotated

import typer

from consumer.commands.printing import print_json
from consumer.commands.served import served_feeds
from consumer.settings import DatabaseSettings, GeocoderChoice, GeocoderSettings
from consumer.upkeep import doctor
from consumer.upkeep.doctor import Examined
from publisher.errors import Misconfigured
from publisher.program import EXIT_FAILED, AsJson, OfFeeds
from publisher.settings import AnySettings, BrokerSettings, BucketSettings, load
from publisher.terminal import printable


def show_doctor(
    poller_only: Annotated[
        bool, typer.Option("--poller-only", help="It is meant that the bucket announces nothing.")
    ] = False,
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Examine each dependency: version, what it can do, and what to do if it cannot.

    One line each for Postgres, PostGIS, migrations, RabbitMQ with its queues as they are in force, the store and what
    it does with conditional copies and deletes, and the bucket's notifications. The store is tried with a small object
    in doctor/ beside changes/, which is removed again. Exit status 1 when anything is wrong.
    """
    examined = Examined(
        database=_settings(DatabaseSettings),
        broker=_settings(BrokerSettings),
        bucket=_settings(BucketSettings),
        geocoder=_settings(GeocoderSettings) if load(GeocoderChoice).is_made else None,
        feeds=served_feeds(feed),
    )
    examination = doctor.examine(examined, poller_only=poller_only)
    if as_json:
        print_json(examination)
    else:
        width = max(len(finding.about) for finding in examination.findings)
        for finding in examination.findings:
            do = f"; {finding.do}" if finding.do else ""
            typer.echo(printable(f"{finding.level.value:5}  {finding.about:{width}}  {finding.found}{do}"))
    if not examination.is_fit:
        raise typer.Exit(EXIT_FAILED)


def _settings(kind: type[AnySettings]) -> AnySettings | Misconfigured:
    """A mistake in one group leaves the others to be looked at."""
    try:
        return load(kind)
    except Misconfigured as error:
        return error

"""`doctor`."""

from dataclasses import asdict
from typing import Annotated

import typer

from consumer.commands.printing import print_json
from consumer.feeds.declared import served_feeds
from consumer.upkeep import doctor
from consumer.upkeep.doctor import Level
from publisher.program import EXIT_FAILED, AsJson, OfFeeds
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
    findings = doctor.examine(served_feeds(feed), poller_only=poller_only)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            do = f"; {finding.do}" if finding.do else ""
            typer.echo(printable(f"{finding.level.value:5}  {finding.about:{width}}  {finding.found}{do}"))
    if any(finding.level is Level.WRONG for finding in findings):
        raise typer.Exit(EXIT_FAILED)

"""`doctor`."""

from collections.abc import Iterator
from threading import Event
from typing import Annotated

import typer

from consumer.commands.alerts import alert_receiver
from consumer.commands.judged_settings import judged_settings
from consumer.commands.printing import print_json
from consumer.feeds.declared import declared_feeds
from consumer.settings import (
    AlertSettings,
    DatabaseSettings,
    FeedsSettings,
    GeocoderChoice,
    GeocoderSettings,
    VerdictSettings,
)
from consumer.upkeep import doctor
from consumer.upkeep.doctor import Examined
from consumer.upkeep.findings import Effective, Examination, Finding, Journey, Origin
from publisher.commands.recording import require_exporter
from publisher.errors import Misconfigured
from publisher.program import EXIT_FAILED, AsJson, OfFeeds, WithoutBroker
from publisher.settings import AnySettings, BrokerSettings, BucketSettings, TracesSettings, load
from publisher.terminal import printable


def show_doctor(  # noqa: PLR0917 - its parameters are its options
    poller_only: Annotated[
        bool, typer.Option("--poller-only", help="It is meant that the bucket announces nothing.")
    ] = False,
    without_broker: WithoutBroker = False,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Also send a canary file through store, event, broker and consumer.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="For the canary: more than a poller pauses."),
    ] = 90,
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Examine each dependency: version, what it can do, and what to do if it cannot.

    First what is set and where, then one line each for what any command would refuse of it; Postgres, PostGIS,
    migrations; RabbitMQ with its queues as they are in force; the store and what it does with conditional copies and
    deletes, and folders of the bucket that nobody serves; the bucket's notifications; who is at work. One cause is one
    line: what cannot be looked at for another one is left out. The store is tried with a small object in doctor/
    beside changes/, which is removed again. Exit status 1 when anything is wrong.

    With --end-to-end a canary is laid into changes/ of each feed: it is announced, read, applied and rolled back by a
    consumer, archived and removed, each stage timed. Nothing of it is left, in the tables or in the bucket. And whoever
    is at FLEETTICKETS_ALERT_URL gets a test.
    """
    if without_broker and (poller_only or end_to_end):
        raise Misconfigured("--poller-only and --end-to-end are for who has a broker")
    judged, effective = judged_settings(without_broker=without_broker)
    feeds = None
    if _loaded(FeedsSettings):
        try:
            feeds = declared_feeds(load(FeedsSettings))
        except Misconfigured as error:
            judged.append(Finding.wrong("feeds", str(error), "mend the declaration, or what names it; docs/feeds.md"))
    limits = _loaded(VerdictSettings)
    examined = Examined(
        database=_loaded(DatabaseSettings),
        broker=None if without_broker else _loaded(BrokerSettings),
        bucket=_loaded(BucketSettings),
        geocoder=_loaded(GeocoderSettings),
        has_geocoder=load(GeocoderChoice).is_made,
        feeds=feeds.narrowed(feed or ()) if feeds else None,
        missing_seconds=limits.missing_seconds if limits else None,
    )
    findings = [
        *judged,
        *doctor.examine(examined, poller_only=poller_only, without_broker=without_broker),
        *traces_examined(_loaded(TracesSettings)),
    ]
    journeys: list[Journey] = []
    if end_to_end:
        told, journeys = doctor.end_to_end(examined, findings, wait, poller_only=poller_only)
        findings += told
        if examined.bucket and examined.feeds and _loaded(AlertSettings):
            receiver = alert_receiver(examined.feeds, Event())
            findings += [doctor.alerts_arrive(receiver)] if receiver else []
    examination = Examination(findings=findings, settings=effective, journeys=journeys)
    if as_json:
        print_json(examination)
    else:
        _print_settings(examination.settings)
        width = max(len(finding.about) for finding in examination.findings)
        for finding in examination.findings:
            do = f"; {finding.do}" if finding.do else ""
            typer.echo(printable(f"{finding.level.value:5}  {finding.about:{width}}  {finding.found}{do}"))
    if not examination.is_fit:
        raise typer.Exit(EXIT_FAILED)


def traces_examined(settings: TracesSettings | None) -> Iterator[Finding]:
    """Whether a collector takes what is sent, where it is meant to be sent at all. No file waits for that."""
    if settings is None or not settings.address:
        return
    try:
        require_exporter(settings)
    except Misconfigured as error:
        yield Finding.note("traces", f"not sent: {error}", "files go on without; docs/operations.md, Traces")
        return
    from publisher import otel  # noqa: PLC0415 - an extra

    if fault := otel.fault(settings):
        do = "see that a collector listens there for OTLP over HTTP; files go on without"
        yield Finding.note("traces", f"{settings.address} takes none: {fault}", do)
    else:
        yield Finding.ok("traces", f"{settings.address} takes them")


def _print_settings(settings: list[Effective]) -> None:
    """Those that are set; the rest is in docs/configuration.md as well."""
    chosen = [one for one in settings if one.origin in {Origin.ENVIRONMENT, Origin.FILE}]
    width = max((len(one.name) for one in chosen), default=0)
    for one in chosen:
        typer.echo(printable(f"{one.name:{width}}  {one.origin.value:11}  {one.value or ''}").rstrip())
    others = len(settings) - len(chosen)
    typer.echo(f"{others} other settings are as by default, or not set: doctor --json has them\n")


def _loaded(kind: type[AnySettings]) -> AnySettings | None:
    """A mistake in one group leaves the others to be looked at; it is told by itself."""
    try:
        return load(kind)
    except Misconfigured:
        return None

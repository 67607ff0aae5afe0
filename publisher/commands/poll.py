"""`poll`."""

import contextlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated

import structlog
import tenacity
import typer

from publisher import metrics
from publisher.absences import Absences
from publisher.broker import channels, serving
from publisher.commands.recording import recording
from publisher.errors import DependencyDown, FleetticketsError, HeldByAnother, Misconfigured
from publisher.health import Health, show, tell_systemd
from publisher.heartbeat import ProcessKind, Pulse
from publisher.program import AsJson, Known, MetricsAt, OfFeeds, Quiet, Textfile, require_quiet_alone, stop_on_signals
from publisher.settings import (
    BrokerSettings,
    BucketSettings,
    WorkSettings,
    load,
    log_settings,
)
from publisher.sources.poller import Poll, Poller
from publisher.spans import Spans
from publisher.store.bucket import BUCKET, Bucket


def poll(  # noqa: PLR0917 - its parameters are its options
    context: typer.Context,
    every: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Keep polling; without it, poll once, for cron."),
    ] = None,
    feed: OfFeeds = None,
    metrics_at: MetricsAt = None,
    textfile: Textfile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Publish every key that still waits in changes/.

    The guarantee behind the notifications: what an event did not announce, this does. While a backlog is being worked
    off it publishes only what is missing from the queue, so it can run at any rate beside notifications. One poll runs
    at a time: a run of cron that meets another one, or the loop, says so and ends with 0.

    With DATABASE_URL set, what the ledger has set aside (dead letters, ignored and discarded files), or a retry will
    take up later, is not published again and again. A database that is away makes no difference to the rest.
    """
    require_quiet_alone(quiet=quiet, as_json=as_json, for_long=every is not None)
    with recording(ProcessKind.POLLER) as spans:
        _poll(
            context, spans, every=every, feed=feed, metrics_at=metrics_at, textfile=textfile, quiet=quiet,
            as_json=as_json,
        )  # fmt: skip


def _poll(
    context: typer.Context,
    spans: Spans,
    *,
    every: float | None,
    feed: list[str] | None,
    metrics_at: str | None,
    textfile: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    broker_settings, bucket_settings, work = load(BrokerSettings), load(BucketSettings), load(WorkSettings)
    known: Known = context.obj
    known.require_database()
    bucket = Bucket(bucket_settings, known.folders(feed or ()))
    pulse, absences = Pulse(), Absences()
    poller = Poller(bucket, work.prefetch, known.open_settled, pulse=pulse, absences=absences, spans=spans)
    if every is None:
        done = _poll_once(poller, bucket, broker_settings, quiet=quiet)
        if done is not None and textfile is not None:
            metrics.write(textfile, metrics.LAST_POLL)
        if not quiet:
            _report(done, as_json=as_json)
        return
    if textfile is not None:
        raise Misconfigured("--textfile is for a poll in cron; a loop shows the same with --metrics")
    log_settings(broker_settings, bucket_settings, work)
    tell_systemd(pulse)
    if metrics_at is not None:
        services = {"rabbitmq": channels.BROKER, "store": BUCKET, "postgres": "postgres"}
        metrics.show_absences(metrics.POLLER_AWAY, absences, services)
        show(metrics_at, metrics.POLLER, Health(pulse))
    watching = known.watching(feed or ())
    stop = stop_on_signals()
    with contextlib.suppress(DependencyDown):  # a store that is away now is waited for
        bucket.require()
    attempts = channels.Reconnecting(stop, absences)
    try:
        with known.beating(ProcessKind.POLLER, pulse, feeds=[folder.feed for folder in bucket.folders]), watching:
            for attempt in attempts:
                with (
                    attempt,
                    pulse.noting_absence(),
                    channels.declared_channel(broker_settings, "poller") as channel,
                    channels.alone(channel, channels.POLL),
                ):
                    serving.claim_if_allowed(channel, bucket.name)
                    poller.poll_every(every, channel, stop, partial(_polled, attempts, attempt))
    except FleetticketsError:
        if not stop.is_set():
            raise


def _poll_once(poller: Poller, bucket: Bucket, broker_settings: BrokerSettings, *, quiet: bool) -> Poll | None:
    """None while another one runs."""
    bucket.require()
    with channels.declared_channel(broker_settings, "poll") as channel:
        try:
            with channels.alone(channel, channels.POLL):
                serving.claim_if_allowed(channel, bucket.name)
                done = poller.poll(channel, Event())  # a signal ends the process
        except HeldByAnother:
            if not quiet:
                typer.echo("another poll is running, this one is not needed", err=True)
            return None
    if done is not None:
        _tell_metrics(done)
    return done


def _report(done: Poll | None, *, as_json: bool) -> None:
    if as_json:
        none = {"waiting": None, "set_aside": None, "queued": None, "published": 0}
        typer.echo(json.dumps(asdict(done) if done else none))
    elif done:
        aside = f", set aside {done.set_aside}" if done.set_aside else ""
        typer.echo(f"waiting {done.waiting}{aside}, already queued {done.queued}, published {done.published}")


def _tell_metrics(done: Poll) -> None:
    metrics.POLLED_AT.set_to_current_time()
    metrics.POLL_WAITING.set(done.waiting)
    metrics.POLL_SET_ASIDE.set(done.set_aside)
    metrics.POLL_QUEUED.set(done.queued)
    metrics.POLL_BROUGHT.set(done.published)


def _polled(attempts: channels.Reconnecting, attempt: tenacity.AttemptManager, done: Poll) -> None:
    # Only now is it known that broker and store are both there: while one is away, the pauses grow.
    attempts.held(attempt)
    metrics.POLLS.inc()
    metrics.POLL_PUBLISHED.inc(done.published)
    _tell_metrics(done)
    structlog.get_logger().info("poll", **asdict(done))

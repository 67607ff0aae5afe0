"""`consume`: the one place that builds the consumer's objects."""

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from threading import Event
from typing import Annotated

import structlog
import typer

from consumer import fail_points
from consumer.commands.alerts import watching_for_trouble
from consumer.commands.beating import beating
from consumer.commands.served import served_feeds
from consumer.feeds.feed import Feeds
from consumer.files import ledger
from consumer.files.cleaning import RULES
from consumer.files.failures import Failures
from consumer.files.handler import FilesHandler
from consumer.files.outcomes import UNEXPECTED
from consumer.files.tail import Tail
from consumer.follow_ons import outbox
from consumer.follow_ons.geocode import GeocodeHandler
from consumer.follow_ons.history import HistoryHandler
from consumer.follow_ons.relay import Relay
from consumer.geocoding.gazetteer import Gazetteer
from consumer.geocoding.locationiq import GEOCODER
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Pool, Role
from consumer.settings import (
    ApplySettings,
    DatabaseSettings,
    FailureSettings,
    GazetteerSettings,
    GeocoderChoice,
    GeocoderSettings,
    HistorySettings,
)
from consumer.upkeep.discards import MendedLetters
from consumer.work.breaker import Breaker
from consumer.work.routes import Handle, routing_table
from consumer.work.telling import ROW_OUTCOMES
from consumer.work.worker import Worker
from publisher import metrics, program
from publisher.absences import Absences
from publisher.broker import channels
from publisher.broker.consuming import Link
from publisher.broker.depths import Depths
from publisher.broker.topology import RETRY_DELAYS, Queue
from publisher.commands.recording import recording
from publisher.errors import DependencyDown, FleetticketsError, Misconfigured
from publisher.health import Health, show, tell_systemd
from publisher.heartbeat import ProcessKind, Pulse
from publisher.program import MetricsAt
from publisher.settings import BrokerSettings, BucketSettings, WorkSettings, load, log_settings
from publisher.spans import Spans
from publisher.store.bucket import BUCKET, Bucket

_SERVICES = {
    "postgres": database.DATABASE, "rabbitmq": channels.BROKER, "store": BUCKET, "geocoder": GEOCODER,
}  # fmt: skip


def consume(
    queue: Annotated[
        list[Queue] | None, typer.Option("--queue", help="Only this queue; may be given more than once.")
    ] = None,
    metrics_at: MetricsAt = None,
) -> None:
    """Apply change files as they arrive, archive them, capture history and geocode. Runs until SIGTERM or SIGINT.

    Any number may run at once. A signal finishes the files in hand and exits 0; anything not begun goes back. Without
    GEOCODER_API_KEY the requests for places wait, one message for all of them.
    """
    with recording(ProcessKind.CONSUMER) as spans:
        _consume(queue, metrics_at, spans)


def _consume(queue: list[Queue] | None, metrics_at: str | None, spans: Spans) -> None:
    queues = list(dict.fromkeys(queue or Queue))
    with_geocoder = bool(queue) or load(GeocoderChoice).is_made
    geocoder_settings = load(GeocoderSettings) if Queue.GEOCODE in queues and with_geocoder else None
    if geocoder_settings is None:
        queues = [name for name in queues if name is not Queue.GEOCODE]
    database_settings, broker_settings = load(DatabaseSettings), load(BrokerSettings)
    bucket_settings, work, feeds = load(BucketSettings), load(WorkSettings), served_feeds()
    apply_settings, history_settings, gazetteer_settings = (
        load(ApplySettings), load(HistorySettings), load(GazetteerSettings),
    )  # fmt: skip
    failure_settings = load(FailureSettings)
    pulse, absences = Pulse(), Absences()
    link = Link(broker_settings, bucket_settings.bucket, absences, spans)
    tell_systemd(pulse)
    if metrics_at is not None:
        metrics.show_consumer(
            pulse, lambda: link.is_connected, [feed.name for feed in feeds.served], rows=ROW_OUTCOMES, rules=RULES
        )
        metrics.show_absences(metrics.AWAY, absences, _SERVICES)
        show(metrics_at, metrics.CONSUMER, Health(pulse, lambda: link.is_connected))
    log_settings(
        database_settings, broker_settings, bucket_settings, work, apply_settings, history_settings,
        gazetteer_settings, failure_settings, *([geocoder_settings] if geocoder_settings else []),
    )  # fmt: skip
    limit = failure_settings.in_a_row
    watching = watching_for_trouble()
    stop = program.stop_on_signals()
    reached = fail_points.chosen(os.environ)
    if not _wait_for_schema(database_settings, feeds, stop, pulse, absences):
        return
    beats = beating(
        ProcessKind.CONSUMER, pulse, feeds=[feed.name for feed in feeds.served], queues=[name.value for name in queues]
    )
    # One connection for each file being applied or archived and one more for each that is long, one for history, one
    # for the sweep, one to geocode.
    with (
        beats,
        watching,
        database.open_pool(database_settings, size=3 * work.files_in_hand + 3) as pool,
        contextlib.closing(Depths(broker_settings)) as depths,
    ):
        before: dict[Queue, int] = {}
        # It was there a moment ago, and is waited for again.
        with contextlib.suppress(DependencyDown), database.transaction(pool) as connection:
            before[Queue.FILES] = ledger.failures_in_a_row(connection, UNEXPECTED, RETRY_DELAYS)
        breakers = {queue: Breaker(limit, failed_before=before.get(queue, 0)) for queue in queues}
        # Slow bodies leave one of the files in hand to the others.
        slow = max(1, work.files_in_hand - 1)
        bucket = Bucket(bucket_settings, feeds.folders, connections=2 * work.files_in_hand + 2, slow=slow, stop=stop)
        _look_at_bucket(bucket)
        # What nobody takes up here may be taken up nowhere: then one message waits, and not one for each file.
        relay = Relay(pool, link.publish, reached, lambda kind: kind not in queues and depths.waits(kind), spans)
        handlers: dict[Queue, Handle] = {}
        together = None
        if Queue.FILES in queues:
            failed = breakers[Queue.FILES].failed
            failures = Failures(pool, link.publish, apply_settings, failed=failed, run=limit, reached=reached)
            files = FilesHandler(
                pool, bucket, feeds, link.publish_all, settings=apply_settings, failures=failures, reached=reached
            )
            handlers[Queue.FILES], together = files.handle, files.handle_together
        if Queue.HISTORY in queues:
            handlers[Queue.HISTORY] = HistoryHandler(pool, history_settings, stop, reached).handle
        if geocoder_settings is not None:
            gazetteer = Gazetteer(
                pool, feeds.geocoded, gazetteer_settings, geocoder_settings, stop, reached,
                answered=partial(absences.served, GEOCODER),
            )  # fmt: skip
            handlers[Queue.GEOCODE] = GeocodeHandler(pool, gazetteer, relay.send, reached).handle
        routes = routing_table(handlers, breakers, work, together)
        tail = Tail(pool, bucket, relay, reached, keep_versions_days=apply_settings.keep_versions_days)
        letters = MendedLetters(
            pool,
            partial(channels.confirming_channel, broker_settings, "mended letters", channels.LOOKING_HEARTBEAT),
            bucket.name,
            reached,
        )
        Worker(
            link, routes, tail, work, stop,
            settle_letters=letters.settle, is_back=ways_to_look(pool, bucket, tail), reached=reached, pulse=pulse,
            absences=absences,
        ).run()  # fmt: skip
    structlog.get_logger().info("stopped")


def ways_to_look(pool: Pool, bucket: Bucket, tail: Tail) -> Mapping[str, Callable[[], bool]]:
    """How to see of a service that was missed whether it is back, with nothing in hand that needs it."""

    def is_database_back() -> bool:
        tail.finish_relayed()
        return True

    def is_bucket_back() -> bool:
        bucket.look()
        return True

    def is_geocoder_back() -> bool:
        # To ask it costs one of the day's requests; but who has taken over what this one could not ask was answered.
        with database.transaction(pool) as connection:
            return not outbox.unhandled(connection, Queue.GEOCODE)

    return {database.DATABASE: is_database_back, BUCKET: is_bucket_back, GEOCODER: is_geocoder_back}


def _look_at_bucket(bucket: Bucket) -> None:
    """Say early what is wrong with the bucket; a store that is away is waited for, with files in hand.

    Raises: Misconfigured, where settings and bucket do not fit together.
    """
    try:
        bucket.require()
    except Misconfigured:
        raise
    except FleetticketsError as error:
        structlog.get_logger().error("bucket", detail=str(error))


def _wait_for_schema(settings: DatabaseSettings, feeds: Feeds, stop: Event, pulse: Pulse, absences: Absences) -> bool:
    """Wait for a migrated database; False when stopped before there is one."""
    delay = 0.5
    while not stop.is_set():
        pulse.turned()
        try:
            with database.connect(settings, Role.INGEST) as connection:
                migrate.require_migrated(connection)
                feed_tables.require(connection, feeds.served)
        except DependencyDown as error:
            absences.wait(error, delay)
            stop.wait(delay)
            delay = min(delay * 2, 15)
        else:
            absences.served(database.DATABASE)
            return True
    return False

"""`consume`: the one place that builds the consumer's objects."""

import contextlib
import os
from threading import Event
from typing import Annotated

import structlog
import typer

from consumer import fail_points, metrics
from consumer.files.arriving import FilesHandler
from consumer.files.failures import failures_in_a_row
from consumer.follow_ons.history import HistoryHandler
from consumer.geocoding.gazetteer import Gazetteer, GeocodeHandler
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import (
    ApplySettings,
    DatabaseSettings,
    FailureSettings,
    GazetteerSettings,
    GeocoderChoice,
    GeocoderSettings,
    HistorySettings,
)
from consumer.work.breaker import Breaker
from consumer.work.worker import Worker
from publisher import program
from publisher.broker.topology import Queue
from publisher.errors import DependencyDown, FleetticketsError
from publisher.settings import BrokerSettings, BucketSettings, WorkSettings, load, log_settings
from publisher.store.bucket import Bucket


def consume(
    queue: Annotated[
        list[Queue] | None, typer.Option("--queue", help="Only this queue; may be given more than once.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Show Prometheus metrics at this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="The address to show them at; 0.0.0.0 is every one.")] = "127.0.0.1",
) -> None:
    """Apply change files as they arrive, archive them, capture history and geocode. Runs until SIGTERM or SIGINT.

    Any number may run at once. A signal finishes the files in hand and exits 0; anything not begun goes back. Without
    GEOCODER_API_KEY, geocode requests wait in their queue.
    """
    queues = list(dict.fromkeys(queue or Queue))
    with_geocoder = bool(queue) or load(GeocoderChoice).is_made
    geocoder_settings = load(GeocoderSettings) if Queue.GEOCODE in queues and with_geocoder else None
    if geocoder_settings is None:
        queues = [name for name in queues if name is not Queue.GEOCODE]
    database_settings, broker_settings = load(DatabaseSettings), load(BrokerSettings)
    bucket_settings, work = load(BucketSettings), load(WorkSettings)
    apply_settings, history_settings, gazetteer_settings = (
        load(ApplySettings), load(HistorySettings), load(GazetteerSettings),
    )  # fmt: skip
    failure_settings = load(FailureSettings)
    log_settings(
        database_settings, broker_settings, bucket_settings, work, apply_settings, history_settings,
        gazetteer_settings, failure_settings, *([geocoder_settings] if geocoder_settings else []),
    )  # fmt: skip
    limit = failure_settings.in_a_row
    if metrics_port is not None:
        metrics.serve(metrics_host, metrics_port)
    stop = program.stop_on_signals()
    at = fail_points.chosen(os.environ)
    if not _wait_for_schema(database_settings, stop):
        return
    # One connection for each file being applied or archived and one more for each that is long, one for history, one
    # for the sweep, one to geocode.
    with database.open_pool(database_settings, size=work.prefetch + work.files_in_hand + 3) as pool:
        before: dict[Queue, int] = {}
        with contextlib.suppress(DependencyDown):  # it was there a moment ago, and is waited for again
            before[Queue.FILES] = failures_in_a_row(pool)
        breakers = {queue: Breaker(limit, failed_before=before.get(queue, 0)) for queue in Queue}
        worker = Worker(broker_settings, work, queues, breakers, stop, bucket=bucket_settings.bucket)
        bucket = Bucket(bucket_settings, connections=work.prefetch + 2)
        _warn_of_bucket(bucket)
        files = FilesHandler(
            pool, bucket, worker.link, apply_settings, failed=breakers[Queue.FILES].failed, run=limit, at=at
        )
        geocoding = None
        if geocoder_settings is not None:
            gazetteer = Gazetteer(pool, gazetteer_settings, geocoder_settings, stop, at)
            geocoding = GeocodeHandler(pool, gazetteer, files.relay, at)
        worker.run(files, HistoryHandler(pool, history_settings, stop, at), geocoding)
    structlog.get_logger().info("stopped")


def _warn_of_bucket(bucket: Bucket) -> None:
    """Say early what is wrong with the bucket. No reason to end: it may be mended while files wait."""
    try:
        bucket.require()
    except FleetticketsError as error:
        structlog.get_logger().error("bucket", detail=str(error))


def _wait_for_schema(settings: DatabaseSettings, stop: Event) -> bool:
    """Wait for a migrated database; False when stopped before there is one."""
    delay = 0.5
    while not stop.is_set():
        try:
            with database.connect(settings, Role.INGEST) as connection:
                migrate.require_migrated(connection)
        except DependencyDown as error:
            structlog.get_logger().warning("waiting", detail=str(error), retry_in_s=delay)
            stop.wait(delay)
            delay = min(delay * 2, 15)
        else:
            return True
    return False

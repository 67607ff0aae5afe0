"""Who is told of trouble, and by whom: of what runs for long one process, or `status --alert`."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Event

import structlog

from consumer import fail_points
from consumer.commands.looked import looking_at
from consumer.commands.served import served_feeds
from consumer.feeds.feed import Feeds
from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import AlertSettings, DatabaseChoice, DatabaseSettings, VerdictSettings
from consumer.upkeep import watching
from consumer.upkeep.alerting import AlertReceiver, Whence
from consumer.upkeep.judging import Thresholds
from consumer.upkeep.watching import Lookout, Watcher
from publisher.errors import Misconfigured
from publisher.settings import BucketSettings, load


def alert_receiver(feeds: Feeds, stop: Event) -> AlertReceiver | None:
    """Who is told, if anybody is.

    Raises: Misconfigured.
    """
    settings, bucket_settings = load(AlertSettings), load(BucketSettings)
    if settings.address is None:
        return None
    endpoint = bucket_settings.endpoint
    store = f"{endpoint.host}:{endpoint.port}"
    whence = Whence(bucket_settings.bucket, store, [feed.name for feed in feeds.served])
    return AlertReceiver(settings.address.get_secret_value(), settings, whence, stop)


def watcher_for(receiver: AlertReceiver, limits: Thresholds) -> Watcher:
    """What notes and tells, if no other process does.

    Raises: Misconfigured.
    """
    patience = load(VerdictSettings).answer_seconds
    connect = partial(database.connect, load(DatabaseSettings), Role.READ, purpose="alerts", patience=patience)
    reached = fail_points.chosen(os.environ)
    return Watcher(connect, receiver, load(BucketSettings).bucket, limits, answer_seconds=patience, reached=reached)


def watching_for_trouble(names: Sequence[str] = ()) -> AbstractContextManager[None]:
    """Tell of it while it lasts, where somebody is to be told, and there is a database to keep on record what was.

    Raises: Misconfigured.
    """
    stop, feeds = Event(), served_feeds(names)
    receiver = alert_receiver(feeds, stop)
    if receiver is None:
        return nullcontext()
    if not load(DatabaseChoice).is_made:
        structlog.get_logger().warning("not watched", detail="alerts need DATABASE_URL, which is not set")
        return nullcontext()
    looking, limits = looking_at(feeds, "alerts")
    watch = Lookout(watcher_for(receiver, limits), receiver, partial(looking.status, limits, briefly=True), limits)
    return watching.watching(watch, stop)


def required_receiver(feeds: Feeds, stop: Event) -> AlertReceiver:
    """Raises: Misconfigured, also where nobody is to be told."""
    receiver = alert_receiver(feeds, stop)
    if receiver is None:
        raise Misconfigured("FLEETTICKETS_ALERT_URL is not set (environment or .env file)")
    return receiver

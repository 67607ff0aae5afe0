"""How a command looks at everything that `status` judges."""

from functools import partial

from consumer.feeds.feed import Feeds
from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings, GeocoderChoice, GeocoderLimits, GeocoderSettings, VerdictSettings
from consumer.upkeep.judging import Thresholds
from consumer.upkeep.status import GeocoderAccount, Looking
from publisher.broker import channels
from publisher.errors import Misconfigured
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import Bucket


def looking_at(feeds: Feeds, purpose: str, *, without_broker: bool = False) -> tuple[Looking, Thresholds]:
    """What asks all parts, and from when on something is wrong. The servers show it by its purpose.

    Raises: Misconfigured.
    """
    database_settings, broker_settings = load(DatabaseSettings), None if without_broker else load(BrokerSettings)
    bucket_settings, settings = load(BucketSettings), load(VerdictSettings)
    patience = settings.answer_seconds
    looking = Looking(
        partial(database.connect, database_settings, Role.READ, purpose=purpose, patience=patience),
        partial(channels.confirming_channel, broker_settings, purpose, channels.LOOKING_HEARTBEAT)
        if broker_settings
        else None,
        Bucket(bucket_settings, feeds.folders),
        feeds.served,
        GeocoderAccount(_account(), load(GeocoderLimits).per_day),
        answer_seconds=patience,
    )
    limits = Thresholds(
        settings.stuck_seconds, settings.missing_seconds, settings.late_seconds, silent_times=settings.silent_times
    )
    return looking, limits


def _account() -> str | None:
    """Whose pause is told; a wrong setting is the doctor's business."""
    try:
        return load(GeocoderSettings).account if load(GeocoderChoice).is_made else None
    except Misconfigured:
        return None

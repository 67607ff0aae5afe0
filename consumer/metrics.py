"""Every metric of the consumer, before its use; apart from those of the webhook receiver, which is another process."""

import math
import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from publisher.errors import Misconfigured

REGISTRY = CollectorRegistry()
for _common in (ProcessCollector, PlatformCollector, GCCollector):
    _common(registry=REGISTRY)

FILES = Counter(
    "fleettickets_files", "Deliveries of change files, by what was decided.", ["decision"], registry=REGISTRY
)
LOOKUPS = Counter(
    "fleettickets_geocode_lookups",
    "Places looked up. hit; miss: the provider knows no such place, or there is none in the name; rejected: in another "
    "city, or no finer than a city; unanswered: nothing of use came from the provider.",
    ["outcome"],
    registry=REGISTRY,
)
REQUESTS = Counter(
    "fleettickets_geocoder_requests", "Requests sent to the provider, by this process.", registry=REGISTRY
)
PLACED = Counter("fleettickets_tickets_placed", "Tickets that got another place from the gazetteer.", registry=REGISTRY)
QUOTA_LEFT = Gauge(
    "fleettickets_geocoder_quota_left",
    "Requests left of the day's after the last batch, of all consumers.",
    registry=REGISTRY,
)
QUOTA_LEFT.set(math.nan)  # not known before the first, and zero would be an alarm
TICKETS = Gauge(
    "fleettickets_tickets",
    "Tickets after the last batch, by where their place is from.",
    ["source"],
    registry=REGISTRY,
)


def serve(host: str, port: int) -> None:
    """Show them at http://host:port/metrics, in a thread.

    Raises: Misconfigured.
    """
    try:
        start_http_server(port, host, registry=REGISTRY)
    except OSError as error:
        why = error.strerror or os.strerror(error.errno or 0)
        raise Misconfigured(f"cannot show metrics on {host} port {port}: {why}") from error

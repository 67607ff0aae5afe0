"""Every metric of the read API, before its use."""

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
for _common in (ProcessCollector, PlatformCollector, GCCollector):
    _common(registry=REGISTRY)

ANSWERS = Counter("fleettickets_api_answers", "Requests answered, by status.", ["status"], registry=REGISTRY)
ENDED = Counter(
    "fleettickets_api_ended",
    "Connections ended. slow: the request did not come in time, or its answer was not read; connections: there were "
    "too many; no_http: something else came.",
    ["reason"],
    registry=REGISTRY,
)
FOLLOWERS = Gauge("fleettickets_api_followers", "Who follows the changes now.", registry=REGISTRY)
EVENTS = Counter("fleettickets_api_events", "Pages of changes sent to followers, each to each.", registry=REGISTRY)
PAGES = Counter("fleettickets_api_pages", "Pages of changes read for them.", registry=REGISTRY)

"""Every metric of the publisher, before its use."""

from prometheus_client import Counter, Gauge, Histogram

RECEIVED = Counter("fleettickets_webhook_received", "Events posted, whatever became of them.")
CONFIRMED = Counter("fleettickets_webhook_confirmed", "Events that the broker confirmed, answered with 200.")
REFUSED = Counter(
    "fleettickets_webhook_refused",
    "Events that were not answered with 200. token: missing or wrong; empty, too_large, slow, broken_off: the body; "
    "busy: too many at once; slow, no_http: the connection; connections: it made room for another; "
    "away, blocked, nacked, unroutable, late: the broker.",
    ["reason"],
)
NO_EVENT = Counter("fleettickets_webhook_no_event", "Confirmed ones that are no event: dead letters of the consumer.")
CONFIRM_SECONDS = Histogram(
    "fleettickets_webhook_confirm_seconds",
    "From the whole body to the broker's confirm.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CONNECTED = Gauge("fleettickets_webhook_broker_connected", "1 while there is a connection to RabbitMQ.")

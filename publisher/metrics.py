"""Every metric of every process, before its use. Each kind shows its own alone: a zero of another's would lie.

Counters add up over processes. A gauge is what one process has seen.
"""

import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    write_to_textfile,
)

from publisher.absences import Absences
from publisher.errors import Misconfigured
from publisher.heartbeat import PausedBy, Pulse


def _registry() -> CollectorRegistry:
    made = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=made)
    build = Info("fleettickets_build", "What runs here.", registry=made)
    build.info({"version": version("fleettickets"), "python": platform.python_version()})
    return made


CONSUMER, WEBHOOK, SERVE, POLLER, BRIDGE = (_registry() for _ in range(5))

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400)

_AWAY = "1 while this service is missed: nothing that needs it has succeeded since it failed."

FILES = Counter(
    "fleettickets_files", "Deliveries of change files, by what was decided.", ["decision"], registry=CONSUMER
)
FAILURES = Counter(
    "fleettickets_failures",
    "Tries that failed. retry: it is tried again; held: it waits, since everything fails for this reason; dead letter: "
    "a person has to look.",
    ["reason", "outcome"],
    registry=CONSUMER,
)
ROWS = Counter(
    "fleettickets_rows", "Rows of applied files, by what became of them.", ["feed", "outcome"], registry=CONSUMER
)
REJECTS = Counter(
    "fleettickets_rejects",
    "Rejected rows of applied files, by the rule that each breaks. timestamp, boolean, number, minutes, latitude, "
    "longitude, text: the form of a column; encoding: bytes that are no text; row: no row of the header; size: a field "
    "that is too long; id: none, or one that cannot be.",
    ["feed", "rule"],
    registry=CONSUMER,
)
BYTES = Counter("fleettickets_bytes", "Bytes of applied files, as they are stored.", ["feed"], registry=CONSUMER)
ARRIVALS = Counter(
    "fleettickets_arrivals",
    "Applied files by what told of them first: a notification, or the poller that finds what none told of.",
    ["feed", "seen_by"],
    registry=CONSUMER,
)
LAG = Histogram(
    "fleettickets_lag_seconds",
    "From when the store says that a file was written until its COMMIT. Stores tell whole seconds, or milliseconds in "
    "a notification; their clock is theirs.",
    ["feed"],
    buckets=_SECONDS,
    registry=CONSUMER,
)
STAGES = Histogram(
    "fleettickets_stage_seconds",
    "Where the time of applied files went. opened: from its delivery until the store began to give the bytes; staged: "
    "all rows are in the database; committed: they take effect; archived: the object is in processed/, and the "
    "requests are sent.",
    ["stage"],
    buckets=_SECONDS,
    registry=CONSUMER,
)
IN_HAND = Gauge(
    "fleettickets_in_hand_seconds", "How long the oldest of what is in hand has been; 0 for nothing.", registry=CONSUMER
)
PAUSED = Gauge("fleettickets_paused", "1 while it gets nowhere, by what is in the way.", ["by"], registry=CONSUMER)
AWAY = Gauge("fleettickets_away", _AWAY, ["service"], registry=CONSUMER)
CONNECTED = Gauge("fleettickets_broker_connected", "1 while there is a connection to RabbitMQ.", registry=CONSUMER)
LOOKUPS = Counter(
    "fleettickets_geocode_lookups",
    "Places looked up. hit; miss: the provider knows no such place, or there is none in the name; rejected: in another "
    "city, or no finer than a city; unanswered: nothing of use came from the provider.",
    ["outcome"],
    registry=CONSUMER,
)
REQUESTS = Counter(
    "fleettickets_geocoder_requests", "Requests sent to the provider, by this process.", registry=CONSUMER
)
PLACED = Counter("fleettickets_tickets_placed", "Tickets that got another place from the gazetteer.", registry=CONSUMER)
QUOTA_LEFT = Gauge(
    "fleettickets_geocoder_quota_left",
    "Requests left of the day's after the last batch, of all consumers.",
    registry=CONSUMER,
)
QUOTA_LEFT.set(math.nan)  # not known before the first, and zero would be an alarm
TICKETS = Gauge(
    "fleettickets_tickets",
    "Tickets after the last batch, by where their place is from.",
    ["source"],
    registry=CONSUMER,
)

RECEIVED = Counter("fleettickets_webhook_received", "Events posted, whatever became of them.", registry=WEBHOOK)
CONFIRMED = Counter(
    "fleettickets_webhook_confirmed", "Events that the broker confirmed, answered with 200.", registry=WEBHOOK
)
REFUSED = Counter(
    "fleettickets_webhook_refused",
    "Events that were not answered with 200. token: missing or wrong; empty, too_large, slow, broken_off: the body; "
    "busy: too many at once; slow, no_http: the connection; connections: it made room for another; "
    "away, blocked, nacked, unroutable, late: the broker.",
    ["reason"],
    registry=WEBHOOK,
)
NO_EVENT = Counter(
    "fleettickets_webhook_no_event",
    "Confirmed ones that are no event: dead letters of the consumer.",
    registry=WEBHOOK,
)
CONFIRM_SECONDS = Histogram(
    "fleettickets_webhook_confirm_seconds",
    "From the whole body to the broker's confirm.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=WEBHOOK,
)
WEBHOOK_CONNECTED = Gauge(
    "fleettickets_webhook_broker_connected", "1 while there is a connection to RabbitMQ.", registry=WEBHOOK
)
WEBHOOK_AWAY = Gauge("fleettickets_away", _AWAY, ["service"], registry=WEBHOOK)

ANSWERS = Counter("fleettickets_api_answers", "Requests answered, by status.", ["status"], registry=SERVE)
ENDED = Counter(
    "fleettickets_api_ended",
    "Connections ended. slow: the request did not come in time, or its answer was not read; connections: there were "
    "too many; no_http: something else came.",
    ["reason"],
    registry=SERVE,
)
FOLLOWERS = Gauge("fleettickets_api_followers", "Who follows the changes now.", registry=SERVE)
EVENTS = Counter("fleettickets_api_events", "Pages of changes sent to followers, each to each.", registry=SERVE)
PAGES = Counter("fleettickets_api_pages", "Pages of changes read for them.", registry=SERVE)
SERVE_AWAY = Gauge("fleettickets_away", _AWAY, ["service"], registry=SERVE)

POLLS = Counter("fleettickets_polls", "Polls of the bucket that ended.", registry=POLLER)
POLL_PUBLISHED = Counter("fleettickets_poll_published", "Keys published since nothing told of them.", registry=POLLER)
POLLER_AWAY = Gauge("fleettickets_away", _AWAY, ["service"], registry=POLLER)
LAST_POLL = CollectorRegistry()
"""What the last poll found: of a loop beside what it counts, and of one in cron alone."""


def _of_poll(name: str, told: str) -> Gauge:
    made = Gauge(f"fleettickets_poll_{name}", told, registry=LAST_POLL)
    POLLER.register(made)
    made.set(math.nan)  # not known before the first
    return made


POLLED_AT = _of_poll("timestamp_seconds", "When the last poll ended that broker and store let end.")
POLL_WAITING = _of_poll("waiting_files", "Files in changes/ at the last poll that would be applied.")
POLL_SET_ASIDE = _of_poll("set_aside_files", "Files there that would not, by what the ledger has of them.")
POLL_QUEUED = _of_poll("queued_messages", "Messages that were on their way then.")
POLL_BROUGHT = _of_poll("published_files", "Keys that the last poll published.")

SQS_PUBLISHED = Counter("fleettickets_sqs_published", "Messages that the broker confirmed.", registry=BRIDGE)
SQS_DELETED = Counter("fleettickets_sqs_deleted", "Of these, those deleted from SQS after that.", registry=BRIDGE)
BRIDGE_AWAY = Gauge("fleettickets_away", _AWAY, ["service"], registry=BRIDGE)

DRAIN = CollectorRegistry()
"""What a drain has done."""
DRAINED_AT = Gauge("fleettickets_drain_timestamp_seconds", "When the last drain ended.", registry=DRAIN)
DRAINED = Gauge(
    "fleettickets_drain_files",
    "Files that it came to, by what became of them. new, late, changed: applied; before: they were already; "
    "left alone: nothing that it may apply; failed: see its output.",
    ["outcome"],
    registry=DRAIN,
)
DRAINED_ROWS = Gauge(
    "fleettickets_drain_rows", "Rows of the files that it applied, by what became of them.", ["outcome"], registry=DRAIN
)

STATE = CollectorRegistry()
"""What `status` found: of all processes and of what they work with, and of no process by itself."""


def _state(name: str, told: str, *labels: str) -> Gauge:
    return Gauge(f"fleettickets_{name}", told, labels, registry=STATE)


LOOKED_AT = _state("looked_at_timestamp_seconds", "When this was found out; old figures say nothing of now.")
VERDICT = _state("verdict", "1 for the word that status begins with, 0 for the others.", "word")
PART_ANSWERS = _state("part_answers", "1 for what answered, 0 for what did not.", "part")
BACKLOG = _state("backlog_files", "Files that wait in changes/ and would be applied now, or at their next try.")
OLDEST_WAITING = _state("oldest_waiting_seconds", "Since the first of these was stored; 0 where none waits.")
SET_ASIDE = _state("set_aside_files", "Files that wait and would not be applied, by why.", "why")
READY = _state("queue_ready_messages", "Messages that no consumer has in hand.", "queue")
QUEUE_CONSUMERS = _state("queue_consumers", "Subscriptions.", "queue")
DEAD_LETTERS = _state("dead_letters", "Messages that a person has to look at.", "queue")
DEAD_LETTER_FILES = _state(
    "dead_letter_files", "Files whose tries are spent, by why: the most frequent fifty.", "reason"
)
WATERMARK_AGE = _state("watermark_age_seconds", "Since the time in the highest key that was applied.", "feed")
LAST_IMPORT = _state("last_import_seconds", "Since a file was applied.", "feed")
UNFINISHED = _state("unfinished_files", "Files that are applied and not done, or were seen and not decided.", "state")
OPEN_REQUESTS = _state("open_requests", "Follow-on requests for which nothing was done yet.", "kind")
UNSENT_REQUESTS = _state("unsent_requests", "Of these, the due ones that the broker does not have.", "kind")
OLDEST_UNSENT = _state(
    "oldest_unsent_request_seconds", "Since the first of those was due; 0 where there is none.", "kind"
)
OPEN_REJECTS = _state("open_rejects", "Rejected rows that still want mending.", "feed")
REQUESTS_LEFT = _state("geocoder_requests_left_today", "Of the account that this process would use.")
GEOCODER_SPENT = _state(
    "geocoder_spent", "1 while the day of an account is used up, whichever process asks by it; 0 otherwise."
)
NOWHERE = _state("tickets_nowhere", "Tickets without a place.")
OPEN_ALERTS = _state("alerts_open", "Causes that FLEETTICKETS_ALERT_URL was to be told of, and that are not over.")
UNTOLD_ALERTS = _state("alerts_untold", "Alerts and all-clears that it has not taken yet.")
PROCESSES = _state("processes", "Those that have given a sign of late, by kind.", "kind")
HEARTBEAT = _state("heartbeat_seconds", "Since a process last gave a sign.", "kind", "host", "pid")
PROCESS_IN_HAND = _state(
    "process_in_hand_seconds", "Since it took the oldest of what it has in hand; 0 for nothing.", "kind", "host", "pid"
)
PROCESS_PAUSED = _state(
    "process_paused_seconds", "For how long it has got nowhere, by what is in the way.", "kind", "host", "pid", "by"
)


def show_absences(away: Gauge, absences: Absences, services: Mapping[str, str]) -> None:
    """Have a gauge tell of each service, by its label, whether it is missed."""
    for label, service in services.items():
        away.labels(label).set_function(partial(_is_away, absences, service))


def _is_away(absences: Absences, service: str) -> float:
    return float(absences.is_away(service))


def write(path: Path, registry: CollectorRegistry) -> None:
    """Write a file for node_exporter whole, or not at all: whoever reads it meanwhile has the one before.

    Raises: Misconfigured.
    """
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise Misconfigured(f"--textfile {path}: {error.strerror or error}") from error


def show_consumer(
    pulse: Pulse, is_connected: Callable[[], bool], feeds: Iterable[str], *, rows: Sequence[str], rules: Sequence[str]
) -> None:
    """Have the gauges of a consumer tell how it stands when they are asked for.

    What it counts of its feeds begins at zero: of a count that begins at another number nobody sees by how much it
    grew.
    """
    for feed in feeds:
        for rule in rules:
            REJECTS.labels(feed, rule)
        LAG.labels(feed)
        BYTES.labels(feed)
        for outcome in rows:
            ROWS.labels(feed, outcome)

    def is_paused(by: PausedBy) -> float:
        pause = pulse.sign().pause
        return float(pause is not None and pause.by is by)

    IN_HAND.set_function(lambda: pulse.sign().in_hand_seconds or 0.0)
    CONNECTED.set_function(lambda: float(is_connected()))
    for by in PausedBy:
        PAUSED.labels(by.value).set_function(partial(is_paused, by))

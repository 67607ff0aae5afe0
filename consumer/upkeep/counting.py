"""What `status` found, as metrics: the same figures, so nobody can see two."""

import math
import time

from consumer.upkeep.judging import Word
from consumer.upkeep.status import DatabasePart, Status
from publisher import metrics

_PARTS = ("bucket", "broker", "processes", "ledger", "trouble", "database")


def tell_state(status: Status) -> None:
    """Set the metrics of the state to it, and nothing of the one before stays; what did not answer has none."""
    for metric in (
        metrics.VERDICT, metrics.SET_ASIDE, metrics.READY, metrics.QUEUE_CONSUMERS, metrics.DEAD_LETTERS,
        metrics.DEAD_LETTER_FILES, metrics.WATERMARK_AGE, metrics.LAST_IMPORT, metrics.UNFINISHED,
        metrics.OPEN_REQUESTS, metrics.UNSENT_REQUESTS, metrics.OLDEST_UNSENT, metrics.OPEN_REJECTS,
        metrics.PROCESSES, metrics.HEARTBEAT, metrics.PROCESS_IN_HAND, metrics.PROCESS_PAUSED,
    ):  # fmt: skip
        metric.clear()
    metrics.LOOKED_AT.set(time.time())
    for word in Word:
        metrics.VERDICT.labels(word.value).set(word is status.verdict.word)
    for part in _PARTS:
        metrics.PART_ANSWERS.labels(part).set(part not in status.faults)
    if status.broker:
        for name, queue in status.broker.queues.items():
            metrics.READY.labels(name).set(queue.ready)
            metrics.QUEUE_CONSUMERS.labels(name).set(queue.consumers)
            metrics.DEAD_LETTERS.labels(name).set(queue.dead_letters)
    for process in status.processes or ():
        metrics.PROCESSES.labels(process.kind.value).inc()
        named = (process.kind.value, process.host, str(process.pid))
        metrics.HEARTBEAT.labels(*named).set(process.beat_seconds)
        metrics.PROCESS_IN_HAND.labels(*named).set(process.in_hand_seconds or 0)
        if process.paused_by is not None:
            metrics.PROCESS_PAUSED.labels(*named, process.paused_by.value).set(process.paused_seconds or 0)
    backlog = status.database.backlog if status.database else None
    metrics.BACKLOG.set(backlog.files if backlog else math.nan)
    metrics.OLDEST_WAITING.set(backlog.oldest_waiting_seconds or 0 if backlog else math.nan)
    for why, files in backlog.set_aside.items() if backlog else ():
        metrics.SET_ASIDE.labels(why).set(files)
    geocoding = status.database.geocoding if status.database else None
    metrics.REQUESTS_LEFT.set(geocoding.requests_left_today if geocoding else math.nan)
    metrics.NOWHERE.set(geocoding.tickets_nowhere if geocoding else math.nan)
    metrics.GEOCODER_SPENT.set(status.trouble.geocoder_is_spent if status.trouble else math.nan)
    alerts = status.trouble.alerts if status.trouble else None
    metrics.OPEN_ALERTS.set(alerts.open if alerts else math.nan)
    metrics.UNTOLD_ALERTS.set(alerts.untold if alerts else math.nan)
    if status.database:
        _tell_database(status.database)


def _tell_database(found: DatabasePart) -> None:
    for feed, fresh in found.feeds.items():
        for metric, seconds in (
            (metrics.WATERMARK_AGE, fresh.watermark_age_seconds), (metrics.LAST_IMPORT, fresh.last_import_seconds),
        ):  # fmt: skip
            if seconds is not None:
                metric.labels(feed).set(seconds)
    for state, files in found.unfinished_files.items():
        metrics.UNFINISHED.labels(state).set(files)
    for reason, files in found.dead_letters.items():
        metrics.DEAD_LETTER_FILES.labels(reason).set(files)
    for kind, requests in found.open_requests.items():
        metrics.OPEN_REQUESTS.labels(kind).set(requests.unhandled)
        metrics.UNSENT_REQUESTS.labels(kind).set(requests.unsent)
        metrics.OLDEST_UNSENT.labels(kind).set(requests.oldest_unsent_seconds or 0)
    for feed, rejects in found.open_rejects.items():
        metrics.OPEN_REJECTS.labels(feed).set(rejects.rows)

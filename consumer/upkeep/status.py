"""Where everything stands: backlog, lag, queues, dead letters, last files, last error; each part by itself.

A part whose dependency is away says so and leaves the others readable.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.postgres import database
from consumer.postgres.database import Connection, Role
from consumer.postgres.migrate import require_migrated
from consumer.settings import DatabaseSettings, GeocoderChoice, GeocoderLimits, GeocoderSettings
from consumer.upkeep.verdicts import Ledger, Verdict
from publisher.broker import channels
from publisher.broker.topology import Queue
from publisher.errors import FleetticketsError, Misconfigured
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import Bucket, ObjectSummary, pages


@dataclass(slots=True)
class Status:
    """`parts` by name, JSON-ready; `faults` says which could not be read, and why."""

    parts: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def read_status(database_settings: DatabaseSettings, broker_settings: BrokerSettings, bucket: BucketSettings) -> Status:
    """Ask the bucket, the broker and the database. Changes nothing."""
    status = Status()
    backlog, set_aside = _Files(), Counter[str]()
    with Ledger(database_settings, bucket.bucket, passes_over=True) as ledger:
        _part(status, "bucket", lambda: _bucket(bucket, ledger, backlog, set_aside))
    _part(status, "broker", lambda: _broker(broker_settings))
    _part(status, "database", lambda: _database(database_settings, backlog, set_aside))
    return status


@dataclass(slots=True)
class _Files:
    """How many, and the one that was stored first."""

    count: int = 0
    oldest: ObjectSummary | None = None

    def add(self, found: ObjectSummary) -> None:
        self.count += 1
        if self.oldest is None or found.modified < self.oldest.modified:
            self.oldest = found

    def plain(self) -> dict[str, Any]:
        return {
            "oldest_waiting_seconds": _age(self.oldest.modified if self.oldest else None),
            "oldest_waiting_key": self.oldest.key if self.oldest else None,
        }


def _part(status: Status, name: str, read: Callable[[], dict[str, Any]]) -> None:
    try:
        status.parts[name] = read()
    except FleetticketsError as error:
        status.faults[name] = str(error)


def _bucket(settings: BucketSettings, ledger: Ledger, backlog: _Files, set_aside: Counter[str]) -> dict[str, Any]:
    """What waits, page by page; of it goes to `backlog` what the ledger has no verdict on that stands."""
    waiting = _Files()
    for page in pages(Bucket(settings).waiting()):
        for found, verdict in zip(page, ledger.verdicts(page), strict=True):
            waiting.add(found)
            if verdict in {None, Verdict.RETRY}:
                backlog.add(found)
            else:
                set_aside[str(verdict)] += 1
    return {
        "bucket": settings.bucket, "prefix": settings.changes_prefix, "waiting": waiting.count, **waiting.plain(),
    }  # fmt: skip


def _broker(settings: BrokerSettings) -> dict[str, Any]:
    with channels.confirming_channel(settings, "status", channels.LOOKING_HEARTBEAT) as channel:
        queues = {}
        for queue in Queue:
            ready, consumers = channels.queue_depth(channel, queue.broker_name)
            dead, _ = channels.queue_depth(channel, queue.dead_letters)
            queues[queue.value] = {"ready": ready, "consumers": consumers, "dead_letters": dead}
    return {"queues": queues}


def _database(settings: DatabaseSettings, backlog: _Files, set_aside: Counter[str]) -> dict[str, Any]:
    with database.connect(settings, Role.READ) as connection, database.translated_errors():
        require_migrated(connection)
        watermark = database.row(connection, "status", "watermark") or {}
        return {
            "backlog": {"files": backlog.count, **backlog.plain(), "set_aside": dict(set_aside)},
            "watermark": watermark.get("key"),
            "watermark_age_seconds": _age(watermark.get("snapshot_at")),
            "last_import_seconds": _age(watermark.get("imported_at")),
            "tickets": watermark.get("row_count", 0),
            "unfinished_files": {
                row["state"]: row["files"] for row in database.rows(connection, "status", "ledger_by_state")
            },
            "open_requests": {
                row["kind"]: {"unsent": row["unsent"], "unhandled": row["unhandled"]}
                for row in database.rows(connection, "status", "open_requests")
            },
            "waits": _waits(connection),
            "geocoding": _geocoding(connection),
            "ignored_events": {
                row["reason"]: row["events"] for row in database.rows(connection, "status", "ignored_events")
            },
            "last_files": [_plain(row) for row in database.rows(connection, "status", "last_files")],
            "last_error": _plain(database.row(connection, "status", "last_error") or {}) or None,
        }


def _waits(connection: Connection) -> list[dict[str, Any]]:
    """Our sessions that wait for a lock of the database now, with who has it."""
    return [_plain(row) for row in database.rows(connection, "waits", "waits")]


def _geocoding(connection: Connection) -> dict[str, Any]:
    sources = {row["source"]: row["tickets"] for row in database.rows(connection, "status", "tickets_by_place")}
    total = sum(sources.values())
    nowhere = sources.pop(None, 0)
    places: dict[str, dict[str, int]] = {"clusters": {}, "locations": {}}
    for row in database.rows(connection, "status", "gazetteer"):
        places[row["kind"]][row["status"]] = row["places"]
    asked = _plain(database.row(connection, "status", "geocoder", {"account": _account()}) or {})
    turn = database.row(connection, "leases", "held", {"name": "lookups"})
    left = 0 if asked["is_spent"] else max(0, load(GeocoderLimits).per_day - asked["requests"])
    return {
        "tickets_by_source": sources,
        "tickets_nowhere": nowhere,
        "share_with_place": round((total - nowhere) / total, 6) if total else None,
        "places": places,
        "requests_today": asked["requests"],
        "requests_left_today": left,
        "paused_until": asked["paused_until"],
        "paused_by": asked["paused_by"],
        "looked_up_by": turn["holder"] if turn else None,
    }


def _account() -> str | None:
    """Whose pause is told; a wrong setting is the doctor's business."""
    try:
        return load(GeocoderSettings).account if load(GeocoderChoice).is_made else None
    except Misconfigured:
        return None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _age(moment: datetime | None) -> float | None:
    return round((datetime.now(UTC) - moment).total_seconds(), 1) if moment else None

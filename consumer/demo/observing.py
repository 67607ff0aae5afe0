"""What the demo sees from outside: progress from the ledger, and at the end everything that is to be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consumer.demo.model import FeedModel
from consumer.demo.oracle import Raw
from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection
from publisher.broker import channels, dead_letters
from publisher.broker.topology import Queue
from publisher.settings import BrokerSettings

ROW_COUNTS = (
    "read", "inserted", "updated", "unchanged", "stale", "superseded", "rejected", "alarms", "sentinels",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the files and their rows are; `put` is the exporter's own count, the rest is the ledger's."""

    put: int
    applied: int
    archived: int
    done: int
    dead: int
    seen_by_poller: int
    duplicates: int
    rows: dict[str, int]
    history_open: int
    delivered_to_committed: Latency | None
    """From the broker's delivery to the commit."""
    stored_to_committed: Latency | None
    """From the store's own time of the object, which includes its delay in announcing it."""

    @property
    def backlog(self) -> int:
        return max(0, self.put - self.applied - self.dead)


@dataclass(frozen=True, slots=True)
class Tables:
    """The final state in the database, keys without their folder; of a file, the states and decisions it has."""

    raw: dict[str, Raw]
    typed: dict[str, dict[str, object]]
    closures: dict[tuple[str, datetime], dict[str, object]]
    rejects: dict[tuple[str, int], str]
    files: dict[str, tuple[list[str], list[str]]]


def progress(connection: Connection, put: int, feeds: Sequence[str]) -> Whereabouts:
    """Of these feeds together. Raises: DependencyDown."""
    with database.translated_errors():
        found = database.row(connection, "demo", "progress", {"feeds": list(feeds)}) or {}
    return Whereabouts(
        put=put,
        rows={name: found.pop(name) for name in ROW_COUNTS},
        delivered_to_committed=_latency(found.pop("delivered_to_committed")),
        stored_to_committed=_latency(found.pop("stored_to_committed")),
        **found,
    )


def tables(connection: Connection, feed: Feed, model: FeedModel) -> Tables:
    """Raises: DependencyDown."""
    folder, of_feed = feed.folder.changes, {"feed": feed.name}
    columns = (*model.texts, *model.times, *model.flags, *model.minutes, *(model.place or ()), "geo_source")
    of_closure = (*model.closure, *model.closure_later)
    with database.translated_errors():
        tickets = database.rows(connection, "demo", "tickets", feed=feed)
        closures = database.rows(connection, "demo", "closures") if model.closed_at else []
        return Tables(
            raw={row["ticket_id"]: row["raw"] for row in tickets},
            typed={row["ticket_id"]: {name: row.get(name) for name in columns} for row in tickets},
            closures={
                (row["ticket_id"], row["closed_at"]): {name: row[name] for name in of_closure} for row in closures
            },
            rejects={
                (row["key"].removeprefix(folder), row["line"]): row["raw"]
                for row in database.rows(connection, "demo", "rejects", of_feed)
            },
            files={
                row["key"].removeprefix(folder): (row["states"], row["decisions"])
                for row in database.rows(connection, "demo", "files", of_feed)
            },
        )


def files_of_others(connection: Connection, feeds: Sequence[str]) -> list[str]:
    """Keys in the ledger that are of none of these feeds. Raises: DependencyDown."""
    with database.translated_errors():
        return [row["key"] for row in database.rows(connection, "demo", "files_of_others", {"feeds": list(feeds)})]


def dead_keys(settings: BrokerSettings, since: datetime) -> list[str]:
    """Keys of the dead letters of files, one for each letter written since then.

    Raises: DependencyDown, Misconfigured.
    """
    with (
        channels.confirming_channel(settings, "demo") as channel,
        dead_letters.browsing(channel, Queue.FILES) as letters,
    ):
        since = since.replace(microsecond=since.microsecond // 1000 * 1000)  # a letter's time is in milliseconds
        return [letter.key for letter in letters if letter.dead_at and letter.dead_at >= since]


def _latency(percentiles: list[Any] | None) -> Latency | None:
    return Latency(*percentiles) if percentiles else None

"""What the ledger knows of pace, of an exporter's rhythm and of notifications."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from consumer.postgres import database as postgres
from consumer.settings import DatabaseSettings
from tests.conftest import Database

PUT = """
INSERT INTO ingest.ledger (bucket, feed, prefix, key, etag, object_time, sha256, epoch, first_seen_by, first_seen_at,
                           decision, state, applied_at)
SELECT 'bucket', 'inc', 'automations/inc/', 'key-' || gen_random_uuid(), 'etag', now() - ago - lasting * n, 'sha256', 1,
       %(by)s, now() - ago - lasting * n, 'new', 'done', now() - ago - lasting * n
FROM (SELECT %(ago)s::interval AS ago, %(lasting)s::interval AS lasting) AS given,
     generate_series(%(files)s - 1, 0, -1) AS n
"""
MINUTES, HOURS, DAYS = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Written:
    """A ledger with files that were stored, seen and applied in one moment."""

    def __init__(self, connection: postgres.Connection) -> None:
        self.connection = connection

    def put(self, files: int, *, ago: timedelta, lasting: timedelta = MINUTES, by: str = "notification") -> None:
        """The last of them so long ago, and each so long after the one before."""
        self.connection.execute(PUT.encode(), {"files": files, "ago": ago, "lasting": lasting, "by": by})

    def ask(self, name: str, **parameters: Any) -> dict[str, Any] | None:
        return postgres.row(self.connection, "judging", name, parameters)


@pytest.fixture
def ledger(database: Database) -> Iterator[Written]:
    with postgres.connect(DatabaseSettings.model_validate({"DATABASE_URL": database.url}), None) as connection:
        yield Written(connection)


def test_of_an_empty_ledger_nothing_is_known(ledger: Written) -> None:
    assert ledger.ask("pace", seconds=60) == {"applied": 0, "arrived": 0, "applied_seconds": None}
    assert set((ledger.ask("rhythm", feed="inc") or {}).values()) == {0, None}
    assert ledger.ask("announced") is None


def test_the_pace_is_that_of_the_last_minute(ledger: Written) -> None:
    ledger.put(5, ago=2 * HOURS)
    ledger.put(3, ago=timedelta(seconds=5), lasting=timedelta(seconds=1))
    ledger.connection.execute("UPDATE ingest.ledger SET object_time = now() - interval '1 hour' WHERE file_id = 8")
    found = ledger.ask("pace", seconds=60)
    assert found is not None
    assert (found["applied"], found["arrived"]) == (3, 2)
    assert found["applied_seconds"] >= 5


def test_a_rhythm_is_one_of_minutes_and_one_outage_is_no_habit(ledger: Written) -> None:
    ledger.put(100, ago=3 * DAYS, lasting=20 * MINUTES)
    ledger.put(100, ago=3 * HOURS, lasting=20 * MINUTES)  # after an outage of a day and a half
    ledger.put(50, ago=3 * HOURS, lasting=timedelta(microseconds=1))  # a burst
    ledger.put(50, ago=10 * MINUTES, lasting=timedelta(microseconds=1), by="import")
    ledger.put(9, ago=20 * DAYS, lasting=DAYS)
    found = ledger.ask("rhythm", feed="inc")
    assert found is not None
    assert (found["usual_seconds"], found["longest_seconds"]) == (1200, 1200)
    assert found["pauses"] in {199, 200, 201}  # a burst can have the turn of a minute in it
    assert found["span_seconds"] > 4 * DAYS.total_seconds()
    assert 3 * 3600 <= found["silent_seconds"] < 4 * 3600
    assert (ledger.ask("rhythm", feed="crq") or {})["pauses"] == 0


def test_what_the_poller_brings_counts_once_notifications_have_stopped(ledger: Written) -> None:
    ledger.put(4, ago=2 * HOURS, by="poller")
    ledger.put(2, ago=HOURS)
    assert (ledger.ask("announced") or {})["by_poller"] == 0
    ledger.put(3, ago=MINUTES, by="poller")
    found = ledger.ask("announced") or {}
    assert found["by_poller"] == 3
    assert found["seconds"] >= 3600
    ledger.put(1, ago=timedelta(0))
    assert (ledger.ask("announced") or {})["by_poller"] == 0


def test_a_bucket_that_has_not_announced_anything_for_long_is_one_that_is_polled(ledger: Written) -> None:
    ledger.put(1, ago=8 * DAYS)
    ledger.put(9, ago=MINUTES, by="poller")
    assert ledger.ask("announced") is None

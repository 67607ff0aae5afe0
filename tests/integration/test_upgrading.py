"""From the schema of before there were feeds: what is there stays, and the program of before goes on running."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection, sql

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import migrate
from consumer.settings import DatabaseSettings
from tests.conftest import Database
from tests.integration.former_schemas import make_schema

BEFORE = "19_what_came_before"
KEY = "automations/inc/changes/2026-06-25T142000.csv"
# As they were: a claim, a position moved forward, and the watermark's row.
CLAIMED_BEFORE = """
    INSERT INTO ingest.ledger AS ledger (bucket, prefix, key, etag, size, epoch, first_seen_by, decision, state)
    SELECT 'isptickets', 'automations/inc/', %(key)s, %(etag)s, 1, (SELECT max(epoch) FROM ingest.epochs), 'poller',
           'new', 'seen'
    ON CONFLICT (bucket, key, etag) DO UPDATE SET state = 'seen' WHERE ledger.state = 'failed'
    RETURNING file_id
"""
MOVED_BEFORE = """
    INSERT INTO ingest.positions AS known (ticket_id, position, file_id)
    SELECT %(ticket_id)s, ROW(1, %(time)s::timestamptz, %(key)s, now(), 'e', 2)::ingest.position, %(file_id)s
    ON CONFLICT (ticket_id) DO UPDATE SET position = excluded.position, file_id = excluded.file_id
    WHERE known.position < excluded.position
    RETURNING (position).line AS line
"""


def made_before(connection: Connection[dict[str, Any]], rows: int) -> None:
    """A database of that schema with so many applied files, each of which wrote a ticket."""
    make_schema(connection, BEFORE)
    connection.execute(
        sql.SQL(
            """
            INSERT INTO ingest.ledger
                (bucket, prefix, key, etag, size, sha256, epoch, key_time, object_time, first_seen_by, decision, state,
                 applied_at, archived_at, archive_key, done_at, rows_read, rows_inserted)
            SELECT 'isptickets', 'automations/inc/', format('automations/inc/changes/%%s.csv', n), md5(n::text), 100,
                   md5(n::text), 1, now(), now(), 'poller', 'new', 'done', now(), now(),
                   format('automations/inc/processed/%%s.csv', n), now(), 1, 1
            FROM generate_series(1, {rows}) AS n;
            INSERT INTO tickets.inc (ticket_id, raw)
            SELECT format('INC%%s', n), jsonb_build_object('ticket_id', format('INC%%s', n))
            FROM generate_series(1, {rows}) AS n;
            INSERT INTO ingest.positions (ticket_id, position, file_id)
            SELECT format('INC%%s', n), ROW(1, now(), 'k', now(), 'e', n)::ingest.position, n
            FROM generate_series(1, {rows}) AS n;
            INSERT INTO tickets.import_meta (source, row_count, metadata) VALUES ('inc', {rows}, '{{}}')
            """.replace("%%", "%")
        ).format(rows=sql.Literal(rows))
    )


@pytest.fixture
def before(empty_database: Database) -> Iterator[Connection[dict[str, Any]]]:
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with postgres.connect(settings, None) as connection:
        made_before(connection, 500)
        yield connection


def upgraded(connection: Connection[dict[str, Any]]) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    migrate.migrate(connection, lambda _name, _how: None, packaged_feeds().declared)
    return time.monotonic() - began


def test_what_is_there_is_of_the_incidents_feed(before: Connection[dict[str, Any]]) -> None:
    upgraded(before)
    feeds = before.execute("SELECT feed, count(*) AS files FROM ingest.ledger GROUP BY feed").fetchall()
    assert feeds == [{"feed": "inc", "files": 500}]
    positions = "SELECT count(*) AS rows FROM ingest.inc_positions JOIN tickets.inc USING (ticket_id)"
    assert before.execute(positions).fetchone() == {"rows": 500}
    epochs = before.execute("SELECT feed, epoch FROM ingest.epochs ORDER BY feed").fetchall()
    assert epochs == [{"feed": "crq", "epoch": 1}, {"feed": "inc", "epoch": 1}]
    assert before.execute("SELECT count(*) AS rows FROM tickets.crq").fetchone() == {"rows": 0}


def test_the_program_of_before_goes_on_running(before: Connection[dict[str, Any]]) -> None:
    upgraded(before)
    # Its rights are given anew with each migration.
    before.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(_role(before))))
    claim = before.execute(CLAIMED_BEFORE, {"key": KEY, "etag": "new"}).fetchone()
    assert claim is not None
    moved = {"file_id": claim["file_id"], "key": KEY}
    for ticket, at, lines in (("INC1", "2030-01-01", [2]), ("INC1", "2000-01-01", []), ("NEW", "2030-01-01", [2])):
        found = before.execute(MOVED_BEFORE, moved | {"ticket_id": ticket, "time": at}).fetchall()
        assert [row["line"] for row in found] == lines
    row = before.execute("SELECT feed, epoch FROM ingest.ledger WHERE key = %s", [KEY]).fetchone()
    assert row == {"feed": "inc", "epoch": 1}


def _role(connection: Connection[dict[str, Any]]) -> str:
    found = connection.execute("SELECT ingest.role_name('ingest') AS name").fetchone()
    assert found is not None
    return str(found["name"])

"""What a file leaves for the follow-on steps is sent before the file is done, however much else waits to be sent."""

import pytest
from psycopg import sql

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.logins import role_of
from tests.stage.stage import Stage


@pytest.mark.promise("Exactly once")
def test_a_file_is_done_when_its_own_requests_are_sent(stage: Stage) -> None:
    consumer = stage.start("consume")
    first, second = key_at(1), key_at(2)
    stage.bucket.put_all({first: csv([ticket("INC1")]), second: csv([ticket("INC2")])})
    stage.announce(first)
    stage.wait_for("done", first)
    # More than one message has room for, and older; no relay comes but that of the file.
    stage.query("INSERT INTO ingest.outbox (kind) SELECT 'geocode' FROM generate_series(1, 2500) RETURNING 1")
    stage.announce(second)
    at_the_end = """SELECT count(request.sent_at) FROM ingest.outbox AS request JOIN ingest.ledger USING (file_id)
                    WHERE key = %s AND state = 'done'"""
    stage.wait_for("done", second)
    assert stage.one(at_the_end, second) == 2
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE sent_at IS NULL") == 0
    consumer.stop()


def test_no_lock_that_a_reader_can_take_stops_a_follow_on(stage: Stage) -> None:
    """The dashboard's login can take any advisory lock there is, and lock tables for reading."""
    consumer = stage.start("consume")
    with stage.connection.transaction():
        reader = sql.Identifier(role_of(stage.connection, "read"))
        stage.connection.execute(sql.SQL("SET LOCAL ROLE {}").format(reader))
        stage.query(
            """SELECT pg_advisory_xact_lock(hashtext(name)) IS NULL
               FROM unnest(ARRAY['ingest.history', 'ingest.geocode', 'ingest.geocoder_requests']) AS name
               UNION ALL SELECT pg_advisory_xact_lock(hashtextextended('tickets.capture_history', 0)) IS NULL"""
        )
        key = key_at(1)
        stage.bucket.put(key, csv([ticket("INC1")]))
        stage.announce(key)
        stage.wait_for("done", key)
        stage.wait_for_history()
    consumer.stop()

"""A process that begins goes by the failures in a row that others left, and by no others."""

import pytest

from consumer.files import ledger
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from publisher.broker.topology import RETRY_DELAYS


def add_failed(pool: Pool, key: str, attempts: int, seconds_ago: float) -> None:
    """A file that failed last so many seconds ago, and waits for its retry."""
    with postgres.transaction(pool) as connection:
        connection.execute(
            """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state, attempts,
                                          reason, retry_at)
               VALUES ('bucket', '', %s, 'etag', 1, 'poller', 'rejected', 'failed', %s, 'unexpected',
                       now() + make_interval(secs => %s))""",
            (key, attempts, RETRY_DELAYS[attempts - 1] - seconds_ago),
        )


def add_applied(pool: Pool, seconds_ago: float) -> None:
    with postgres.transaction(pool) as connection:
        connection.execute(
            """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state, applied_at)
               VALUES ('bucket', '', 'good', %s, 1, 'poller', 'new', 'done', now() - make_interval(secs => %s))""",
            (f"{seconds_ago} s ago", seconds_ago),
        )


def in_a_row(pool: Pool) -> int:
    with postgres.transaction(pool) as connection:
        return ledger.failures_in_a_row(connection, "unexpected", RETRY_DELAYS)


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_file_that_waits_for_its_retry_while_others_are_applied_is_none_of_a_row(pool: Pool) -> None:
    for number in range(24):
        add_failed(pool, f"file {number}", 3, seconds_ago=20)
    add_applied(pool, seconds_ago=10)
    assert in_a_row(pool) == 0


def test_only_the_tries_since_the_last_success_count(pool: Pool) -> None:
    add_failed(pool, "thrice", 3, seconds_ago=5)  # the tries before it were 35 and 40 seconds ago
    assert in_a_row(pool) == 3
    add_applied(pool, seconds_ago=37)
    assert in_a_row(pool) == 2
    add_applied(pool, seconds_ago=20)
    assert in_a_row(pool) == 1

"""What a consumer reads of the database for a file does not grow with the files before it, on the way to the archive.

Counted from the first day on, when all plans were made for empty tables and none was analyzed.
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.private import private_postgres
from tests.stage.reads import grown, keep_unanalyzed, read_rows
from tests.stage.stage import Process, Stage, wait_until

FEW, MANY = 30, 400
CLOSED = {"normalized_status": "closed", "closed_at": "2026-06-01 10:00:00"}
"""As most are; and the capture of the history reads those that are open."""
DONE = '"archive_key": "'
QUEUES = {"outbox_unsent", "outbox_unhandled", "ledger_unfinished", "ledger_bucket_key_etag_key"}
"""Indexes of what is open have entries of what is not any more until the next VACUUM, which they ask for themselves;
until then a sweep, each half minute, may take that of all files for as good. No delivery does, see the same test of
tests/integration."""
TELLS_SECONDS = 15.0
"""An idle session of the server tells what it has read after ten; and what follows a file is done a while after it."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """On a server of its own: while a transaction is open in any database of a server, no dead row goes in another."""
    with private_postgres(tmp_path) as server:
        yield Database(server.url)


@pytest.mark.promise("Bounded")
def test_a_file_costs_what_the_first_ones_did(stage: Stage) -> None:
    keep_unanalyzed(stage.connection)
    consumer = stage.start("consume")
    send(stage, consumer, range(FEW))
    first = read_for(stage, consumer, range(FEW, 2 * FEW))
    stage.bucket.put_all(bodies := files(range(2 * FEW, MANY)))
    announce(stage, consumer, list(bodies))
    later = read_for(stage, consumer, range(MANY, MANY + FEW))
    assert {name: rows for name, rows in grown(first, later, FEW).items() if name not in QUEUES} == {}


def read_for(stage: Stage, consumer: Process, numbers: range) -> Counter[str]:
    time.sleep(TELLS_SECONDS)
    before = read_rows(stage.connection)
    send(stage, consumer, numbers)
    time.sleep(TELLS_SECONDS)
    return read_rows(stage.connection) - before


def send(stage: Stage, consumer: Process, numbers: range) -> None:
    """Have files applied, one after the other."""
    stage.bucket.put_all(bodies := files(numbers))
    for key in bodies:
        announce(stage, consumer, [key])


def files(numbers: range) -> dict[str, bytes]:
    return {
        key_at(number): csv([ticket(f"INC{number // 10}-{row}", owner=f"{number}", **CLOSED) for row in range(10)])
        for number in numbers
    }


def announce(stage: Stage, consumer: Process, keys: list[str]) -> None:
    """And wait for the archive, by the consumer's log: to ask the database would be counted too."""
    done = consumer.output().count(DONE) + len(keys)
    stage.announce(*keys)
    wait_until(lambda: consumer.output().count(DONE) >= done, "they are archived")

"""Files made to fill the memory: each has its verdict, none its way, and the files beside them are applied."""

import gzip
import random
import re

import pytest

from tests.stage.broker import DEAD_FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage

MB = 1 << 20
HEADER = b"ticket_id,owner\n"
GOOD_ROW = b"INC1,Otieno\n"
FAILING = {
    "a field without an end": (HEADER + b"INC2," + b"x" * (48 * MB), "line too long"),
    "a line of quotes": (HEADER + b"INC2," + b'"' * (48 * MB) + b"\n", "line too long"),
    "a million columns": (b"ticket_id," + b"c," * 1_000_000 + b"\n", "too many columns"),
    "a gzip file": (gzip.compress(random.Random(1).randbytes(MB)), "no header"),
}
REJECTING = {
    "records of nothing but commas": HEADER + GOOD_ROW * 6 + (b"," * (15 * MB) + b"\n") * 2,
    "records of wide characters": HEADER + GOOD_ROW * 6 + (b"INC2," + "\U0001f600".encode() * (8 * MB) + b"\n") * 2,
    "as large as can be held": HEADER + GOOD_ROW * 6 + (b"INC2," + "\U0001f600".encode() * (2 * MB - 9) + b"\n") * 2,
}
EMPTY = HEADER + b"\n" * 1_000_000 + GOOD_ROW
KEYS = {name: key_at(number) for number, name in enumerate((*FAILING, *REJECTING, "empty"))}
LIMIT_MB = 200


@pytest.fixture(scope="module")
def played(shared_stage: Stage) -> tuple[Stage, float]:
    """All at once, four of them in hand at a time; gives the most memory that the consumer has had."""
    stage, last = shared_stage, key_at(100)
    bodies = {name: body for name, (body, _) in FAILING.items()} | REJECTING | {"empty": EMPTY}
    stage.bucket.put_all({KEYS[name]: body for name, body in bodies.items()} | {last: csv([ticket("LAST")])})
    stage.executes = True  # a fork of the tests has their memory as well
    consumer = stage.start("consume")
    stage.announce(*KEYS.values(), last)
    stage.wait_for("done", last, KEYS["empty"], *(KEYS[name] for name in REJECTING), timeout=120)
    stage.wait_for("failed", *(KEYS[name] for name in FAILING), timeout=120)
    memory = consumer.most_memory
    consumer.stop()
    return stage, memory / MB


@pytest.mark.promise("Bounded")
def test_the_consumer_stays_small(played: tuple[Stage, float]) -> None:
    assert played[1] < LIMIT_MB


@pytest.mark.parametrize("name", FAILING)
def test_what_is_no_table_of_tickets_is_a_dead_letter_with_the_reason(played: tuple[Stage, float], name: str) -> None:
    row = played[0].ledger(KEYS[name])
    assert (row["decision"], row["reason"]) == ("rejected", FAILING[name][1])
    letters = [one for one in played[0].broker.messages(DEAD_FILES) if one.headers["fleettickets-key"] == KEYS[name]]
    assert [one.headers["fleettickets-reason"] for one in letters] == [FAILING[name][1]]


@pytest.mark.parametrize("name", REJECTING)
def test_what_is_a_row_too_large_is_a_reject_and_its_file_is_applied(played: tuple[Stage, float], name: str) -> None:
    row = played[0].ledger(KEYS[name])
    assert (row["rows_read"], row["rows_rejected"]) == (8, 2)
    rejects = played[0].query("SELECT line, reason, raw FROM ingest.rejects WHERE file_id = %s", row["file_id"])
    assert {reject["line"] for reject in rejects} == {8, 9}
    assert all(re.search(r"more than [\d,]+", reject["reason"]) for reject in rejects), rejects[0]["reason"]
    assert all(len(reject["raw"]) <= 10_000 for reject in rejects)


def test_empty_lines_are_nothing(played: tuple[Stage, float]) -> None:
    assert played[0].ledger(KEYS["empty"])["rows_read"] == 1

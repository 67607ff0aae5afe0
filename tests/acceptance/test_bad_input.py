"""Everything that can be wrong with a file or a message, all at once, with good files between them."""

import gzip
import json
from dataclasses import dataclass

import pytest

from tests.stage.broker import DEAD_FILES, FILES, Message
from tests.stage.feeds import csv, key_at, lines, ticket
from tests.stage.stage import Stage
from tests.stage.store import CHANGES, PROCESSED

BAD_ROW = ticket("BAD", mttr="soon")
COLUMNS = tuple(BAD_ROW)
FAILING = {
    "not UTF-8": csv([ticket(f"NOT-UTF-8-{number}", owner="Wanjik?") for number in range(12)]).replace(b"?", b"\xfb"),
    "a header that is not UTF-8": b"ticket_id,num\xe9ro\nNOT-UTF-8,1\n",
    "empty file": b"",
    "no ticket_id column": lines([("number", "owner"), ("NO-TICKET-ID", "Otieno")]),
    "a quote in the header that never closes": b'ticket_id,"owner\nUNTERMINATED,x\n',
    "more than half the rows bad": csv([*[ticket("HALF-BAD")] * 4, *[BAD_ROW] * 6], COLUMNS),
    "gzip, cut off": gzip.compress(csv([ticket("CUT-OFF")] * 50), mtime=0)[:-9],
    "an Excel workbook": b"PK\x03\x04\x14\x00",
    "glued to another export": csv([ticket("GLUED")])[:-1] + b"owner,ticket_id,raw_status\nOtieno,GLUED-2,New\n",
}
GOOD_ROW = ticket("BESIDE")
REJECTING = {
    "NUL in a row": csv([GOOD_ROW, ticket("BAD", cluster="nul\x00byte")]),
    "too many fields": csv([GOOD_ROW]) + lines([ticket("BAD").values()])[:-1] + b",more" * 20 + b"\n",
    "10 MB in one field": csv([GOOD_ROW, ticket("BAD", cluster="x" * 10_000_000)]),
    "unknown timestamp": csv([GOOD_ROW, ticket("BAD", closed_at="the day after")]),
    "impossible date": csv([GOOD_ROW, ticket("BAD", closed_at="2026-02-30 10:00")]),
    "boolean that is none": csv([GOOD_ROW, ticket("BAD", is_actionable="maybe")]),
    "number that is none": csv([GOOD_ROW, BAD_ROW]),
    "no ticket_id in a row": csv([GOOD_ROW, ticket("")]),
    "a byte that is no UTF-8": csv([GOOD_ROW, ticket("BAD", owner="Wanjik?")]).replace(b"?", b"\xfb"),
    "a quote that never closes": csv([GOOD_ROW]) + b'BAD,"cut off he',
    "an id that a spreadsheet rewrote": csv([GOOD_ROW, ticket("1.23E+11")]),
}
NOT_BY_GRAMMAR = ("notes.csv", "2026-06-25T142000.txt", "2026-13-45T142000.csv")
GOOD = {key_at(minutes): csv([ticket(f"GOOD-{minutes}")]) for minutes in (0, 45, 90)}
HEADER_ONLY = key_at(60)
KEYS = {name: key_at(number + 1) for number, name in enumerate((*FAILING, *REJECTING))}
FILES_PUT = {
    **GOOD,
    HEADER_ONLY: csv([]),
    **{KEYS[name]: body for name, body in (FAILING | REJECTING).items()},
    **{CHANGES + name: b"what is this" for name in NOT_BY_GRAMMAR},
}


@dataclass
class Outcome:
    stage: Stage
    dead_at_first: list[Message]
    dead: list[Message]
    events_counted: dict[str, int]

    def dead_letters(self, key: str) -> list[Message]:
        return [message for message in self.dead if message.headers.get("fleettickets-key") == key]


@pytest.fixture(scope="module")
def outcome(shared_stage: Stage) -> Outcome:
    """All of it delivered by notification and by two polls, and the consumer ended by SIGTERM."""
    stage = shared_stage
    event = json.loads(stage.bucket.event(key_at(0)))
    event["Records"][0]["s3"]["bucket"]["name"] = "another-bucket"
    consumer = stage.start("consume")
    stage.bucket.put_all(FILES_PUT)
    stage.broker.publish(
        [
            b"this is no JSON",
            json.dumps(event).encode(),
            stage.bucket.event(key_at(0), name="ObjectRemoved:Delete"),
            stage.bucket.event(f"{PROCESSED}2026-06-25T142000.csv", name="ObjectCreated:Copy"),
            json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": stage.bucket.name}).encode(),
        ]
    )
    stage.announce(*FILES_PUT)
    assert stage.run("poll").returncode == 0
    stage.wait_for("done", *GOOD, HEADER_ONLY, *(KEYS[name] for name in REJECTING))
    stage.wait_for("failed", *(KEYS[name] for name in FAILING))
    dead_at_first = stage.broker.messages(DEAD_FILES)
    assert stage.run("poll").returncode == 0
    last = key_at(1000)
    stage.bucket.put(last, csv([ticket("LAST")]))
    stage.announce(last)
    stage.wait_for("done", last)
    consumer.stop()
    counted = stage.query("SELECT reason, events FROM ingest.ignored_events")
    return Outcome(
        stage,
        dead_at_first,
        stage.broker.messages(DEAD_FILES),
        {row["reason"]: row["events"] for row in counted},
    )


@pytest.mark.promise("One transaction", "No silent decision")
@pytest.mark.parametrize("name", FAILING)
def test_a_file_fails_whole(outcome: Outcome, name: str) -> None:
    key = KEYS[name]
    row = outcome.stage.ledger(key)
    assert (row["state"], row["decision"]) == ("failed", "rejected")
    assert row["reason"]
    assert row["last_error"]
    assert row["applied_at"] is None
    (message,) = outcome.dead_letters(key)
    assert message.headers["fleettickets-reason"] == row["reason"]
    assert message.headers["fleettickets-error"]
    assert outcome.stage.bucket.read(key) == FAILING[name]
    assert outcome.stage.query("SELECT * FROM ingest.positions WHERE file_id = %s", row["file_id"]) == []


@pytest.mark.promise("One transaction")
def test_nothing_of_the_failed_files_is_in_the_tables(outcome: Outcome) -> None:
    rows = outcome.stage.query("SELECT ticket_id FROM tickets.inc")
    assert {row["ticket_id"] for row in rows} == {"BESIDE", "LAST", *(f"GOOD-{minutes}" for minutes in (0, 45, 90))}


@pytest.mark.promise("One bad thing stays one bad thing", "No silent decision")
@pytest.mark.parametrize("name", REJECTING)
def test_a_row_is_rejected_and_its_file_applied(outcome: Outcome, name: str) -> None:
    row = outcome.stage.ledger(KEYS[name])
    assert (row["state"], row["rows_read"], row["rows_rejected"]) == ("done", 2, 1)
    assert row["rows_inserted"] + row["rows_updated"] + row["rows_unchanged"] + row["rows_stale"] == 1
    (reject,) = outcome.stage.query("SELECT * FROM ingest.rejects WHERE file_id = %s", row["file_id"])
    assert reject["line"] == 3
    assert reject["reason"]
    assert len(reject["raw"]) <= 10_000
    assert outcome.stage.bucket.read(row["archive_key"]) == REJECTING[name]


def test_a_file_with_a_header_only_is_applied_and_archived(outcome: Outcome) -> None:
    row = outcome.stage.ledger(HEADER_ONLY)
    assert (row["state"], row["rows_read"], row["rows_rejected"]) == ("done", 0, 0)
    assert outcome.stage.bucket.read(row["archive_key"]) == FILES_PUT[HEADER_ONLY]


@pytest.mark.promise("No silent decision")
@pytest.mark.parametrize("name", NOT_BY_GRAMMAR)
def test_a_key_outside_the_grammar_is_ignored_with_a_reason_and_left_in_place(outcome: Outcome, name: str) -> None:
    row = outcome.stage.ledger(CHANGES + name)
    assert row["decision"] == "ignored"
    assert row["reason"]
    assert outcome.stage.bucket.read(CHANGES + name) == b"what is this"
    assert outcome.dead_letters(CHANGES + name) == []


@pytest.mark.promise("No silent decision")
def test_a_body_that_is_no_event_is_a_dead_letter_with_a_reason(outcome: Outcome) -> None:
    (message,) = [message for message in outcome.dead if message.body == b"this is no JSON"]
    assert message.headers["fleettickets-reason"]


@pytest.mark.promise("No silent decision")
def test_events_that_are_none_of_ours_are_acknowledged_and_counted(outcome: Outcome) -> None:
    assert sum(outcome.events_counted.values()) == 4
    assert len(outcome.events_counted) >= 3, outcome.events_counted


@pytest.mark.promise("One bad thing stays one bad thing")
def test_the_queue_went_on_and_polling_again_added_no_dead_letter(outcome: Outcome) -> None:
    stage = outcome.stage
    assert len(outcome.dead_at_first) == len(outcome.dead) == len(FAILING) + 1
    assert sorted(stage.waiting()) == sorted(
        [*(KEYS[name] for name in FAILING), *(CHANGES + name for name in NOT_BY_GRAMMAR)]
    )
    assert stage.broker.ready(FILES) == 0
    assert stage.ledger(HEADER_ONLY)["archive_key"] == HEADER_ONLY.replace(CHANGES, PROCESSED)

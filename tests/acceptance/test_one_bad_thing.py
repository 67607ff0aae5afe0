"""Promise 7: more bad things than a consumer has threads do not keep it from the next good one."""

import json
import signal
import time

import pytest

from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

MANY = 10  # more than the files that a consumer has in hand, and than it fetches ahead


def without_version(event: bytes) -> bytes:
    """The event as a store sends it that says neither when nor which version."""
    body = json.loads(event)
    (record,) = body["Records"]
    del record["eventTime"], record["s3"]["object"]["eTag"]
    return json.dumps(body).encode()


@pytest.mark.promise("One bad thing stays one bad thing")
def test_objects_that_the_store_refuses_hold_up_no_other(stage: Stage) -> None:
    refused, good = [key_at(number) for number in range(MANY)], key_at(100)
    stage.bucket.put_all({key: csv([ticket(f"R{place}")]) for place, key in enumerate(refused)})
    stage.bucket.put(good, csv([ticket("GOOD")]))
    stage.bucket.deny("s3:GetObject", *refused)
    consumer = stage.start("consume")
    time.sleep(1 - time.time() % 1)  # the deliveries come in a later second than the objects
    stage.broker.publish(without_version(stage.bucket.event(key)) for key in [*refused, good])
    stage.wait_for("done", good)
    stage.wait_for("failed", *refused)
    row = stage.ledger(refused[0])
    assert refused[0] in row["last_error"]
    assert row["retry_at"] is not None
    stage.bucket.allow_all()
    stage.wait_for("done", *refused)
    consumer.stop()
    found = stage.ask("status")["database"]
    assert (found["unfinished_files"], found["last_error"]) == ({}, None), "whichever version it was that was refused"


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_file_that_somebody_has_in_hand_is_soon_tried_again_and_then_left_alone_for_longer(stage: Stage) -> None:
    had, good = key_at(1), key_at(2)
    stage.bucket.put_all({had: csv([ticket("HAD")]), good: csv([ticket("GOOD")])})
    consumer = stage.start("consume")
    with stage.another_has(had):
        stage.announce(had, good)
        stage.wait_for("done", good)
        wait_until(lambda: consumer.output().count('"event": "not now"') == 2, "it has come twice")
    consumer.stop()
    told = [json.loads(line) for line in consumer.output().splitlines() if '"event": "not now"' in line]
    assert [line["retry_in_s"] for line in told] == [5, 30]
    assert stage.query("SELECT key FROM ingest.ledger WHERE attempts > 0 OR state = 'failed'") == []


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_file_that_was_applied_stays_so_when_the_store_refuses_it_afterwards(stage: Stage) -> None:
    """Its rows are in: it did not fail, and must not be applied once more when it can be read again."""
    key, body = key_at(1), csv([ticket("IN")])
    stage.die_at("after commit, before archive", key, body)
    stage.bucket.deny("s3:GetObject", key)
    assert stage.run("drain", "--apply").returncode == 1
    consumer = stage.start("consume")
    wait_until(lambda: '"event": "file"' in consumer.output(), "the consumer has decided")
    wait_until(lambda: stage.broker.ready(FILES) == 0, "the delivery is settled")
    row = stage.ledger(key)
    assert (row["state"], row["decision"], row["attempts"]) == ("applied", "new", 0)
    assert stage.broker.ready(DEAD_FILES) == 0
    stage.bucket.allow_all()
    stage.announce(key)
    stage.wait_for("done", key)
    consumer.stop()
    assert stage.ledger(key)["applied_at"] == row["applied_at"]


@pytest.mark.promise("One bad thing stays one bad thing")
def test_messages_with_senseless_headers_become_dead_letters(stage: Stage) -> None:
    good = key_at(1)
    stage.bucket.put(good, csv([ticket("GOOD")]))
    senseless = ["abc", -7, {"deep": 1}, 10**12, None, b"\xff", True, "", [1], "-1"]
    with stage.broker.channel() as channel:
        for value in senseless:
            stage.broker.publish_with(channel, b"not json", {"fleettickets-attempts": value})
    stage.announce(good)
    consumer = stage.start("consume")
    stage.wait_for("done", good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == len(senseless), "all are dead letters")
    assert {letter["reason"] for letter in stage.ask("dead-letters", "list", "--each")} == {"not an event"}
    consumer.stop()


@pytest.mark.promise("Nothing lost")
def test_killed_between_the_letter_of_a_body_and_its_ack_there_are_two_letters_and_never_none(stage: Stage) -> None:
    stage.broker.publish([b"not json"])
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="sent on, before ack")
    assert doomed.wait() == -signal.SIGKILL, doomed.output()
    consumer = stage.start("consume")
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 2, "the letter is there, and once more")
    consumer.stop()


def test_an_exchange_that_somebody_deleted_is_declared_again(stage: Stage) -> None:
    bad, good = key_at(1), key_at(2)
    consumer = stage.start("consume")
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    with stage.broker.channel() as channel:
        channel.exchange_delete("fleettickets.dead")
    stage.bucket.put_all({bad: b"ticket_id,M\xfc\nINC1,x\n", good: csv([ticket("GOOD")])})
    stage.announce(bad, good)
    stage.wait_for("done", good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the bad file is a dead letter")
    consumer.stop()


@pytest.mark.promise("One bad thing stays one bad thing")
def test_restarts_while_the_store_is_away_do_not_fill_the_dead_letters(stage: Stage) -> None:
    keys = [key_at(number) for number in range(3)]
    stage.bucket.put_all({key: csv([ticket("T")]) for key in keys})
    stage.broker.publish(stage.bucket.event(key, b"") for key in keys)
    for _ in range(3):
        consumer = stage.start("consume", RUSTFS_ENDPOINT="http://127.0.0.1:1")
        wait_until(lambda consumer=consumer: "waiting" in consumer.output(), "a file is in hand")  # type: ignore[misc]
        consumer.terminate()
        assert consumer.wait() in {0, -signal.SIGTERM}
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.query("SELECT * FROM ingest.ledger") == []
    healthy = stage.start("consume")
    stage.wait_for("done", *keys)
    healthy.stop()


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_broken_record_of_a_body_is_a_dead_letter_and_the_others_are_applied(stage: Stage) -> None:
    good = [key_at(1), key_at(2)]
    stage.bucket.put_all({key: csv([ticket(key)]) for key in good})
    (first,), (second,) = (json.loads(stage.bucket.event(key))["Records"] for key in good)
    # A time that Postgres would keep and nobody could read again.
    first["eventTime"] = "0001-01-01T00:00:00+14:00"
    stage.broker.publish([json.dumps({"Records": [first, {"broken": 1}, second]}).encode()])
    consumer = stage.start("consume")
    stage.wait_for("done", *good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the body is a dead letter")
    consumer.stop()
    (letter,) = stage.ask("dead-letters", "list", "--each")
    assert letter["reason"] == "not an event"
    assert [stage.ask("explain", key)["faults"] for key in good] == [{}, {}]

"""What whoever may publish to the events' exchange can do: announce keys, make dead letters, and stop nobody."""

import json
from typing import Any

from publisher.arrivals.store_events import MAX_BYTES
from tests.acceptance.test_broker_faults import full
from tests.stage.broker import DEAD_FILES, EVENTS, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

AGAIN = "fleettickets-again"
MB = 1024 * 1024


def put_good(stage: Stage, count: int) -> list[str]:
    keys = [key_at(1000 + number) for number in range(count)]
    stage.bucket.put_all({key: csv([ticket(key)]) for key in keys})
    return keys


def own(stage: Stage, key: str, **spoilt: object) -> bytes:
    """An event as the poller writes it, with something else in it."""
    event = {"type": "ChangeFileArrived", "bucket": stage.bucket.name, "keys": [key], "seen_by": "poller", "size": 3}
    return json.dumps(event | spoilt).encode()


def test_twenty_own_events_that_no_poller_wrote_stop_nothing(stage: Stage) -> None:
    spoilt: list[dict[str, Any]] = [
        {"size": 1e30},
        {"size": 2**63},
        {"event_time": "0001-01-01T00:00:00+14:00"},
        {"etag": "e" * 9000},
    ]
    keys = [key_at(number) for number in range(20)]
    stage.broker.publish(own(stage, key, **spoilt[number % len(spoilt)]) for number, key in enumerate(keys))
    good = put_good(stage, 10)
    stage.announce(*good)
    consumer = stage.start("consume")
    stage.wait_for("done", *good, *keys)  # the others are missing, and known as that
    assert "everything fails" not in consumer.output()
    assert stage.ask("explain", keys[2])["faults"] == {}
    wait_until(lambda: stage.broker.ready(FILES) == 0, "all are settled")
    assert stage.broker.ready(DEAD_FILES) == 0
    consumer.stop()


def test_a_value_that_the_database_cannot_keep_is_the_messages_own_fault(stage: Stage) -> None:
    # Whatever value gets past the reading of events: a message is a dead letter, not one more sign of a broken schema.
    stage.connection.execute("ALTER TABLE ingest.ledger ALTER COLUMN size TYPE smallint")
    spoilt = [key_at(number) for number in range(25)]
    stage.broker.publish(own(stage, key, size=40_000) for key in spoilt)
    good = put_good(stage, 3)
    stage.announce(*good)
    consumer = stage.start("consume")
    stage.wait_for("done", *good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == len(spoilt), "all are dead letters")
    assert "everything fails" not in consumer.output()
    consumer.stop()


def test_messages_that_the_full_dead_letters_do_not_take_stop_no_file(stage: Stage) -> None:
    good = put_good(stage, 6)
    with full(stage.broker, DEAD_FILES):
        before = stage.broker.ready(DEAD_FILES)
        stage.broker.publish([b"not json"] * 8)
        stage.announce(*good)
        consumer = stage.start("consume")
        stage.wait_for("done", *good)
        assert "unsettled" in consumer.output()
    wait_until(lambda: stage.broker.ready(DEAD_FILES) >= before + 8, "all are dead letters")
    consumer.stop()


def test_a_strangers_header_neither_releases_a_quarantined_file_nor_repeats_a_dead_one(stage: Stage) -> None:
    stage.environment["FLEETTICKETS_CHANGED_POLICY"] = "quarantine"
    key, broken = key_at(1), key_at(2)
    stage.bucket.put(key, csv([ticket("FIRST")]))
    stage.bucket.put(broken, b"no ticket in it\nx\n")
    stage.announce(key, broken)
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    stage.wait_for("failed", broken)
    stage.bucket.put(key, csv([ticket("SECOND")]))
    stage.announce(key)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 2, "the changed file is quarantined")
    # By an exchange of the server's own, too, to which strangers may be bound.
    with stage.broker.channel() as channel:
        channel.queue_bind(FILES, "amq.topic", "stranger")
        for again in ("replay", "retry", "retry", "retry"):
            for target in (key, broken):
                body = stage.bucket.event(target, stage.bucket.read(target))
                stage.broker.publish_with(channel, body, {AGAIN: again})
                stage.broker.publish_to(channel, "amq.topic", "stranger", body, {AGAIN: again})
        channel.queue_unbind(FILES, "amq.topic", "stranger")
    versions = "SELECT coalesce(sum(duplicates), 0) FROM ingest.ledger WHERE key = ANY(%s) AND state = 'failed'"
    wait_until(lambda: stage.one(versions, [key, broken]) == 16, "each is a duplicate")
    assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = 'SECOND'") == 0
    assert stage.broker.ready(DEAD_FILES) == 2
    # A person's replay still does it.
    stage.ask("dead-letters", "replay", "--wait", "0", "--key", key)
    wait_until(lambda: stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = 'SECOND'") == 1, "it is released")
    consumer.stop()


def test_bodies_of_many_records_cost_a_transaction_each_at_most(stage: Stage) -> None:
    good = put_good(stage, 1)
    stranger = {"eventName": "s3:ObjectRemoved:of a stranger", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}
    removed = stranger | {"eventName": "s3:ObjectRemoved:Delete"}
    mixed = [stranger | {"eventName": f"ObjectRemoved:{number}"} for number in range(500)] + [removed] * 500
    stage.broker.publish([json.dumps({"Records": mixed}).encode()] * 4)
    stage.announce(*good)
    consumer = stage.start("consume")
    stage.wait_for("done", *good)
    wait_until(lambda: stage.broker.ready(FILES) == 0, "all are settled")
    consumer.stop()
    counted = stage.query("SELECT reason, events FROM ingest.ignored_events ORDER BY reason")
    assert [(row["reason"], row["events"]) for row in counted] == [
        ("ObjectRemoved:Delete", 2000),
        ("another event", 2000),
    ]


def test_bodies_larger_than_any_event_fill_neither_the_memory_nor_the_dead_letters(stage: Stage) -> None:
    good = put_good(stage, 4)
    # Not more than RabbitMQ takes from 4.0 on. They are as many as a consumer has in hand.
    sizes = [(16 * MB) - number for number in range(8)]
    with stage.broker.channel() as channel:
        for size in sizes:
            stage.broker.publish_to(channel, EVENTS, "store", b"x" * size, {})
    stage.announce(*good)
    consumer = stage.start("consume")
    stage.wait_for("done", *good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == len(sizes), "each is a dead letter")
    peak = consumer.most_memory
    said = [line for line in map(json.loads, consumer.output().splitlines()) if line["event"] == "body cut"]
    consumer.stop()
    assert sorted(line["bytes"] for line in said) == sorted(sizes)
    letters = stage.broker.messages(DEAD_FILES)
    assert {len(letter.body) for letter in letters} == {MAX_BYTES + 1}
    assert {letter.headers["fleettickets-error"] for letter in letters} == {"the body is larger than 1,000,000 bytes"}
    assert peak < 200 * MB

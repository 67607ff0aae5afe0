"""Header tables of strangers, through a real broker: one bad message costs one message, and steers nothing."""

import random
import struct
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import pika
import pika.data
import pika.spec
import pytest
from pika.exceptions import AMQPError

from publisher.broker import channels, header_tables
from publisher.settings import BrokerSettings
from tests.doubles.header_tables import ODD, RawProperties, entry, of, random_table, timestamp
from tests.stage.broker import DEAD, DEAD_FILES, EVENTS, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

HUGE = 130_900
"""A header of this length fits into a frame, as RabbitMQ has it, and nothing fits beside it."""


def odd_tables() -> list[bytes]:
    ours = [b"fleettickets-attempts", b"fleettickets-history", b"fleettickets-again", b"traceparent", b"tracestate"]
    names = [*ours, b"x-death", b"\xff\x00", b""]
    return [entry(names[number % len(names)], value) for number, value in enumerate(ODD.values())]


def hostile_tables(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    return [*odd_tables(), *(random_table(rng) for _ in range(count))]


def publish(stage: Stage, exchange: str, tables: Iterable[bytes], body: bytes = b"not json") -> int:
    """Publish a message with each table that the broker takes at all; gives how many those are."""
    taken = 0
    for table in tables:
        try:
            with stage.broker.channel() as channel:
                channel.basic_publish(exchange, "files", body, RawProperties(table), mandatory=True)
        except AMQPError:
            continue
        taken += 1
    return taken


def test_no_header_table_costs_more_than_its_message(stage: Stage) -> None:
    good = [key_at(number) for number in range(5)]
    stage.bucket.put_all({key: csv([ticket(key)]) for key in good})
    taken = publish(stage, EVENTS, [*hostile_tables(1, 120), entry(b"fleettickets-history", of("S", b"h" * HUGE))])
    assert taken > 60
    stage.announce(*good)
    consumer = stage.start("consume")
    stage.wait_for("done", *good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == taken, "each is a dead letter")
    assert consumer.output().count('"consuming"') == 1, "it kept its connection"
    consumer.stop()
    # What they said of themselves is nowhere in what became of them.
    letters = stage.ask("dead-letters", "list", "--each")
    assert {(letter["reason"], letter["attempts"]) for letter in letters} == {("not an event", 1)}
    assert stage.run("verify").returncode == 0


def test_no_dead_letter_keeps_the_others_from_being_seen(stage: Stage) -> None:
    good = key_at(0)
    with stage.broker.channel() as channel:
        headers = {"fleettickets-key": good, "fleettickets-reason": "a reason"}
        stage.broker.publish_to(channel, DEAD, "files", stage.bucket.event(good, b""), headers)
    # The history alone, and one that leaves no room for another line.
    huge = [
        entry(b"fleettickets-history", of("S", b"h" * HUGE)),
        entry(b"fleettickets-history", of("A", of("S", b"h" * (HUGE - 10)))),
        entry(b"fleettickets-dead-at", of("S", b"0001-01-01T00:00:00+14:00")),
        entry(b"fleettickets-attempts", b"l" + struct.pack(">q", 2**63 - 1)),
    ]
    taken = publish(stage, DEAD, [*hostile_tables(2, 60), *huge], b'{"Records": []}') + 1
    letters = stage.ask("dead-letters", "list", "--each")
    assert len(letters) == taken
    assert sum(group["letters"] for group in stage.ask("dead-letters", "list")) == taken
    for letter in letters[:: max(1, len(letters) // 10)]:
        assert stage.ask("dead-letters", "show", letter["id"])["body"]
    assert stage.run("verify", "--json").returncode in {0, 1}
    assert len(stage.ask("dead-letters", "discard", "--limit", "20", "--reason", "tests")["discarded"]) == 20
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--all")["replayed"]) == taken - 20
    assert (stage.broker.ready(FILES), stage.broker.ready(DEAD_FILES)) == (taken - 20, 0)


@pytest.mark.parametrize("attempts", [2**63 - 1, True])
def test_eight_messages_that_count_for_themselves_stop_no_consumer(stage: Stage, attempts: int) -> None:
    good = key_at(0)
    stage.bucket.put(good, csv([ticket("GOOD")]))
    with stage.broker.channel() as channel:
        for _ in range(8):
            stage.broker.publish_with(channel, b"not json", {"fleettickets-attempts": attempts})
    stage.announce(good)
    consumer = stage.start("consume")
    stage.wait_for("done", good)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 8, "all are dead letters")
    consumer.stop()


@pytest.mark.parametrize("name", ODD)
def test_pika_reads_headers_the_way_it_is_told_to(name: str) -> None:
    """Its own reading ends the connection for some of these; whoever changes how it is told has to see this fail."""
    channels.parameters(BrokerSettings.model_validate({"RABBITMQ_URL": "amqp://127.0.0.1/"}), "test")
    encoded = b"".join(RawProperties(entry(b"first", b"t\x01") + entry(b"odd", ODD[name])).encode())
    read = pika.spec.BasicProperties().decode(encoded)
    assert read.headers is not None
    assert read.headers["first"] is True
    assert "odd" in read.headers
    assert read.delivery_mode == 2


def test_what_pika_writes_is_read_as_it_was() -> None:
    written: dict[str, Any] = {"a": 1, "b": "text", "c": [1, {"d": None}], "e": True, "f": -(2**40), "g": b"\x00"}
    pieces: list[bytes] = []
    pika.data.encode_table(pieces, written)
    encoded = b"".join(pieces)
    assert header_tables.decode_table(encoded + b"more", 0) == (written, len(encoded))


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_table_that_breaks_off_is_read_up_to_there(cut: int) -> None:
    table = b"".join(entry(name, timestamp(5)) for name in (b"first", b"second", b"third"))
    encoded = struct.pack(">I", len(table)) + table
    read, end = header_tables.decode_table(encoded[:cut], 0)
    assert list(read) == ["first", "second", "third"][: len(read)]
    assert end <= len(encoded)


def test_a_message_that_dies_in_the_broker_tells_nothing_of_itself_but_its_body(stage: Stage) -> None:
    quarantined, other = key_at(1), key_at(2)
    stage.environment["FLEETTICKETS_CHANGED_POLICY"] = "quarantine"
    consumer = stage.start("consume")
    for owner in ("FIRST", "SECOND"):
        stage.bucket.put(quarantined, csv([ticket(owner)]))
        stage.announce(quarantined)
        stage.wait_for("done" if owner == "FIRST" else "failed", quarantined)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the changed file is quarantined")
    consumer.stop()
    (own,) = stage.ask("dead-letters", "list", "--each")
    body = stage.bucket.event(quarantined, csv([ticket("SECOND")]))
    count = 20
    with stage.broker.channel() as channel:
        for number in range(count):
            forged: dict[str, Any] = {
                "fleettickets-key": other,
                "fleettickets-reason": f"reason {number}",
                "fleettickets-error": "harmless",
                "fleettickets-fingerprint": own["group"] if number % 2 else f"{number:08}",
                "fleettickets-dead-at": "2020-01-01T00:00:00+00:00",
                "fleettickets-attempts": 999,
                "fleettickets-history": ["a forged line"],
                "fleettickets-etag": "forged",
                "x-death": [{"reason": f"forged {number}", "queue": FILES, "exchange": EVENTS, "count": number}],
            }
            properties = pika.BasicProperties(delivery_mode=2, expiration="1", headers=forged)
            channel.basic_publish(EVENTS, "store", body, properties, mandatory=True)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1 + count, "all have expired")
    letters = [letter for letter in stage.ask("dead-letters", "list", "--each") if letter["id"] != own["id"]]
    assert {(one["key"], one["reason"], one["attempts"]) for one in letters} == {(quarantined, "broker: expired", 1)}
    assert {one["error"] for one in letters} == {"the broker gave up on this message by itself"}
    assert "2020-01-01" not in str(letters)
    assert [group["letters"] for group in stage.ask("dead-letters", "list")] == [count, 1]
    assert stage.ask("dead-letters", "show", letters[0]["id"])["history"] == []
    assert stage.run("dead-letters", "replay", "--wait", "0", "--key", other).returncode == 1
    assert stage.broker.ready(FILES) == 0
    stage.ask("dead-letters", "discard", "--id", letters[0]["id"], "--reason", "forged")
    assert stage.one("SELECT key FROM ingest.discards") == quarantined


def test_what_is_shown_of_a_letter_has_bounds_whoever_wrote_it(stage: Stage) -> None:
    names = ("key", "reason", "error", "fingerprint")
    with stage.broker.channel() as channel:
        forged = {f"fleettickets-{name}": "\u00e9" * 5000 for name in names}
        stage.broker.publish_to(channel, DEAD, "files", b"not json", forged)
        # Cut where a character would be halved.
        stage.broker.publish_to(channel, DEAD, "files", b"no json", {"fleettickets-key": "k" + "\u00e9" * 5000})
    whole, halved = sorted(stage.ask("dead-letters", "list", "--each"), key=itemgetter("key"), reverse=True)
    assert whole["key"] == "\u00e9" * 512
    assert (len(whole["reason"]), len(whole["error"]), len(whole["group"])) == (200, 2000, 64)
    assert halved["key"] == "k" + "\u00e9" * 511

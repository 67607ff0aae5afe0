"""One id from the event to what follows on: in the log of each process, in each message, and in the ledger."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.doubles.collector import Collected, Collector
from tests.doubles.geocoder import KEY, LocationIQ
from tests.doubles.receiver import RIGHT, Receiver
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE, HISTORY
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until

STATE = "vendor=of-the-store"


def traceparent(number: int) -> str:
    return f"00-{number:032x}-00f067aa0ba902b7-01"


def trace_id(number: int) -> str:
    return f"{number:032x}"


def lines(process: Process) -> list[dict[str, Any]]:
    """What it has logged, as whoever reads it all."""
    return [json.loads(line) for line in process.output().splitlines()]


def about(process: Process, trace: str) -> list[str]:
    """The events of all lines that a search for the id finds."""
    return [json.loads(line)["event"] for line in process.output().splitlines() if trace in line]


def carried(stage: Stage, queue: str) -> list[dict[str, str]]:
    """What the messages that wait say of their traces."""
    headers = [message.headers for message in stage.broker.messages(queue)]
    return [{name: told[name] for name in ("traceparent", "tracestate") if name in told} for told in headers]


def announce(stage: Stage, key: str, headers: dict[str, str]) -> None:
    with stage.broker.channel() as channel:
        stage.broker.publish_with(channel, stage.bucket.event(key, stage.bucket.read(key)), headers)


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    with LocationIQ({"Westlands": (-1.2676, 36.8108)}, per_second=None, per_minute=None) as server:
        yield server


def test_one_search_finds_a_file_from_its_event_to_what_followed_on(stage: Stage, provider: LocationIQ) -> None:
    receiver = Receiver(stage, FLEETTICKETS_LOG_LEVEL="debug")
    receiver.wait()
    key, other = key_at(1), key_at(2)
    stage.bucket.put_all({name: csv([ticket(f"INC{number}")]) for number, name in enumerate((key, other))})
    for number, name in enumerate((key, other), 1):
        headers = {**RIGHT, "traceparent": traceparent(number), "tracestate": STATE}
        assert receiver.post(stage.bucket.event(name, stage.bucket.read(name)), headers).status_code == 200
        if number == 1:
            assert carried(stage, FILES) == [{"traceparent": traceparent(1), "tracestate": STATE}]
            files = stage.start("consume", "--queue", "files")
        stage.wait_for("done", name)
    files.stop()
    assert about(receiver.process, trace_id(1)) == ["handed on"]
    assert about(files, trace_id(1)) == ["file"]
    (line,) = [line for line in lines(files) if line.get("trace_id") == trace_id(1)]
    assert (line["key"], line["decision"], line["feed"]) == (key, "new", "inc")
    assert line["lag_s"] >= 0
    for queue in (GEOCODE, HISTORY):
        # With nobody who takes it, it stands for the other file as well.
        assert carried(stage, queue) == [{"traceparent": traceparent(1), "tracestate": STATE}]
    (version,) = stage.ask("explain", key)["versions"]
    assert version["trace_id"] == trace_id(1)
    assert trace_id(1) in stage.run("explain", key).stdout

    consumer = stage.start("consume", GEOCODER_API_KEY=KEY, GEOCODER_URL=provider.url)
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.outbox WHERE handled_at IS NULL") == 0, "all handled")
    consumer.stop()
    # What was for both files together, either id finds.
    for number in (1, 2):
        assert sorted(about(consumer, trace_id(number))) == ["geocode", "history"]


def test_a_header_that_is_none_is_no_mistake_of_the_store(stage: Stage) -> None:
    receiver = Receiver(stage)
    receiver.wait()
    for number, given in enumerate(("", "00-zz-zz-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", "x" * 3000)):
        body = json.dumps({"Records": [], "number": number}).encode()
        assert receiver.post(body, {**RIGHT, "traceparent": given, "tracestate": STATE}).status_code == 200
    found = carried(stage, FILES)
    assert [set(headers) for headers in found] == [{"traceparent"}] * 4
    assert len({headers["traceparent"] for headers in found}) == 4
    receiver.process.stop()


@pytest.mark.promise("Nothing lost")
def test_a_kill_behind_the_commit_loses_no_trace(stage: Stage) -> None:
    """Whether the event came with one or not: its redelivery is of the same trace, and so is what is sent then."""
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="after commit, before archive")
    key = key_at(1)
    stage.bucket.put(key, csv([ticket("INC1")]))
    announce(stage, key, {"traceparent": traceparent(7), "tracestate": STATE})
    assert doomed.wait() != 0
    assert stage.ledger(key)["trace"] == f"{traceparent(7)} {STATE}"
    assert stage.broker.ready(GEOCODE) == 0
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    assert carried(stage, GEOCODE) == [{"traceparent": traceparent(7), "tracestate": STATE}]
    wait_until(lambda: "history" in about(consumer, trace_id(7)), "the history of the file")
    assert "file" in about(consumer, trace_id(7))
    consumer.stop()

    stage.broker.purge(GEOCODE)
    second = key_at(2)
    stage.die_at("relay published, not marked", second, csv([ticket("INC2")]))
    trace = stage.ledger(second)["trace"].split("-")[1]
    consumer = stage.start("consume")
    stage.wait_for("done", second)
    wait_until(lambda: "file" in about(consumer, trace), "the redelivery is told of")
    assert {found["traceparent"].split("-")[1] for found in carried(stage, GEOCODE)} == {trace}
    consumer.stop()


def test_a_letter_and_its_replay_are_of_the_trace_of_the_event(stage: Stage) -> None:
    key = key_at(1)
    consumer = stage.start("consume")
    stage.bucket.put(key, b"number,owner\nINC1,Otieno\n")
    announce(stage, key, {"traceparent": traceparent(9)})
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the letter")
    assert carried(stage, DEAD_FILES) == [{"traceparent": traceparent(9)}]
    (listed,) = stage.ask("dead-letters", "list", "--each")
    assert stage.ask("dead-letters", "show", listed["id"])["trace_id"] == trace_id(9)
    stage.bucket.put(key, csv([ticket("INC1")]))
    assert stage.run("dead-letters", "replay", "--all").returncode == 0
    stage.wait_for("done", key)
    consumer.stop()
    assert about(consumer, trace_id(9))[:3] == ["tried again", "dead letter", "file"]
    assert stage.one("SELECT trace FROM ingest.ledger WHERE key = %s AND state = 'done'", key) == traceparent(9)


def test_a_file_that_is_mended_by_hand_keeps_the_trace_of_its_event(stage: Stage) -> None:
    key = key_at(1)
    consumer = stage.start("consume")
    stage.bucket.put(key, csv([ticket("INC1"), *(ticket(f"BAD{number}", mttr="soon") for number in range(12))]))
    announce(stage, key, {"traceparent": traceparent(4)})
    stage.wait_for("failed", key)
    consumer.stop()
    assert stage.ledger(key)["trace"] == traceparent(4)
    assert stage.run("drain", "--apply", FLEETTICKETS_MAX_REJECT_SHARE="1").returncode == 0
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    assert carried(stage, GEOCODE) == [{"traceparent": traceparent(4)}]
    consumer.stop()


def test_all_files_of_one_event_are_of_its_trace_and_a_poll_gives_each_its_own(stage: Stage) -> None:
    together, alone = [key_at(1), key_at(2)], [key_at(3), key_at(4)]
    stage.bucket.put_all({key: csv([ticket(f"INC{n}")]) for n, key in enumerate([*together, *alone])})
    consumer = stage.start("consume")
    records = [json.loads(stage.bucket.event(key, stage.bucket.read(key)))["Records"] for key in together]
    with stage.broker.channel() as channel:
        body = json.dumps({"Records": [record for each in records for record in each]}).encode()
        stage.broker.publish_with(channel, body, {"traceparent": traceparent(3)})
    stage.wait_for("done", *together)
    assert stage.run("poll").returncode == 0
    stage.wait_for("done", *alone)
    consumer.stop()
    found = [stage.ledger(key)["trace"].split("-")[1] for key in (*together, *alone)]
    assert found[:2] == [trace_id(3)] * 2
    assert len(set(found)) == 3
    told = {line["key"]: line["trace_id"] for line in lines(consumer) if line["event"] == "file" and "key" in line}
    assert told == dict(zip((*together, *alone), found, strict=True))


def test_a_collector_gets_the_way_of_a_file_as_one_trace(stage: Stage) -> None:
    """Of the webhook, the consumer and a poller, each of which is a service."""
    with Collector() as collector:
        stage.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        receiver = Receiver(stage)
        receiver.wait()
        consumer = stage.start("consume")
        key, polled = key_at(1), key_at(2)
        stage.bucket.put(key, csv([ticket("INC1")]))
        body = stage.bucket.event(key, stage.bucket.read(key))
        assert receiver.post(body, {**RIGHT, "traceparent": traceparent(5)}).status_code == 200
        stage.wait_for("done", key)
        stage.wait_for_history()
        stage.bucket.put(polled, csv([ticket("INC2")]))
        assert stage.run("poll").returncode == 0
        stage.wait_for("done", polled)
        consumer.stop()
        receiver.process.stop()

    def of(trace: str) -> dict[str, Collected]:
        return {f"{span.service} {span.name}": span for span in collector.spans if span.trace_id == trace}

    spans = of(trace_id(5))
    ours = "fleettickets-consumer"
    way = [
        "fleettickets-webhook POST /", "fleettickets-webhook send fleettickets.events",
        f"{ours} process fleettickets.files", f"{ours} send fleettickets", f"{ours} process fleettickets.history",
    ]  # fmt: skip
    stages = [f"{ours} {stage}" for stage in ("opened", "staged", "committed", "archived")]
    assert set(spans) == {*way, *stages}
    before = "00f067aa0ba902b7"
    for name in way:
        assert spans[name].parent == before, name
        before = spans[name].span_id
    assert {spans[name].parent for name in stages} == {spans[way[2]].span_id}
    told = spans[way[2]].attributes
    assert (told["fleettickets.key"], told["fleettickets.decision"]) == (key, "new")
    assert told["messaging.destination.name"] == FILES
    (trace,) = {span.trace_id for span in collector.named("send fleettickets.events")} - {trace_id(5)}
    assert of(trace)["fleettickets-poller send fleettickets.events"].parent == ""
    assert f"{ours} process fleettickets.files" in of(trace)


def test_a_collector_that_answers_nothing_holds_up_neither_files_nor_the_end(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        consumer = stage.start("consume", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="100")
        keys = [key_at(number) for number in range(5)]
        stage.bucket.put_all({key: csv([ticket("INC1")]) for key in keys})
        stage.announce(*keys)
        stage.wait_for("done", *keys)
        began = time.monotonic()
        consumer.stop()
        assert time.monotonic() - began < 20, "the library alone would wait for half a minute"
    assert "Traceback" not in consumer.output()

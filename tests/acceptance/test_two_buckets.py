"""One virtual host serves one bucket at a time: consumers of another would take its events for strangers', and ack."""

import signal
from collections.abc import Iterator

import pytest

from tests.stage.broker import FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import Bucket

OTHER_PREFIX = "automations/other/"


@pytest.fixture
def other(stage: Stage) -> Iterator[Bucket]:
    bucket = Bucket(stage.services, f"{stage.bucket.name}-other")
    yield bucket
    bucket.remove()


def consuming(stage: Stage, **environment: str) -> Process:
    consumer = stage.start("consume", **environment)
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    return consumer


def test_a_consumer_and_a_poller_of_another_bucket_are_told_whose_the_virtual_host_is(
    stage: Stage, other: Bucket
) -> None:
    key = key_at(1)
    other.put(key, csv([ticket("OTHER")]))
    consumer = consuming(stage)
    for command in ("consume",), ("poll",), ("poll", "--every", "1"):
        ended = stage.run(*command, RUSTFS_BUCKET=other.name)
        assert ended.returncode == 2, command
        assert f"serves bucket '{stage.bucket.name}', and 1 of its consumers run" in ended.stderr
    # Of its own bucket there may be any number, with whatever prefix.
    consuming(stage, FLEETTICKETS_FEEDS="crq").stop()
    assert stage.ask("poll")["waiting"] == 0
    consumer.stop()
    assert stage.query("SELECT * FROM ingest.ignored_events") == []
    assert other.keys(key) == [key]


def test_a_virtual_host_without_consumers_can_be_taken_over(stage: Stage, other: Bucket) -> None:
    key = key_at(1)
    other.put(key, csv([ticket("OTHER")]))
    consuming(stage).stop()
    cut_over = stage.start("consume", RUSTFS_BUCKET=other.name)
    wait_until(lambda: "consuming" in cut_over.output(), "the other one is there")
    stage.broker.publish([other.event(key, other.read(key))])
    stage.wait_for("done", key)
    assert f'"of_bucket": "{stage.bucket.name}", "for_bucket": "{other.name}"' in cut_over.output()
    cut_over.stop()


def test_the_claim_of_a_consumer_that_was_killed_ends_with_it(stage: Stage, other: Bucket) -> None:
    consumer = consuming(stage)
    consumer.kill()
    assert consumer.wait() == -signal.SIGKILL
    cut_over = consuming(stage, RUSTFS_BUCKET=other.name)
    assert consumers(stage, FILES) == 1
    cut_over.stop()


def test_who_finds_it_taken_over_after_a_loss_waits_and_says_so(stage: Stage, other: Bucket) -> None:
    consumer = consuming(stage)
    with stage.broker.channel() as channel:
        channel.queue_delete("fleettickets.bucket")
    cut_over = stage.start("consume", RUSTFS_BUCKET=other.name)
    # Whoever is first has it; the other one does not consume beside it.
    both = (consumer, cut_over)
    wait_until(lambda: any("serves bucket" in process.output() for process in both), "one of them is refused")
    wait_until(lambda: consumers(stage, FILES) == 1, "one is left")
    loser = consumer if "serves bucket" in consumer.output() else cut_over
    (winner,) = [process for process in both if process is not loser]
    winner.stop()
    if loser is consumer:
        wait_until(lambda: loser.output().count('"consuming"') == 2, "it goes on by itself")
        loser.stop()
    else:
        assert loser.wait() == 2


def consumers(stage: Stage, queue: str) -> int:
    with stage.broker.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).method.consumer_count)

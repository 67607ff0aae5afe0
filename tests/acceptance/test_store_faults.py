"""While the store is away, slow or lying, files wait: no attempt spent, no dead letter, and it goes on by itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

from consumer.demo.oracle import ChangeFile
from tests.doubles.faulty_store import FaultyStore
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import RandomFeed
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

FAULTS = (
    ("GET", CHANGES, 500),
    ("GET", CHANGES, 503),
    ("GET", CHANGES, "cut"),
    ("GET", CHANGES, "reset"),
    ("GET", CHANGES, "lost"),
    ("HEAD", PROCESSED, 503),
    ("PUT", PROCESSED, 503),
    ("PUT", PROCESSED, "lost"),
    ("DELETE", CHANGES, 503),
    ("DELETE", CHANGES, "lost"),
)


@dataclass
class Play:
    """One consumer behind a faulty store, for all tests of this file; it is never started again."""

    stage: Stage
    store: FaultyStore
    consumer: Process
    feed: RandomFeed
    unsent: list[ChangeFile]
    sent: list[ChangeFile] = field(default_factory=list)

    def next(self, count: int) -> list[str]:
        new, self.unsent = self.unsent[:count], self.unsent[count:]
        self.sent += new
        self.stage.bucket.put_all({file.key: file.body for file in new})
        return [file.key for file in new]

    def assert_as_if_nothing_had_happened(self) -> None:
        self.stage.wait_for("done", *(file.key for file in self.sent))
        # A key that was missing is done with, too; the object that came later is not before it is archived.
        wait_until(lambda: self.stage.waiting() == [], "every object is archived")
        wait_until(lambda: self.stage.one("SELECT count(*) FROM ingest.ledger WHERE state <> 'done'") == 0, "all done")
        wait_until(lambda: self.stage.broker.ready(FILES) == 0, "every delivery is settled")
        self.assert_nothing_spent()
        assert_equals_oracle(self.stage, self.sent)
        archived = {file.key.replace(CHANGES, PROCESSED): file.body for file in self.sent}
        assert self.stage.bucket.read_all(PROCESSED) == archived
        assert self.stage.waiting() == []

    def assert_nothing_spent(self) -> None:
        assert self.consumer.running
        assert self.stage.one("SELECT coalesce(sum(attempts), 0) FROM ingest.ledger") == 0
        assert self.stage.broker.ready(DEAD_FILES) == 0


def name_in_path(key: str) -> str:
    return quote(key.rpartition("/")[2])


@pytest.fixture(scope="module")
def play(shared_stage: Stage) -> Iterator[Play]:
    shared_stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    with FaultyStore(shared_stage.environment["RUSTFS_ENDPOINT"]) as store:
        consumer = shared_stage.start("consume", RUSTFS_ENDPOINT=store.url)
        feed = RandomFeed(seed=11, tickets=60)
        yield Play(shared_stage, store, consumer, feed, feed.files(100, rows=8))
        consumer.stop()


@pytest.mark.promise("Nothing lost", "One bad thing stays one bad thing")
@pytest.mark.parametrize(("method", "folder", "how"), FAULTS)
def test_files_wait_until_the_store_is_well(play: Play, method: str, folder: str, how: int | str) -> None:
    fault = play.store.fault(method, folder, how)
    said = play.consumer.output().count("waiting")
    keys = play.next(4)
    play.stage.announce(*keys)
    assert fault.met.wait(30)
    if how != "lost" or method == "GET":  # the archive looks again, and finds it done
        wait_until(lambda: play.consumer.output().count("waiting") > said, "the consumer says that it waits")
    play.assert_nothing_spent()
    play.store.heal()
    play.assert_as_if_nothing_had_happened()


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_slow_file_holds_up_no_other(play: Play) -> None:
    slow, *others = play.next(7)
    fault = play.store.fault("GET", name_in_path(slow), "slow")
    play.stage.announce(slow)
    assert fault.met.wait(30)
    play.stage.announce(*others)
    play.stage.wait_for("done", *others)
    assert play.stage.query("SELECT state FROM ingest.ledger WHERE key = %s", slow) == [{"state": "seen"}]
    play.store.heal()
    play.assert_as_if_nothing_had_happened()


@pytest.mark.promise("No silent decision", "Nothing lost")
def test_an_object_that_is_not_there_yet_comes_by_way_of_the_poller(play: Play) -> None:
    fault = play.store.fault("GET", CHANGES, 404)
    keys = play.next(3)
    play.stage.announce(*keys)
    assert fault.met.wait(30)
    missing = "SELECT count(*) FROM ingest.ledger WHERE decision = 'missing' AND key = ANY(%s)"
    wait_until(lambda: play.stage.one(missing, keys) == len(keys), "they are missing")
    play.store.heal()
    assert play.stage.run("poll").returncode == 0
    play.assert_as_if_nothing_had_happened()


@pytest.mark.promise("Nothing lost", "One bad thing stays one bad thing")
def test_a_store_that_lets_nothing_be_deleted_makes_no_dead_letters(play: Play) -> None:
    """Rows and requests go on; what cannot be archived stays where it is, is told of, and archived when it may be."""
    stage, keys = play.stage, play.next(12)
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteObject",
        "Resource": [f"arn:aws:s3:::{stage.bucket.name}/{CHANGES}*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    stage.bucket.s3.put_bucket_policy(Bucket=stage.bucket.name, Policy=policy)
    for _ in range(2):  # as often as a poller looks
        stage.announce(*keys)
        stage.wait_for("applied", *keys)
        wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
    stage.wait_for_history()
    unsent = "SELECT 1 FROM ingest.outbox WHERE sent_at IS NULL AND handled_at IS NULL"
    wait_until(lambda: not stage.query(unsent), "the requests are sent")
    play.assert_nothing_spent()
    assert "AccessDenied" in stage.ask("status")["database"]["last_error"]["last_error"]
    assert "unexpected" not in play.consumer.output()
    assert sorted(stage.waiting()) == sorted(keys)

    events = [stage.bucket.event(key, stage.bucket.read(key)) for key in keys]  # some may leave at once
    stage.bucket.s3.delete_bucket_policy(Bucket=stage.bucket.name)
    stage.broker.publish(events)
    play.assert_as_if_nothing_had_happened()
    assert stage.query("SELECT 1 FROM ingest.ledger WHERE last_error IS NOT NULL") == []


@pytest.mark.promise("One bad thing stays one bad thing")
@pytest.mark.faults
def test_a_body_that_stops_coming_is_given_up_and_read_anew(play: Play) -> None:
    with_fault = play.store.fault("GET", CHANGES, "slow")
    keys = play.next(1)
    play.stage.announce(*keys)
    assert with_fault.met.wait(30)
    wait_until(lambda: "timed out" in play.consumer.output(), "it gives the body up", timeout=40)
    play.store.heal()
    play.assert_as_if_nothing_had_happened()

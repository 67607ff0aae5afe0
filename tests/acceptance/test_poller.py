"""The poller finds what no event announced, at a cost of what waits, and never floods the queue."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.doubles.faulty_store import FaultyStore
from tests.doubles.proxy import Proxy
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED


def reports(poller: Process) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, poller.output().splitlines()) if line["event"] == "poll"]


def polls(poller: Process) -> int:
    return len(reports(poller))


def backlog(stage: Stage, count: int) -> list[str]:
    files = {key_at(number): csv([ticket(f"INC{number}")], ("ticket_id", "owner")) for number in range(count)}
    stage.bucket.put_all(files)
    return list(files)


def backlog_at(stage: Stage, number: int) -> list[str]:
    key = key_at(number)
    stage.bucket.put(key, csv([ticket(f"INC{number}")]))
    return [key]


@pytest.mark.promise("Bounded")
def test_polling_a_backlog_that_nobody_works_off_queues_each_file_once(stage: Stage) -> None:
    keys = backlog(stage, stage.bucket.page() + 50)
    lengths: list[int] = []
    poller = stage.start("poll", "--every", "0.5")

    def polled_often() -> bool:
        lengths.append(stage.broker.ready(FILES))
        return polls(poller) >= 5

    wait_until(polled_often, "five polls")
    poller.stop()
    assert max(lengths) <= len(keys)
    assert stage.broker.ready(FILES) == len(keys)


@pytest.mark.promise("Bounded")
def test_polling_beside_consumers_and_notifications_keeps_the_queue_within_the_backlog(stage: Stage) -> None:
    # With more in hand, all that is announced would be, and the poller could not know of it.
    stage.environment["FLEETTICKETS_FILES_IN_HAND"] = "1"
    keys = backlog(stage, 120)
    stage.announce(*keys[::2])
    # The management API lags by seconds: zero may be older than what an earlier test left, and that comes after it.
    if stage.broker.management is not None:
        wait_until(lambda: stage.broker.held(FILES) == len(keys[::2]), "the management API has caught up")
    lengths: list[int] = []
    workers = [stage.start("poll", "--every", "0.5"), *(stage.start("consume") for _ in range(2))]

    def worked_off() -> bool:
        lengths.extend((stage.broker.ready(FILES), stage.broker.held(FILES)))
        return bool(stage.one("SELECT count(*) = 120 FROM ingest.ledger WHERE state = 'done'"))

    wait_until(worked_off, "the backlog is worked off")
    for worker in workers:
        worker.stop()
    assert 0 < max(lengths) <= len(keys)
    assert polls(workers[0]) >= 2
    assert stage.waiting() == []
    assert stage.broker.ready(FILES) == 0
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.one("SELECT count(*) FROM tickets.inc") == len(keys)


@pytest.mark.promise("Bounded")
def test_a_poll_costs_what_waits_whatever_was_processed_before(stage: Stage) -> None:
    def requests_of_a_poll() -> list[str]:
        with Proxy(stage.environment["RUSTFS_ENDPOINT"]) as proxy:
            assert stage.run("poll", RUSTFS_ENDPOINT=proxy.url).returncode == 0
            return [request.split("?")[0] for request in proxy.http_requests]

    backlog(stage, 5)
    few_processed = requests_of_a_poll()
    more_than_a_page = stage.bucket.page() + 50
    stage.bucket.put_all({f"{PROCESSED}{number}.csv": b"done" for number in range(more_than_a_page)})
    assert requests_of_a_poll() == few_processed
    backlog(stage, more_than_a_page)
    assert len(requests_of_a_poll()) == len(few_processed) + 1


def test_for_cron_a_poll_is_one_line_and_its_end_tells(stage: Stage) -> None:
    stage.run("poll")  # which takes the virtual host over from the bucket of another test, and says so
    backlog(stage, 3)
    done = stage.run("poll")
    assert (done.returncode, done.stdout, done.stderr) == (0, "waiting 3, already queued 0, published 3\n", "")
    assert stage.ask("poll") == {"waiting": 3, "set_aside": 0, "queued": 3, "published": 0}
    gone = stage.run("poll", RUSTFS_BUCKET="no-such-bucket")
    assert (gone.returncode, gone.stdout, len(gone.stderr.splitlines())) == (2, "", 1)
    with Proxy(stage.environment["RUSTFS_ENDPOINT"]) as proxy:
        proxy.refuse()
        away = stage.run("poll", RUSTFS_ENDPOINT=proxy.url)
    assert (away.returncode, away.stdout, len(away.stderr.splitlines())) == (1, "", 1)
    assert stage.broker.ready(FILES) == 3


@pytest.fixture
def slow_listing(stage: Stage) -> Iterator[FaultyStore]:
    """A store that takes seconds for each of the four requests that a listing needs."""
    backlog(stage, 3 * stage.bucket.page() + 50)
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        yield store


def test_a_listing_that_takes_longer_than_the_heartbeats_allow_is_published(
    stage: Stage, slow_listing: FaultyStore
) -> None:
    slow_listing.fault("GET", "max-keys=1000", "delayed", 3.5)
    broker = f"{stage.environment['RABBITMQ_URL']}?heartbeat=3"
    ended = stage.run("poll", RUSTFS_ENDPOINT=slow_listing.url, RABBITMQ_URL=broker)
    assert ended.returncode == 0, ended.stderr
    assert stage.broker.ready(FILES) == 3 * stage.bucket.page() + 50


def test_a_signal_ends_a_loop_that_lists_slowly(stage: Stage, slow_listing: FaultyStore) -> None:
    fault = slow_listing.fault("GET", "max-keys=1000", "delayed", 6)
    loop = stage.start("poll", "--every", "60", RUSTFS_ENDPOINT=slow_listing.url)
    assert fault.met.wait(30)
    loop.terminate()
    assert loop.ends_within(14), "it ends with the request in hand"
    assert loop.wait() == 0, loop.output()
    assert reports(loop) == [], "what it has not listed to its end it says nothing of"
    assert stage.broker.ready(FILES) == 0


def test_one_poll_runs_at_a_time_and_a_dead_one_is_in_nobodys_way(stage: Stage) -> None:
    backlog(stage, 3)
    loop = stage.start("poll", "--every", "60")
    wait_until(lambda: polls(loop) == 1, "the first poll")
    second = stage.run("poll")
    assert (second.returncode, second.stdout) == (0, "")
    assert second.stderr == "another poll is running, this one is not needed\n"
    assert stage.ask("poll") == {"waiting": None, "set_aside": None, "queued": None, "published": 0}
    loop.kill()
    assert loop.wait() == -signal.SIGKILL
    wait_until(lambda: stage.run("poll").stdout, "the broker has freed the lock", timeout=45)


def test_while_the_store_is_away_a_poller_asks_less_and_less_often(stage: Stage) -> None:
    backlog(stage, 2)
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        loop = stage.start("poll", "--every", "0.2", RUSTFS_ENDPOINT=store.url)
        wait_until(lambda: polls(loop) >= 2, "it polls")
        store.fault("GET", "", 503)

        def pauses() -> list[float]:
            lines = map(json.loads, loop.output().splitlines())
            return [line["retry_in_s"] for line in lines if line["event"] == "waiting"]

        wait_until(lambda: len(pauses()) >= 4, "four attempts")
        assert pauses()[3] >= 4 > pauses()[0], "each pause is twice the one before, and up to a second more"
        store.heal()
        before = polls(loop)
        wait_until(lambda: polls(loop) > before, "it polls again")
        store.fault("GET", "", 503)
        wait_until(lambda: len(pauses()) >= 5, "it is away again")
        assert pauses()[4] < 2, "once it has polled, the pauses begin anew"
    loop.stop()


@pytest.mark.promise("Nothing lost")
def test_a_lost_event_costs_no_more_than_the_next_poll(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    (lost,) = backlog(stage, 1)
    wait_until(lambda: stage.broker.ready(FILES) == 1, "the store has announced it")
    stage.broker.purge()
    consumer = stage.start("consume")
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    announced = key_at(10)
    stage.bucket.put(announced, csv([ticket("INC10")]))
    stage.wait_for("done", announced)
    poller = stage.start("poll", "--every", "1")
    stage.wait_for("done", lost)
    wait_until(lambda: polls(poller) >= 3, "further polls")
    assert [report["published"] for report in reports(poller)][:3] == [1, 0, 0]
    assert (stage.ledger(lost)["first_seen_by"], stage.ledger(announced)["first_seen_by"]) == ("poller", "notification")
    poller.stop()
    consumer.stop()


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("point", ["after commit, before archive", "after copy, before delete"])
def test_what_crashed_half_way_and_was_forgotten_by_the_broker_is_found_and_finished(stage: Stage, point: str) -> None:
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point)
    (key,) = backlog(stage, 1)
    stage.announce(key)
    assert doomed.wait() == -signal.SIGKILL
    wait_until(lambda: stage.broker.ready(FILES) == 1, "the delivery is back in the queue")
    stage.broker.purge()
    assert stage.ask("poll")["published"] == 1
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    consumer.stop()
    assert stage.waiting() == []
    assert stage.query("SELECT 1 FROM ingest.outbox WHERE sent_at IS NULL") == []


def test_requests_that_a_crash_left_unsent_are_sent_without_any_delivery(stage: Stage) -> None:
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="after archive, before relay")
    (key,) = backlog(stage, 1)
    stage.announce(key)
    assert doomed.wait() == -signal.SIGKILL
    wait_until(lambda: stage.broker.ready(FILES) == 1, "the delivery is back in the queue")
    stage.broker.purge(FILES)
    assert stage.ask("poll") == {"waiting": 0, "set_aside": 0, "queued": 0, "published": 0}
    consumer = stage.start("consume")
    wait_until(lambda: not stage.query("SELECT 1 FROM ingest.outbox WHERE sent_at IS NULL"), "all requests are sent")
    stage.wait_for("done", key)
    wait_until(lambda: stage.broker.ready(GEOCODE) == 1, "the geocode request is in its queue")
    consumer.stop()


def test_a_stray_file_is_offered_once_in_a_while_and_is_no_backlog(stage: Stage) -> None:
    consumer = stage.start("consume")
    stray, broken = f"{CHANGES}readme.txt", key_at(0)
    stage.bucket.put_all({stray: b"what is this", broken: b"ticket_id,M\xfc\nINC1,x\n"})
    poller = stage.start("poll", "--every", "0.2")
    wait_until(lambda: stage.query("SELECT 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"), "a dead letter")
    stage.wait_for("done", stray)
    wait_until(lambda: polls(poller) >= 10, "ten polls")
    assert sum(report["published"] for report in reports(poller)) == 2
    poller.stop()
    consumer.stop()
    found = stage.ask("status")
    assert found["bucket"]["waiting"] == 2
    assert found["database"]["backlog"] == {
        "files": 0,
        "oldest_waiting_seconds": None,
        "oldest_waiting_key": None,
        "set_aside": {"ignored": 1, "dead letters": 1},
    }
    assert "1 dead letters, 1 ignored" in stage.run("status").stdout


def test_for_cron_what_the_ledger_has_a_verdict_on_is_not_published_again_and_again(stage: Stage) -> None:
    consumer = stage.start("consume")
    stray, broken, discarded, retried = f"{CHANGES}readme.txt", key_at(0), key_at(1), key_at(2)
    bad = b"ticket_id,M\xfc\nINC1,x\n"
    stage.bucket.put_all({stray: b"what is this", broken: bad, discarded: bad + b"1", retried: bad + b"2"})
    assert stage.ask("poll")["published"] == 4
    letters = "SELECT count(*) = 3 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"
    wait_until(lambda: stage.one(letters), "three dead letters")
    stage.wait_for("done", stray)
    assert stage.run("dead-letters", "discard", "--key", discarded, "--reason", "test").returncode == 0
    stage.query(
        """UPDATE ingest.ledger SET dead_lettered_at = NULL, retry_at = now() + interval '1 hour' WHERE key = %s
           RETURNING 1""",
        retried,
    )
    (waiting,) = backlog_at(stage, 10)
    assert stage.ask("poll") == {"waiting": 1, "set_aside": 4, "queued": 0, "published": 1}
    stage.wait_for("done", waiting)
    assert stage.run("poll").stdout == "waiting 0, set aside 4, already queued 0, published 0\n"
    # A retry that never came, the bytes of a bad file that are back after others, and nobody to ask.
    stage.query("UPDATE ingest.ledger SET retry_at = now() WHERE key = %s RETURNING 1", retried)
    assert stage.ask("poll")["published"] == 1
    stage.bucket.put(broken, csv([ticket("INC1")]))
    stage.announce(broken)
    stage.wait_for("done", broken)
    wait_until(lambda: stage.broker.ready(FILES) == 0, "all is settled")
    consumer.stop()
    stage.bucket.put(broken, bad)
    stage.query(
        "UPDATE ingest.ledger SET object_time = object_time - interval '1 hour' WHERE key = %s RETURNING 1", broken
    )
    assert stage.ask("poll")["published"] == 1
    stage.broker.purge()
    alone = stage.run("poll", DATABASE_URL="")
    assert (alone.stdout, alone.stderr) == ("waiting 4, already queued 0, published 4\n", "")
    stage.broker.purge()
    away = stage.run("poll", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (away.returncode, away.stdout) == (0, "waiting 4, already queued 0, published 4\n")
    assert "the ledger cannot be asked" in away.stderr
    assert len(away.stderr.splitlines()) == 1


def test_a_changed_file_that_the_policy_passes_over_is_offered_again_under_another_one(stage: Stage) -> None:
    stage.environment["FLEETTICKETS_CHANGED_POLICY"] = "ignore"
    consumer = stage.start("consume")
    (key,) = backlog_at(stage, 1)
    stage.announce(key)
    stage.wait_for("done", key)
    stage.bucket.put(key, csv([ticket("INC1", owner="another")]))
    stage.announce(key)
    wait_until(lambda: stage.query("SELECT 1 FROM ingest.ledger WHERE decision = 'changed'"), "it is passed over")
    consumer.stop()
    assert stage.ask("poll") == {"waiting": 0, "set_aside": 1, "queued": 0, "published": 0}
    stage.environment["FLEETTICKETS_CHANGED_POLICY"] = "reapply"
    assert stage.ask("poll") == {"waiting": 1, "set_aside": 0, "queued": 0, "published": 1}


def test_a_queue_that_vanishes_under_the_loop_is_declared_anew(stage: Stage) -> None:
    poller = stage.start("poll", "--every", "0.5")
    wait_until(lambda: polls(poller) >= 2, "it polls")
    with stage.broker.channel() as channel:
        channel.queue_delete(FILES)
    (key,) = backlog(stage, 1)
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    poller.stop()
    consumer.stop()

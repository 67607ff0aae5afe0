"""RabbitMQ cut off, full, alarmed, restarted, or a cluster losing its leader: nothing is lost and no attempt spent."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from pika.exceptions import AMQPError, NackError
from rabbitmq import RabbitMQ

from consumer.demo.oracle import ChangeFile
from publisher.broker import topology
from tests.doubles.faulty_store import FaultyStore
from tests.doubles.proxy import Proxy
from tests.doubles.receiver import free_port
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE, HISTORY, Broker
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import RandomFeed, key_at
from tests.stage.private import private_cluster, private_rabbitmq
from tests.stage.stage import Process, Stage, wait_until

BAD = b"ticket_id,M\xfc\nINC1,x\n"


def feed(stage: Stage, seed: int, count: int) -> list[ChangeFile]:
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    files = RandomFeed(seed, tickets=60).files(count, rows=8)
    stage.bucket.put_all({file.key: file.body for file in files})
    return files


def assert_as_if_nothing_had_happened(stage: Stage, consumer: Process, files: list[ChangeFile]) -> None:
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.waiting() == []
    assert_equals_oracle(stage, files)


@pytest.mark.promise("Exactly once", "Nothing lost")
def test_connections_that_are_cut_again_and_again(stage: Stage) -> None:
    files = feed(stage, seed=31, count=50)
    with Proxy(stage.broker.url) as proxy:
        consumer = stage.start("consume", RABBITMQ_URL=proxy.url)
        stage.announce(*(file.key for file in files))
        done = "SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL"
        for share in (1, 15, 30):
            wait_until(lambda share=share: stage.one(done) >= share, "some more files")  # type: ignore[misc]
            proxy.cut()
        assert_as_if_nothing_had_happened(stage, consumer, files)


def test_what_a_lost_connection_delivered_and_nobody_began_is_left_to_its_redelivery(stage: Stage) -> None:
    files = feed(stage, seed=38, count=8)
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store, Proxy(stage.broker.url) as proxy:
        slow = store.fault("GET", "changes/", "late")
        begun, *others = [file.key for file in files]
        stage.announce(begun)
        alone = {"RABBITMQ_URL": proxy.url, "RUSTFS_ENDPOINT": store.url, "FLEETTICKETS_FILES_IN_HAND": "1"}
        consumer = stage.start("consume", **alone)
        assert slow.met.wait(60)
        # One is begun, and the others are in the process and wait for its thread.
        stage.announce(*others)
        wait_until(lambda: stage.broker.ready(FILES) == 0, "all are delivered")
        proxy.cut()
        wait_until(lambda: consumer.output().count('"consuming"') == 2, "it is connected anew")
        store.heal()
        assert_as_if_nothing_had_happened(stage, consumer, files)
    lines = [json.loads(line) for line in consumer.output().splitlines() if '"event": "file"' in line]
    assert [line["key"] for line in lines if not line["redelivered"]] == [begun]
    assert {line["key"] for line in lines} == {file.key for file in files}


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_full_follow_on_queue_holds_no_file_back_and_spends_nothing(stage: Stage) -> None:
    """What waits there stands for what would be sent; the relay says so of a queue that this consumer does not take."""
    files = feed(stage, seed=32, count=12)
    with full(stage.broker, GEOCODE):
        consumer, waiting = stage.start("consume"), stage.broker.ready(GEOCODE)
        stage.announce(*(file.key for file in files))
        stage.wait_for("done", *(file.key for file in files))
        wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
        stage.wait_for_history()
        assert stage.one("SELECT count(*) FROM ingest.outbox WHERE sent_at IS NULL AND handled_at IS NULL") == 0
        assert stage.broker.ready(GEOCODE) == waiting
        assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
        assert stage.broker.ready(DEAD_FILES) == 0
    assert_as_if_nothing_had_happened(stage, consumer, files)


@pytest.mark.promise("Nothing lost", "One bad thing stays one bad thing")
def test_full_dead_letters_keep_a_bad_file_undecided_and_good_ones_going(stage: Stage) -> None:
    files, bad = feed(stage, seed=33, count=12), key_at(-1)
    stage.bucket.put(bad, BAD)
    with full(stage.broker, DEAD_FILES):
        consumer = stage.start("consume")
        stage.announce(bad, *(file.key for file in files))
        stage.wait_for("done", *(file.key for file in files))
        wait_until(lambda: "refused a message" in consumer.output(), "the consumer meets the full dead letters")
        row = stage.ledger(bad)
        assert (row["state"], row["attempts"]) == ("seen", 0), "nobody has its letter, so it has not failed"
    dead = "SELECT 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"
    wait_until(lambda: stage.query(dead), "the bad file is a dead letter")
    consumer.stop()
    letters = [message.headers.get("fleettickets-key") for message in stage.broker.messages(DEAD_FILES)]
    assert letters.count(bad) == 1
    row = stage.ledger(bad)
    assert (row["state"], row["attempts"]) == ("failed", 1)


class full:  # noqa: N801 - read as a sentence
    """The queue is so full that it refuses; a quorum queue takes a few more than its limit."""

    def __init__(self, broker: Broker, queue: str) -> None:
        if broker.management is None:
            pytest.skip("queue limits: no management API")
        self._broker, self._queue = broker, queue
        self._policy = f"{broker.management}/api/policies/{broker.vhost}/full-{queue}"

    def __enter__(self) -> None:
        most = {"max-length": 1, "overflow": "reject-publish"}
        limit = {"pattern": f"^{self._queue}$", "definition": most, "apply-to": "queues", "priority": 9}
        requests.put(self._policy, json=limit, timeout=10).raise_for_status()
        wait_until(lambda: self._in_force() is not None, "the limit is in force")
        routing = ("fleettickets.dead", "files") if self._queue == DEAD_FILES else ("fleettickets", "geocode")
        with pytest.raises(NackError):
            self._broker.publish([b"{}"] * 20, exchange=routing[0], routing_key=routing[1])

    def __exit__(self, *_: object) -> None:
        requests.delete(self._policy, timeout=10).raise_for_status()

    def _in_force(self) -> str | None:
        address = f"{self._broker.management}/api/queues/{self._broker.vhost}/{quote(self._queue)}"
        policy = requests.get(address, timeout=10).json().get("policy")
        return None if policy is None else str(policy)


@pytest.fixture
def private_broker(tmp_path: Path) -> Iterator[RabbitMQ]:
    with private_rabbitmq(tmp_path) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def private_stage(stage: Stage, private_broker: RabbitMQ) -> Stage:
    stage.broker = Broker(private_broker.url, private_broker.environment()["RABBITMQ_MANAGEMENT_URL"])
    stage.environment["RABBITMQ_URL"] = private_broker.url
    return stage


def several(stage: Stage, count: int) -> bytes:
    """One body that announces so many files."""
    records = [json.loads(stage.bucket.event(key_at(number)))["Records"][0] for number in range(count)]
    names = ("eventSource", "eventName", "s3")
    return json.dumps({"Records": [{name: record[name] for name in names} for record in records]}).encode()


def test_a_body_of_many_events_is_spread_soon_by_a_broker_that_confirms_slowly_and_stops_when_told(
    stage: Stage,
) -> None:
    """One after the other, a thousand confirms of a quarter of a second would take four minutes."""
    stop = threading.Event()

    def spread() -> int:
        return int(stage.one("SELECT count(*) FROM ingest.ledger")) + stage.broker.ready(FILES)

    def pulse() -> None:
        while not stop.wait(0.02):
            proxy.stall()
            stop.wait(0.25)
            proxy.restore()

    with Proxy(stage.environment["RABBITMQ_URL"]) as proxy:
        consumer = stage.start("consume", "--queue", "files", RABBITMQ_URL=proxy.url)
        wait_until(lambda: '"consuming"' in consumer.output(), "it consumes")
        pulsing = threading.Thread(target=pulse)
        pulsing.start()
        try:
            stage.broker.publish([several(stage, 900)])
            wait_until(lambda: spread() > 100, "some are spread", timeout=20)
            consumer.terminate()
            assert consumer.ends_within(20), "between two of its messages"
        finally:
            stop.set()
            pulsing.join()
    assert consumer.wait() == 0, consumer.output()
    assert 100 < spread() < 900
    consumer = stage.start("consume", "--queue", "files")
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE decision = 'missing'") == 900, "all are")
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 0


@pytest.mark.faults
def test_a_broker_that_falls_silent_is_told_within_half_a_minute(stage: Stage) -> None:
    looks = (
        ("status",), ("doctor",), ("explain", key_at(1)), ("dead-letters", "list"), ("dead-letters", "show", "1"),
        ("dead-letters", "replay", "--all", "--dry-run"),
    )  # fmt: skip
    with Proxy(stage.environment["RABBITMQ_URL"], losing=b"fleettickets.", after=True, holding=True) as proxy:
        looking = [stage.start(*arguments, RABBITMQ_URL=proxy.url) for arguments in looks]
        end = time.monotonic() + 45
        for process in looking:
            assert process.ends_within(max(0, end - time.monotonic())), process.log
            assert process.wait() != 0, process.output()


@contextmanager
def unconfirmed(rabbitmq: RabbitMQ, queue: str) -> Iterator[None]:
    """The queue takes no message and refuses none, as one that has lost its quorum."""
    member = f"whereis('%2F_{queue}')"
    rabbitmq.control("eval", f"sys:suspend({member}).")
    try:
        yield
    finally:
        rabbitmq.control("eval", f"sys:resume({member}).")


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_queue_that_confirms_nothing_keeps_only_its_own_waiting(
    private_stage: Stage, private_broker: RabbitMQ
) -> None:
    stage = private_stage
    bad, files = [key_at(-number) for number in range(1, 12)], feed(stage, seed=37, count=30)
    stage.bucket.put_all(dict.fromkeys(bad, BAD))
    consumer = stage.start("consume")
    stage.announce(files[0].key)
    stage.wait_for("done", files[0].key)
    with unconfirmed(private_broker, DEAD_FILES):
        stage.announce(*bad)
        wait_until(lambda: "has not confirmed the message" in consumer.output(), "it does not wait for ever")
        stage.announce(*(file.key for file in files[1:]))
        stage.wait_for("done", *(file.key for file in files))
        assert stage.query("SELECT 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL") == []
        # Some of the bad ones are being tried at any time.
        consumer.terminate()
        assert consumer.wait() == 0, consumer.output()
    consumer = stage.start("consume")
    stage.wait_for("failed", *bad)
    wait_until(lambda: stage.one("SELECT count(dead_lettered_at) FROM ingest.ledger") == len(bad), "all are known")
    consumer.stop()
    # One that was published and not confirmed in time stays there as well.
    letters = {message.headers["fleettickets-key"] for message in stage.broker.messages(DEAD_FILES)}
    assert letters == set(bad)
    assert_equals_oracle(stage, files)


def test_a_command_whose_message_nobody_confirms_says_so_and_ends(
    private_stage: Stage, private_broker: RabbitMQ
) -> None:
    stage = private_stage
    stage.bucket.put(key_at(1), BAD)
    with unconfirmed(private_broker, FILES):
        ended = stage.run("poll")
    assert ended.returncode == 1
    assert "did not confirm a message within 10 s" in ended.stderr


@pytest.mark.promise("Nothing lost")
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_restarted_broker_has_everything_still(private_stage: Stage, private_broker: RabbitMQ) -> None:
    stage = private_stage
    files = feed(stage, seed=34, count=150)
    consumers = [stage.start("consume") for _ in range(2)]
    stage.announce(*(file.key for file in files))
    done = "SELECT count(*) FROM ingest.ledger WHERE state = 'done'"
    for share in (10, 60):
        wait_until(lambda share=share: stage.one(done) >= share, "some more files")  # type: ignore[misc]
        private_broker.halt()
        time.sleep(1)
        private_broker.start()
    stage.wait_for("done", *(file.key for file in files))
    consumers.pop().stop()
    assert_as_if_nothing_had_happened(stage, consumers.pop(), files)


def unanswered(consumer: Process) -> set[str]:
    """The queues of which its log says so."""
    lines = [line for line in consumer.output().splitlines() if '"queue does not answer"' in line]
    return {json.loads(line)["queue"] for line in lines}


@pytest.mark.faults
@pytest.mark.promise("One bad thing stays one bad thing")
@pytest.mark.timeout(300)
def test_a_queue_that_nobody_answers_for_after_a_restart_is_told_and_the_claim_is_made_anew(
    private_stage: Stage, private_broker: RabbitMQ
) -> None:
    """RabbitMQ 3.10 that is killed within a second after it made a quorum queue never has a leader for it again."""
    stage, key = private_stage, key_at(1)
    stage.bucket.put(key, feed(stage, seed=41, count=1)[0].body)
    first = stage.start("consume")
    wait_until(lambda: '"consuming"' in first.output(), "it has the claim")
    with stage.broker.channel() as channel:
        channel.queue_delete(HISTORY)
        topology.declare(channel)
    private_broker.halt()
    private_broker.start()
    wait_until(lambda: first.output().count('"consuming"') == 2, "the claim is made anew", timeout=120)
    assert "queue fleettickets.bucket does not answer within 20 s" in first.output()
    stage.announce(key)
    stage.wait_for("archived", key)
    # On a busy machine the others may be told as well, until the broker is through with its start.
    wait_until(lambda: HISTORY in unanswered(first), "the other queue is told", timeout=60)
    with stage.broker.channel() as channel:
        channel.queue_delete(HISTORY)
    assert stage.run("topology").returncode == 0
    stage.wait_for("done", key)
    first.stop()


@pytest.mark.promise("Nothing lost")
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_letters_that_were_in_hand_when_a_look_was_cut_off_survive_a_restart(
    private_stage: Stage, private_broker: RabbitMQ
) -> None:
    stage = private_stage
    keys = [key_at(number) for number in range(150)]
    with stage.broker.channel() as channel:
        for key in keys:
            stage.broker.publish_to(channel, "fleettickets.dead", "files", b"{}", {"fleettickets-key": key})
    with Proxy(stage.broker.url) as proxy:
        # It has all the others in hand when it gets to the last, and then takes its time.
        arguments = ("dead-letters", "replay", "--wait", "0", "--key", keys[-1], "--rate", "0.01")
        replay = stage.start(*arguments, RABBITMQ_URL=proxy.url)
        wait_until(lambda: keys[-1] in replay.output(), "it is at the last letter")
        proxy.cut()
        assert replay.wait() == 1
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == len(keys) - 1, "the others are back")
    again = stage.ask("dead-letters", "replay", "--wait", "0", "--limit", "20")["replayed"]
    replayed = {letter["key"] for letter in again}
    private_broker.halt()
    private_broker.start()
    # Until it has read its log to the end, the queue tells how many were not in hand at some moment before.
    wait_until(lambda: stage.broker.ready(DEAD_FILES) >= len(keys) - 1 - len(replayed), "the queue is back")
    letters = [letter["key"] for letter in stage.ask("dead-letters", "list", "--each")]
    assert sorted(letters) == sorted(set(keys[:-1]) - replayed)


@pytest.mark.promise("Nothing lost")
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_memory_alarm_is_waited_for(private_stage: Stage, private_broker: RabbitMQ) -> None:
    stage = private_stage
    files = feed(stage, seed=35, count=40)
    stage.announce(*(file.key for file in files))
    private_broker.control("set_vm_memory_high_watermark", "absolute", "10MB")
    consumer = stage.start("consume")
    # It may read, but what it publishes gets no confirm: files are applied and wait for their requests to be sent.
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE state = 'archived'") > 0, "files wait")
    wait_until(lambda: "ConnectionBlockedTimeout" in consumer.output(), "it does not wait for ever")
    # One that changed nothing, as it came behind newer ones, has nothing to send and so is done.
    sent = "SELECT count(*) FROM ingest.ledger JOIN ingest.outbox USING (file_id) WHERE state = 'done'"
    assert stage.one(sent) == 0
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    private_broker.control("set_vm_memory_high_watermark", "absolute", "1GB")
    assert_as_if_nothing_had_happened(stage, consumer, files)


@pytest.mark.promise("Nothing lost")
@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_cluster_that_loses_the_leader_of_the_queue_under_load(stage: Stage, tmp_path: Path) -> None:
    with private_cluster(tmp_path, nodes=3) as nodes:
        stage.environment["RABBITMQ_URL"] = nodes[0].url
        first = Broker(nodes[0].url, nodes[0].environment()["RABBITMQ_MANAGEMENT_URL"])
        stage.broker = first
        files = feed(stage, seed=36, count=300)
        leader = leading(first, nodes)
        others = [node for node in nodes if node is not leader]
        # The one that dies is the leader and has a consumer; the client's address list is its supervisor's matter,
        # so each consumer knows one node.
        consumers = [stage.start("consume", RABBITMQ_URL=node.url) for node in nodes]
        wait_until(lambda: all("consuming" in consumer.output() for consumer in consumers), "all are consuming")
        stage.announce(*(file.key for file in files[:150]))
        done = "SELECT count(*) FROM ingest.ledger WHERE state = 'done'"
        wait_until(lambda: stage.one(done) >= 30, "work is under way")
        leader.halt()
        stage.broker = Broker(others[0].url, others[0].environment()["RABBITMQ_MANAGEMENT_URL"])
        for file in files[150:]:
            announce_until_taken(stage, file)
        stage.wait_for("done", *(file.key for file in files), timeout=120)
        assert leading(stage.broker, nodes) is not leader
        leader.start()
        doomed = consumers[nodes.index(leader)]
        wait_until(lambda: doomed.output().count('"consuming"') >= 2, "the third consumer is back")
        for consumer in [consumer for consumer in consumers if consumer is not consumers[0]]:
            consumer.stop()
        assert_as_if_nothing_had_happened(stage, consumers[0], files)


def announce_until_taken(stage: Stage, file: ChangeFile) -> None:
    """While a new leader is elected the broker refuses messages, which is its publisher's matter."""

    def is_taken() -> bool:
        try:
            stage.broker.publish([stage.bucket.event(file.key, file.body)])
        except AMQPError:
            return False
        return True

    wait_until(is_taken, f"{file.key} is announced")


def leading(broker: Broker, nodes: list[RabbitMQ]) -> RabbitMQ:
    def leader() -> str:
        address = f"{broker.management}/api/queues/%2f/{quote(FILES)}"
        return str(requests.get(address, timeout=10).json().get("leader", ""))

    known: Callable[[], bool] = lambda: any(node.node == leader() for node in nodes)  # noqa: E731
    wait_until(known, "the queue has a leader")
    return next(node for node in nodes if node.node == leader())


@pytest.mark.faults
@pytest.mark.parametrize("command", ["consume", "webhook"])
@pytest.mark.parametrize("how", ["silent", "living"])
def test_a_declaration_that_nobody_answers_ends_and_keeps_nobody_from_ending(
    stage: Stage, command: str, how: str
) -> None:
    """Of a living broker that request alone is lost: its heartbeats go on."""
    arguments = {"consume": ("consume",), "webhook": ("webhook", "--port", str(free_port()))}[command]
    lost, living = b"fleettickets.retry.5s", how == "living"
    with Proxy(stage.environment["RABBITMQ_URL"], losing=lost, holding=not living, swallowing=living) as proxy:
        process = stage.start(*arguments, RABBITMQ_URL=proxy.url, FLEETTICKETS_WEBHOOK_TOKEN="a")
        assert proxy.lost.wait(30)
        wait_until(lambda: '"waiting"' in process.output(), "it says that it waits", timeout=60)
        process.terminate()
        assert process.wait(60) == 0, process.output()


@pytest.mark.faults
@pytest.mark.parametrize("command", ["poll", "topology", "dead-letters list", "dead-letters replay --all"])
def test_a_command_whose_declaration_nobody_answers_ends_and_says_so(stage: Stage, command: str) -> None:
    with Proxy(stage.environment["RABBITMQ_URL"], losing=b"fleettickets.retry.5s", swallowing=True) as proxy:
        ended = stage.run(*command.split(), RABBITMQ_URL=proxy.url)
    assert (ended.returncode, "did not answer every" in ended.stderr) == (1, True), ended.stderr
    assert "Traceback" not in ended.stderr

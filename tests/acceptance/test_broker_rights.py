"""The broker's users with no more rights than they need: what each can do, and what the broker refuses."""

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pika
import pytest
import requests
from pika.exceptions import ChannelClosedByBroker

from tests.compose import BROKER_PASSWORDS
from tests.doubles.receiver import Receiver
from tests.stage.broker import DEAD, DEAD_FILES, EVENTS, FILES, Broker, fresh_vhost
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pika.adapters.blocking_connection import BlockingChannel

STORE, PUBLISHER, POLLER, CONSUMER = (f"fleettickets-{name}" for name in ("store", "publisher", "poller", "consumer"))
OF = {name: f"of-the-{name.rpartition('-')[2]}" for name in (STORE, PUBLISHER, POLLER, CONSUMER)}
CLAIM, POLL_LOCK = "fleettickets.bucket", "fleettickets.lock.poll"


@pytest.fixture(scope="module")
def empty_vhost(services: dict[str, str], worker_id: str) -> Broker:
    """A virtual host without a topology. The users belong to the whole server, and are left there."""
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        pytest.skip("the management API makes the users of this test")
    return fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-rights-{worker_id}")


@pytest.fixture(scope="module")
def users(shared_stage: Stage, empty_vhost: Broker) -> Broker:
    given = BROKER_PASSWORDS | {
        "RABBITMQ_URL": empty_vhost.url,
        "RABBITMQ_MANAGEMENT_URL": empty_vhost.management or "",
    }
    for _ in range(2):  # it is safe to repeat
        made = shared_stage.run("broker-users", **given)
        assert made.returncode == 0, made.stderr
        assert [line.split(":")[0] for line in made.stdout.splitlines()] == [STORE, PUBLISHER, POLLER, CONSUMER]
        assert not [word for word in BROKER_PASSWORDS.values() if word in made.stdout + made.stderr]
    return empty_vhost


def url_of(user: str, broker: Broker) -> str:
    parts = urlsplit(broker.url)
    return parts._replace(netloc=f"{user}:{OF[user]}@{parts.netloc.rpartition('@')[2]}").geturl()


def test_without_a_topology_the_publisher_is_told_who_has_to_declare_it(shared_stage: Stage, users: Broker) -> None:
    refused = shared_stage.run("poll", RABBITMQ_URL=url_of(POLLER, users))
    assert refused.returncode == 2
    assert "run fleettickets topology as the consumer's user" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def declared(shared_stage: Stage, users: Broker) -> Broker:
    made = shared_stage.run("topology", RABBITMQ_URL=url_of(CONSUMER, users))
    assert made.returncode == 0, made.stderr
    return users


def refusal(url: str, exchange: str, routing_key: str) -> int:
    """The code that the broker refuses the message with; 0 for taken."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(exchange, routing_key, b"{}", mandatory=True)
    except ChannelClosedByBroker as error:
        return int(error.reply_code)
    finally:
        connection.close()
    return 0


@pytest.mark.parametrize("user", [STORE, PUBLISHER, POLLER])
def test_who_announces_files_cannot_send_what_steers_the_consumer(declared: Broker, user: str) -> None:
    url = url_of(user, declared)
    assert refusal(url, EVENTS, "anything") == 0
    for exchange, key in (
        ("fleettickets", "files"),
        ("fleettickets", "geocode"),
        ("fleettickets.retry.5s", "files"),
        (DEAD, "files"),
        ("", FILES),
        ("amq.topic", "a.b"),
    ):
        assert refusal(url, exchange, key) == 403, exchange


@pytest.mark.parametrize("user", [STORE, PUBLISHER, POLLER])
def test_who_announces_files_can_neither_read_nor_change_what_is_there(declared: Broker, user: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url_of(user, declared)))
    try:
        attempts: list[Callable[[BlockingChannel], object]] = [
            lambda channel: channel.basic_get(FILES),
            lambda channel: channel.basic_get(DEAD_FILES),
            lambda channel: channel.queue_purge(FILES),
            lambda channel: channel.queue_delete(FILES),
            lambda channel: channel.exchange_delete(EVENTS),
            lambda channel: channel.queue_bind(FILES, "amq.topic", "#"),
            lambda channel: channel.queue_declare("fleettickets.more"),
            lambda channel: channel.queue_declare(CLAIM, durable=True, arguments={"x-queue-type": "quorum"}),
            lambda channel: channel.queue_delete(CLAIM),
            lambda channel: channel.basic_consume(CLAIM, lambda *_: None),
            lambda channel: channel.queue_declare("fleettickets.lock.more", exclusive=True),
            lambda channel: channel.exchange_bind("fleettickets", EVENTS, "#"),
        ]
        for forbidden in attempts:
            with pytest.raises(ChannelClosedByBroker) as refused:
                forbidden(connection.channel())
            assert refused.value.reply_code == 403
    finally:
        connection.close()


def test_a_file_comes_in_by_users_who_have_no_more_rights_than_they_need(shared_stage: Stage, declared: Broker) -> None:
    stage = shared_stage
    declared.find_queues([FILES])
    declared.purge()  # a poll publishes no more than the queue lacks
    as_consumer, as_publisher, as_poller = (url_of(user, declared) for user in (CONSUMER, PUBLISHER, POLLER))
    polled, posted, stored = key_at(0), key_at(1), key_at(2)
    stage.bucket.put_all({key: csv([ticket(f"INC{key}")]) for key in (polled, posted, stored)})
    store = Broker(url_of(STORE, declared), None)
    store.publish([stage.bucket.event(stored, stage.bucket.read(stored))])
    receiver = Receiver(stage, RABBITMQ_URL=as_publisher)
    receiver.wait()
    assert receiver.post(stage.bucket.event(posted, stage.bucket.read(posted))).status_code == 200
    receiver.process.stop()
    ended = stage.run("poll", "--json", RABBITMQ_URL=as_poller)
    assert ended.returncode == 0, ended.stderr
    consumer = stage.start("consume", RABBITMQ_URL=as_consumer)
    stage.wait_for("done", polled, posted, stored)
    stage.wait_for_history()
    consumer.stop()
    for command in ("status", "verify", "doctor", "topology"):
        ended = stage.run(command, "--json", RABBITMQ_URL=as_consumer)
        told = ended.stdout.replace("of_refused_files", "") + ended.stderr
        assert "refuse" not in told, (command, ended.stdout, ended.stderr)
    listed = stage.run("dead-letters", "list", RABBITMQ_URL=as_consumer)
    assert listed.returncode == 0, listed.stderr


@pytest.mark.parametrize("user", [STORE, PUBLISHER, POLLER])
def test_who_announces_files_can_neither_have_the_virtual_host_for_another_bucket_nor_hold_what_others_need(
    shared_stage: Stage, declared: Broker, user: str
) -> None:
    """By every queue that a poll and a consumer leave on the broker, under whatever name."""
    stage, key = shared_stage, key_at(len(user))
    consumer = stage.start("consume", RABBITMQ_URL=url_of(CONSUMER, declared))
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    consumer.stop()
    queues = {found["name"] for found in listed(declared, "queues")} | {POLL_LOCK, "fleettickets.lock.bucket"}
    connection = pika.BlockingConnection(pika.URLParameters(url_of(user, declared)))
    try:
        for queue in queues - ({POLL_LOCK} if user == POLLER else set()):
            taken: list[Callable[[BlockingChannel], object]] = [
                lambda channel, queue=queue: channel.queue_delete(queue),  # type: ignore[misc]
                lambda channel, queue=queue: channel.queue_declare(queue, exclusive=True),  # type: ignore[misc]
                lambda channel, queue=queue: channel.basic_consume(queue, lambda *_: None),  # type: ignore[misc]
            ]
            for attempt in taken:
                with contextlib.suppress(ChannelClosedByBroker):
                    attempt(connection.channel())
        stage.bucket.put(key, csv([ticket(f"INC{key}")]))
        ended = stage.run("poll", "--json", RABBITMQ_URL=url_of(POLLER, declared))
        assert (ended.returncode, "another poll" in ended.stderr) == (0, False), ended.stderr
        consumer = stage.start("consume", RABBITMQ_URL=url_of(CONSUMER, declared))
        stage.wait_for("done", key)
        consumer.stop()
    finally:
        connection.close()


def test_a_poll_as_a_user_who_may_not_hold_its_lock_says_so(shared_stage: Stage, declared: Broker) -> None:
    ended = shared_stage.run("poll", RABBITMQ_URL=url_of(PUBLISHER, declared))
    assert ended.returncode == 2
    assert f"may not hold '{POLL_LOCK}'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_looping_poll_leaves_the_claim_to_the_consumers(shared_stage: Stage, declared: Broker) -> None:
    stage, key = shared_stage, key_at(40)
    consumer = stage.start("consume", RABBITMQ_URL=url_of(CONSUMER, declared))
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    poller = stage.start("poll", "--every", "0.2", RABBITMQ_URL=url_of(POLLER, declared))
    wait_until(lambda: poller.output().count('"poll"') >= 3, "it polls again and again")
    stage.bucket.put(key, csv([ticket(f"INC{key}")]))
    stage.wait_for("done", key)
    poller.stop()
    consumer.stop()


def test_the_claim_is_no_drift_and_what_only_looks_like_a_lock_is(shared_stage: Stage, declared: Broker) -> None:
    consumer = shared_stage.start("consume", RABBITMQ_URL=url_of(CONSUMER, declared))
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    given = {"RABBITMQ_URL": declared.url, "RABBITMQ_MANAGEMENT_URL": declared.management or ""}
    ended = shared_stage.run("topology", "--check", **given)
    assert ended.returncode == 0, ended.stdout
    consumer.stop()
    with declared.channel() as channel:
        channel.queue_declare(POLL_LOCK, durable=True)
    ended = shared_stage.run("topology", "--check", **given)
    with declared.channel() as channel:
        channel.queue_delete(POLL_LOCK)
    assert (ended.returncode, f"queue {POLL_LOCK}: undeclared" in ended.stdout) == (1, True), ended.stdout


def listed(broker: Broker, kind: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{broker.management}/api/{kind}/{broker.vhost}", timeout=10)
    answer.raise_for_status()
    return list(answer.json())


def test_a_management_api_of_nobody_in_particular_is_one_line(shared_stage: Stage, empty_vhost: Broker) -> None:
    management = urlsplit(empty_vhost.management or "")
    wrong = management._replace(netloc=f"guest:wrong@{management.netloc.rpartition('@')[2]}").geturl()
    for given, words in (
        ({"RABBITMQ_MANAGEMENT_URL": wrong}, "refuses this user"),
        ({"RABBITMQ_STORE_PASSWORD": ""}, "RABBITMQ_STORE_PASSWORD is not set"),
        ({"RABBITMQ_URL": f"{empty_vhost.url}-nowhere"}, "there is no virtual host"),
    ):
        environment = {"RABBITMQ_URL": empty_vhost.url, "RABBITMQ_MANAGEMENT_URL": empty_vhost.management or ""}
        ended = shared_stage.run("broker-users", **(environment | BROKER_PASSWORDS | given))
        assert ended.returncode == 2, ended.stderr
        assert words in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_the_doctor_names_who_may_do_more_than_announce_files(shared_stage: Stage, declared: Broker) -> None:
    given = {"RABBITMQ_URL": declared.url, "RABBITMQ_MANAGEMENT_URL": declared.management or ""}

    def told() -> str:
        findings = shared_stage.json(shared_stage.run("doctor", "--json", **given))["findings"]
        (found,) = [finding["found"] for finding in findings if finding["about"] == "broker rights"]
        return str(found)

    assert told() == "nobody else may write to exchange fleettickets"
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    rights = f"{declared.management}/api/permissions/{declared.vhost}/{STORE}"
    requests.put(rights, json=everything, timeout=10).raise_for_status()
    assert told() == f"may write to exchange fleettickets, as only consumers need to: {STORE}"

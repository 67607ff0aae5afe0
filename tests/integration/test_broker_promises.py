"""What publishing, dead-lettering and replaying promise, on the real channels."""

import contextlib
import socket
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from publisher.arrivals import messages
from publisher.broker import channels, dead_letters, publishing, serving, topology
from publisher.broker.dead_letters import DeadLetter, LastFailure, Selection
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import EVENTS, REQUESTS, Asking, Queue
from publisher.errors import DependencyDown, HeldByAnother, Misconfigured
from publisher.settings import BrokerSettings
from publisher.sources.poller import Poller
from publisher.store.bucket import Bucket
from publisher.trace import Trace

FILES = Queue.FILES.broker_name
DEAD_FILES = Queue.FILES.dead_letters
TRACE = Trace.of(b"{}")


def depth(channel: BlockingChannel, name: str) -> int:
    return channels.queue_depth(channel, name)[0]


def settled_depths(channel: BlockingChannel, total: int) -> tuple[int, int]:
    """Depths of the work and the dead-letter queue once the broker has taken back what a lost connection held."""
    for _ in range(50):
        depths = depth(channel, FILES), depth(channel, DEAD_FILES)
        if sum(depths) == total:
            break
        channel.connection.process_data_events(time_limit=0.1)
    return depths


def bury(channel: BlockingChannel, key: str, detail: str = "line 3") -> None:
    last = LastFailure(key, "not UTF-8", detail, 1, ["a try"])
    publishing.publish(channel, dead_letters.dead_letter(Queue.FILES, b"{}", TRACE, last))


def test_declaring_twice_changes_nothing(channel: BlockingChannel) -> None:
    assert topology.declare(channel) == topology.declare(channel)


def test_a_queue_that_the_server_has_otherwise_is_named(
    broker_settings: BrokerSettings, channel: BlockingChannel
) -> None:
    channel.queue_delete(DEAD_FILES)
    channel.queue_declare(DEAD_FILES, durable=True)
    try:
        with (
            channels.confirming_channel(broker_settings, "drift") as other,
            pytest.raises(Misconfigured, match=r"'fleettickets.files.dead' with other arguments"),
        ):
            topology.declare(other)
    finally:
        channel.queue_delete(DEAD_FILES)
        topology.declare(channel)


@pytest.mark.promise("Nothing lost")
def test_a_message_that_no_queue_takes_is_an_error_not_a_confirm(channel: BlockingChannel) -> None:
    with pytest.raises(Misconfigured, match="no queue is bound"):
        publishing.publish(channel, Outgoing(REQUESTS, "nowhere", b"{}", TRACE))


def test_an_exchange_that_is_missing_is_an_error_that_says_what_to_run(channel: BlockingChannel) -> None:
    with pytest.raises(Misconfigured, match=r"refuses to publish to 'fleettickets\.gone'"):
        publishing.publish(channel, Outgoing("fleettickets.gone", "files", b"{}", TRACE))


@pytest.mark.parametrize("routing_key", ["files", "isptickets", "any.topic.of.a.store"])
def test_whatever_routing_key_a_store_uses_its_event_arrives(channel: BlockingChannel, routing_key: str) -> None:
    publishing.publish(channel, Outgoing(EVENTS, routing_key, b"{}", TRACE))
    assert depth(channel, FILES) == 1


def test_a_queue_that_does_not_exist_is_said(broker_settings: BrokerSettings) -> None:
    with (
        channels.confirming_channel(broker_settings, "missing") as other,
        pytest.raises(Misconfigured, match=r"no queue 'fleettickets\.gone'; run: fleettickets topology"),
    ):
        channels.queue_depth(other, "fleettickets.gone")


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("amqp://127.0.0.1:1/", DependencyDown, "rabbitmq is not available"),
        ("{}wrong", Misconfigured, "RABBITMQ_URL: rabbitmq at .* has no such virtual host"),
    ],
)
def test_a_broker_that_cannot_be_reached_is_said_in_one_line(
    broker_settings: BrokerSettings, url: str, error: type[Exception], words: str
) -> None:
    wrong = BrokerSettings.model_validate({"RABBITMQ_URL": url.format(broker_settings.rabbitmq_url.get_secret_value())})
    with pytest.raises(error, match=words) as failure:
        channels.connect(wrong, "tests")
    assert "\n" not in str(failure.value)


def test_a_wait_queue_returns_a_message_to_the_queue_it_came_from(channel: BlockingChannel) -> None:
    sent: Any = {messages.AGAIN: "retry", messages.ATTEMPTS: 2}
    publishing.publish(channel, publishing.retry(Queue.HISTORY, b"later", TRACE, sent, delay=topology.RETRY_DELAYS[0]))
    for _ in range(topology.RETRY_DELAYS[0] * 2 + 4):
        channel.connection.process_data_events(time_limit=0.5)
        method, properties, body = channel.basic_get(Queue.HISTORY.broker_name, auto_ack=True)
        if method is not None and properties is not None:
            break
    else:
        pytest.fail("the message did not come back")
    assert body == b"later"
    assert Trace.of_headers(properties.headers or {}) == TRACE
    headers = properties.headers or {}
    assert (headers[messages.AGAIN], headers[messages.ATTEMPTS]) == ("retry", 2)


def test_looking_at_dead_letters_leaves_them_where_they_are(
    broker_settings: BrokerSettings, channel: BlockingChannel
) -> None:
    for key in ("a", "b"):
        bury(channel, key)
    for _ in range(25):  # more often than the delivery limit that RabbitMQ 4 gives to every queue
        with (
            channels.confirming_channel(broker_settings, "look") as other,
            dead_letters.browsing(other, Queue.FILES) as letters,
        ):
            assert [letter.key for letter in letters] == ["a", "b"]


def test_a_dead_letter_tells_its_reason(broker_settings: BrokerSettings, channel: BlockingChannel) -> None:
    bury(channel, "a", "near line 3")
    with (
        channels.confirming_channel(broker_settings, "look") as other,
        dead_letters.browsing(other, Queue.FILES) as letters,
    ):
        (letter,) = letters
    assert (letter.reason, letter.error, letter.attempts) == ("not UTF-8", "near line 3", 1)
    assert letter.dead_at


def test_a_message_that_the_broker_gave_up_on_tells_that(
    broker_settings: BrokerSettings, channel: BlockingChannel
) -> None:
    body = b'{"type": "ChangeFileArrived", "bucket": "b", "keys": ["k"], "seen_by": "poller"}'
    publishing.publish(channel, publishing.arrival(body))
    method, _, _ = channel.basic_get(FILES)
    assert method is not None
    channel.basic_reject(method.delivery_tag or 0, requeue=False)
    for _ in range(50):
        if depth(channel, DEAD_FILES):
            break
        channel.connection.process_data_events(time_limit=0.1)
    with (
        channels.confirming_channel(broker_settings, "look") as other,
        dead_letters.browsing(other, Queue.FILES) as letters,
    ):
        (letter,) = letters
    assert (letter.key, letter.reason) == ("k", "broker: rejected")


def test_replay_takes_the_chosen_ones_only(broker_settings: BrokerSettings, channel: BlockingChannel) -> None:
    for key in ("a", "b", "a", "c"):
        bury(channel, key)
    replayed: list[DeadLetter] = []
    with channels.confirming_channel(broker_settings, "replay") as other:
        assert dead_letters.replay(other, Queue.FILES, Selection(key="a"), replayed.append) == 2
    assert [letter.key for letter in replayed] == ["a", "a"]
    assert (depth(channel, FILES), depth(channel, DEAD_FILES)) == (2, 2)
    _, properties, _ = channel.basic_get(FILES, auto_ack=True)
    assert properties is not None
    assert (properties.headers or {})[messages.AGAIN] == "replay"


@contextlib.contextmanager
def cut_after(url: str, frames: int) -> Iterator[str]:
    """The broker, over connections that end after so many answers of it."""
    broker_at = urlsplit(url)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, socket.create_connection((broker_at.hostname, broker_at.port)) as server:
                    for _ in range(frames):
                        server.sendall(client.recv(65536))
                        client.sendall(server.recv(65536))
                    client.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = Thread(target=serve, daemon=True)
        serving.start()
        login, _, _ = broker_at.netloc.rpartition("@")
        try:
            yield urlunsplit(broker_at._replace(netloc=f"{login}@127.0.0.1:{listener.getsockname()[1]}"))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


@pytest.mark.parametrize("answers", [1, 2])
def test_a_connection_cut_while_it_is_made_is_no_refusal(broker_settings: BrokerSettings, answers: int) -> None:
    """After the first answer the client logs in, after the second it names the virtual host."""
    url = broker_settings.rabbitmq_url.get_secret_value()
    with cut_after(url, answers) as cut, pytest.raises(DependencyDown):  # noqa: SIM117 - the one makes the other's name
        with channels.confirming_channel(BrokerSettings.model_validate({"RABBITMQ_URL": cut}), "test"):
            pass


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"netloc": "guest:wrong@{}"}, "refuses this user or password"), ({"path": "/nowhere"}, "no such virtual host")],
)
def test_what_the_broker_refuses_is_said(broker_settings: BrokerSettings, wrong: dict[str, str], told: str) -> None:
    parts = urlsplit(broker_settings.rabbitmq_url.get_secret_value())
    at = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(**{name: value.format(at) for name, value in wrong.items()}))
    settings = BrokerSettings.model_validate({"RABBITMQ_URL": url})
    with pytest.raises(Misconfigured, match=told), channels.confirming_channel(settings, "test"):
        pass


def test_many_letters_in_hand_go_back_in_their_order(broker_settings: BrokerSettings, channel: BlockingChannel) -> None:
    keys = [f"{number}" for number in range(100)]
    for key in keys:
        bury(channel, key)
    for key in ("70", "30", "99", "0"):
        with channels.confirming_channel(broker_settings, "replay") as other:
            assert dead_letters.replay(other, Queue.FILES, Selection(key=key), lambda _letter: None) == 1
        keys.remove(key)
        with (
            channels.confirming_channel(broker_settings, "look") as other,
            dead_letters.browsing(other, Queue.FILES) as letters,
        ):
            assert [letter.key for letter in letters] == keys


def test_more_letters_than_all_channels_of_a_connection_should_hold(
    broker_settings: BrokerSettings, channel: BlockingChannel
) -> None:
    for number in range(100):
        bury(channel, f"{number}")
    url = f"{broker_settings.rabbitmq_url.get_secret_value()}?channel_max=2"
    with channels.confirming_channel(BrokerSettings.model_validate({"RABBITMQ_URL": url}), "replay") as other:
        assert dead_letters.replay(other, Queue.FILES, Selection(key="99"), lambda _letter: None) == 1
    assert (depth(channel, FILES), depth(channel, DEAD_FILES)) == (1, 99)


def test_an_interrupted_replay_loses_no_letter(broker_settings: BrokerSettings, channel: BlockingChannel) -> None:
    for key in ("a", "b", "c"):
        bury(channel, key)

    def interrupt(_letter: DeadLetter) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), channels.confirming_channel(broker_settings, "replay") as other:
        dead_letters.replay(other, Queue.FILES, Selection(), interrupt)
    assert settled_depths(channel, 3) == (1, 2)


@pytest.mark.promise("Nothing lost")
def test_a_crash_between_publish_and_settle_leaves_the_letter_in_both_places(
    broker_settings: BrokerSettings, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(channel, "a")
    with channels.confirming_channel(broker_settings, "replay") as other:
        monkeypatch.setattr(other, "basic_ack", lambda _tag: other.connection.close())
        dead_letters.replay(other, Queue.FILES, Selection(), lambda _letter: None)
    assert settled_depths(channel, 2) == (1, 1)


def test_a_replay_that_is_refused_leaves_the_letter(broker_settings: BrokerSettings, channel: BlockingChannel) -> None:
    bury(channel, "a")
    channel.queue_unbind(FILES, REQUESTS, Queue.FILES.value)
    try:
        with (
            pytest.raises(Misconfigured, match="no queue is bound"),
            channels.confirming_channel(broker_settings, "replay") as other,
        ):
            dead_letters.replay(other, Queue.FILES, Selection(), lambda _letter: None)
    finally:
        topology.declare(channel)
    assert settled_depths(channel, 1) == (0, 1)


@pytest.mark.promise("Nothing lost")
def test_dead_letters_are_for_ever(channel: BlockingChannel) -> None:
    # Only the wait queues have a time to live: redeclaring the queue without one would be refused otherwise.
    for queue in Queue:
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
        channel.queue_declare(queue.dead_letters, durable=True, arguments=arguments)


@pytest.mark.promise("Bounded")
def test_polling_again_and_again_publishes_each_file_once(channel: BlockingChannel, bucket: Bucket) -> None:
    for number in range(30):
        bucket._s3.put_object(  # noqa: SLF001 - the program never puts
            Bucket=bucket.name, Key=f"automations/inc/changes/2026-06-25T1420{number:02}.csv", Body=b"ticket_id\n"
        )
    pollers = [Poller(bucket, prefetch=8) for _ in range(3)]  # each as a new process of cron would be
    polls = [poller.poll(channel, Event()) for poller in pollers]
    assert [poll.published for poll in polls if poll is not None] == [30, 0, 0]
    assert depth(channel, FILES) == 30


def test_only_one_poll_runs_at_a_time(broker_settings: BrokerSettings, channel: BlockingChannel) -> None:
    with channels.confirming_channel(broker_settings, "other") as other:
        with channels.alone(channel, "poll"), pytest.raises(HeldByAnother), channels.alone(other, "poll"):
            pytest.fail("both have it")
        with channels.alone(other, "poll"):
            pass


def test_a_lock_ends_with_the_connection_of_its_holder(
    broker_settings: BrokerSettings, channel: BlockingChannel
) -> None:
    with channels.confirming_channel(broker_settings, "dies") as other, channels.alone(other, "poll"):
        other.connection.close()
    for _ in range(50):
        with contextlib.suppress(HeldByAnother), channels.alone(channel, "poll"):
            return
        channel.connection.process_data_events(time_limit=0.1)
    pytest.fail("the lock outlived its holder")


def test_two_may_take_a_virtual_host_over_at_once(channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one deletes the claim of the former bucket after this one has seen it."""
    serving.claim(channel, "former")
    ask = Asking.refusal
    refusals: list[str] = []

    def ask_beside_another(asking: Asking, call: Any) -> str | None:
        refusal = ask(asking, call)
        if refusal and not refusals:
            channel.queue_delete(topology.CLAIM)
        refusals.extend([refusal] if refusal else [])
        return refusal

    monkeypatch.setattr(Asking, "refusal", ask_beside_another)
    serving.claim(channel, "latter")
    monkeypatch.undo()
    assert "current is 'former'" in refusals[0]
    serving.claim_of("latter").declare(channel)
    channel.queue_delete(topology.CLAIM)


def test_a_broker_that_takes_the_connection_and_says_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/?stack_timeout=1"
        settings = BrokerSettings.model_validate({"RABBITMQ_URL": url})
        with pytest.raises(DependencyDown, match="Timeout"):
            channels.connect(settings, "test")


def test_only_one_makes_the_claim_anew_at_a_time(
    broker_settings: BrokerSettings, channel: BlockingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 3.10 that deletes and declares one quorum queue for several at once may refuse its name for good."""
    serving.claim(channel, "former")
    monkeypatch.setattr(serving, "_REPLACING_SECONDS", 0.2)
    with channels.confirming_channel(broker_settings, "other") as other:
        with channels.alone(other, "claim"), pytest.raises(DependencyDown, match="another process"):
            serving.claim(channel, "latter")
        serving.claim_of("former").declare(channel)
        serving.claim(channel, "latter")
    serving.claim_of("latter").declare(channel)
    channel.queue_delete(topology.CLAIM)

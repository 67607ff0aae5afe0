"""The webhook receiver: a real process between a store that posts and a real broker, which a proxy takes away."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pika.frame
import pika.spec
import pytest
import requests

from tests.doubles.proxy import Proxy
from tests.doubles.receiver import TOKEN, Receiver, free_port
from tests.stage.broker import EVENTS, FILES, Broker, fresh_vhost
from tests.stage.stage import Stage, wait_until

EVENT = '{"EventName": "s3:ObjectCreated:Put",\n "Records": [],  "odd": "Wanjikũ"}'.encode()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.url) as opened:
        yield opened


@pytest.fixture
def receiver(shared_stage: Stage, proxy: Proxy) -> Iterator[Receiver]:
    shared_stage.broker.purge()
    started = Receiver(
        shared_stage,
        RABBITMQ_URL=proxy.url,
        FLEETTICKETS_WEBHOOK_CONFIRM_SECONDS="2",
        FLEETTICKETS_WEBHOOK_MAX_BYTES="5000",
    )
    started.wait()
    yield started
    proxy.restore()
    started.process.stop()


def queued(stage: Stage) -> list[bytes]:
    return [message.body for message in stage.broker.messages(FILES)]


@pytest.mark.promise("Nothing lost")
def test_what_is_answered_with_200_is_in_the_queue_byte_for_byte(shared_stage: Stage, receiver: Receiver) -> None:
    bodies = [EVENT, b"no JSON at all", b"\xff\xfe\x00", b"x" * 5000]
    for body in bodies:
        assert receiver.post(body).status_code == 200
    assert queued(shared_stage) == bodies
    with shared_stage.broker.channel() as channel:
        _, properties, _ = channel.basic_get(FILES)
    assert properties is not None
    assert properties.delivery_mode == 2
    assert receiver.counted("received_total") == receiver.counted("confirmed_total") == len(bodies)
    assert receiver.counted("no_event_total") == 3
    assert receiver.counted("confirm_seconds_count") == len(bodies)


def test_what_is_refused_says_why_and_is_in_no_queue(shared_stage: Stage, receiver: Receiver) -> None:
    refused = {
        401: receiver.post(EVENT, headers={}),
        413: receiver.post(b"x" * 5001),
        422: receiver.post(b""),
    }
    for status, answer in refused.items():
        assert answer.status_code == status
        assert answer.json()["detail"]
    assert receiver.post(EVENT, headers={"Authorization": "Bearer other"}).status_code == 401
    in_parts = receiver.post(iter([b"x" * 3000, b"x" * 3000]))
    assert in_parts.status_code == 413
    assert queued(shared_stage) == []
    assert receiver.counted('refused_total{reason="token"}') == 2
    assert receiver.counted('refused_total{reason="too_large"}') == 2
    assert receiver.counted("received_total") == 5
    assert TOKEN not in receiver.process.output()


def test_a_body_that_broke_off_is_in_no_queue(shared_stage: Stage, receiver: Receiver) -> None:
    head = f"POST / HTTP/1.1\r\nHost: webhook\r\nAuthorization: {TOKEN}\r\nContent-Length: {len(EVENT)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as store:
        store.sendall(head.encode() + EVENT[:20])
    wait_until(lambda: receiver.counted('refused_total{reason="broken_off"}') == 1, "the end is noticed")
    assert queued(shared_stage) == []


def test_a_broker_that_went_away_is_503_at_once_and_found_again(
    shared_stage: Stage, receiver: Receiver, proxy: Proxy
) -> None:
    assert receiver.post(b'{"n": 1}').status_code == 200
    proxy.refuse()
    wait_until(lambda: not receiver.healthy(), "the loss is noticed")
    away = receiver.post(b'{"n": 2}')
    assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
    for method in ("HEAD", "GET"):
        assert requests.request(method, receiver.url, timeout=10).status_code == 200
    proxy.restore()
    receiver.wait()
    assert receiver.post(b'{"n": 2}').status_code == 200
    assert queued(shared_stage) == [b'{"n": 1}', b'{"n": 2}']
    assert receiver.counted('refused_total{reason="away"}') == 1, "waited for, it would have been late"


def test_events_that_wait_for_their_confirm_get_503_when_the_connection_is_lost(
    receiver: Receiver, proxy: Proxy
) -> None:
    proxy.stall()
    with ThreadPoolExecutor(5) as threads:
        answers = [threads.submit(receiver.post, EVENT) for _ in range(5)]
        wait_until(lambda: receiver.counted("received_total") == 5, "all are under way")
        proxy.refuse()
        assert [answer.result().status_code for answer in answers] == [503] * 5
    assert receiver.counted('refused_total{reason="away"}') == 5


def test_a_broker_that_does_not_confirm_in_time_is_503(shared_stage: Stage, receiver: Receiver, proxy: Proxy) -> None:
    assert receiver.post(EVENT).status_code == 200
    proxy.stall()
    late = receiver.post(EVENT)
    assert late.status_code == 503
    assert "within 2 s" in late.json()["detail"]
    assert receiver.counted('refused_total{reason="late"}') == 1
    proxy.restore()
    assert receiver.post(EVENT).status_code == 200
    # The late one had reached the broker: the store's repetition is a duplicate, which the ledger knows to ignore.
    assert queued(shared_stage) == [EVENT, EVENT, EVENT]


def test_a_broker_that_takes_no_messages_for_now_is_503_until_it_does(receiver: Receiver, proxy: Proxy) -> None:
    proxy.say_to_clients(pika.frame.Method(0, pika.spec.Connection.Blocked("low on memory")).marshal())
    wait_until(lambda: not receiver.healthy(), "the block is noticed")
    blocked = receiver.post(EVENT)
    assert blocked.status_code == 503
    assert "low on memory" in blocked.json()["detail"]
    proxy.say_to_clients(pika.frame.Method(0, pika.spec.Connection.Unblocked()).marshal())
    receiver.wait()
    assert receiver.post(EVENT).status_code == 200


def test_a_receiver_started_before_its_broker_answers_probes_and_serves_later(
    shared_stage: Stage, proxy: Proxy
) -> None:
    proxy.refuse()
    early = Receiver(shared_stage, RABBITMQ_URL=proxy.url)
    wait_until(lambda: "listening" in early.process.output(), "it listens")
    assert requests.head(early.url, timeout=10).status_code == 200
    assert early.post(EVENT).status_code == 503
    proxy.restore()
    early.wait()
    assert early.post(EVENT).status_code == 200
    early.process.stop()


def test_sigterm_finishes_the_requests_under_way(shared_stage: Stage, receiver: Receiver, proxy: Proxy) -> None:
    proxy.stall()
    with ThreadPoolExecutor(5) as threads:
        answers = [threads.submit(receiver.post, EVENT) for _ in range(5)]
        wait_until(lambda: receiver.counted("received_total") == 5, "all are under way")
        receiver.process.terminate()
        wait_until(lambda: not accepts(receiver.port), "no new connection is taken")
        proxy.restore()
        assert [answer.result().status_code for answer in answers] == [200] * 5
    assert receiver.process.wait() == 0
    assert queued(shared_stage) == [EVENT] * 5


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.promise("Nothing lost")
def test_nothing_is_lost_while_the_connection_is_cut_again_and_again(
    shared_stage: Stage, receiver: Receiver, proxy: Proxy
) -> None:
    over = threading.Event()
    taken: list[int] = []

    def cut() -> None:
        before = 0
        while not over.wait(0.7):
            if len(taken) > before:  # a busy machine may not get further than to connect anew
                before = len(taken)
                proxy.cut()

    def send(number: int) -> None:
        while receiver.post(str(number).encode()).status_code != 200:
            time.sleep(0.1)
        taken.append(number)

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(send, range(300)))
    finally:
        over.set()
        cutting.join()
    assert set(queued(shared_stage)) == {str(number).encode() for number in range(300)}


@pytest.fixture
def own_broker(services: dict[str, str]) -> Broker:
    """A vhost to break."""
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        pytest.skip("the management API makes and changes the virtual host of this test")
    return fresh_vhost(services["RABBITMQ_URL"], management, "fleettickets-webhook")


def test_an_event_that_no_queue_takes_is_503_and_the_log_says_what_to_run(
    shared_stage: Stage, own_broker: Broker
) -> None:
    receiver = Receiver(shared_stage, RABBITMQ_URL=own_broker.url)
    receiver.wait()
    with own_broker.channel() as channel:
        channel.queue_unbind(FILES, EVENTS, "#")
    assert receiver.post(EVENT).status_code == 503
    assert "run: fleettickets topology" in receiver.process.output()
    assert shared_stage.run("topology", RABBITMQ_URL=own_broker.url).returncode == 0
    assert receiver.post(EVENT).status_code == 200
    assert own_broker.ready(FILES) == 1
    receiver.process.stop()


def test_an_exchange_that_vanished_is_declared_anew(shared_stage: Stage, own_broker: Broker) -> None:
    receiver = Receiver(shared_stage, RABBITMQ_URL=own_broker.url)
    receiver.wait()
    with own_broker.channel() as channel:
        channel.exchange_delete(EVENTS)
    assert receiver.post(EVENT).status_code == 503
    wait_until(lambda: receiver.post(EVENT).status_code == 200, "the exchange is back")
    receiver.process.stop()


def test_a_queue_that_is_full_is_503(shared_stage: Stage, own_broker: Broker) -> None:
    receiver = Receiver(shared_stage, RABBITMQ_URL=own_broker.url)
    receiver.wait()
    policy = {"pattern": f"^{FILES}$", "definition": {"max-length": 1}, "apply-to": "queues"}
    address = f"{own_broker.management}/api/policies/{own_broker.vhost}/{quote('full')}"
    requests.put(address, data=json.dumps(policy), timeout=10).raise_for_status()
    wait_until(lambda: receiver.post(EVENT).status_code == 503, "the queue is full")
    assert receiver.counted('refused_total{reason="nacked"}') == 1
    assert own_broker.ready(FILES) == receiver.counted("confirmed_total")
    receiver.process.stop()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FLEETTICKETS_WEBHOOK_TOKEN": ""}, "FLEETTICKETS_WEBHOOK_TOKEN"),
        ({"RABBITMQ_URL": "{}-wrong"}, "no such virtual host"),
    ],
)
def test_a_receiver_that_cannot_work_as_it_is_set_ends_with_one_line(
    shared_stage: Stage, environment: dict[str, str], words: str
) -> None:
    given = {name: value.format(shared_stage.broker.url) for name, value in environment.items()}
    ended = shared_stage.run("webhook", "--port", str(free_port()), **({"FLEETTICKETS_WEBHOOK_TOKEN": TOKEN} | given))
    assert ended.returncode == 2
    complaint = ended.stderr.splitlines()[-1]
    assert complaint.startswith("fleettickets: ")
    assert words in complaint
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_ends_with_one_line(shared_stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = shared_stage.run("webhook", "--port", str(port), FLEETTICKETS_WEBHOOK_TOKEN=TOKEN)
    assert ended.returncode == 2
    assert ended.stderr == f"fleettickets: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_what_is_no_http_is_told_so_and_counted_and_every_line_of_the_log_is_json(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as stranger:
        stranger.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert stranger.recv(1000).startswith(b"HTTP/1.1 400")
    assert receiver.counted('refused_total{reason="no_http"}') == 1
    for line in receiver.process.output().splitlines():
        json.loads(line)

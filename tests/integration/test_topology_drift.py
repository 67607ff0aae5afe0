"""What `topology` says of a server that has things otherwise; it never takes anything away."""

import json
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from pika.adapters.blocking_connection import BlockingChannel
from pydantic import SecretStr
from typer.testing import CliRunner

from consumer.program import program
from publisher.broker import channels, management, publishing, topology
from publisher.broker.topology import EVENTS, Queue, QuorumQueue
from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import BrokerSettings
from publisher.trace import Trace

DEAD_FILES = Queue.FILES.dead_letters
GEOCODE = Queue.GEOCODE.broker_name
RETRY = topology.retry_exchange(topology.RETRY_DELAYS[0])
STALE_QUEUE, STALE_EXCHANGE = "fleettickets.retry.7s", "fleettickets.old"


@pytest.fixture
def drifted(channel: BlockingChannel) -> Iterator[BlockingChannel]:
    """A queue of another type, one with another limit, an exchange of another type, and two that nobody declares."""
    for name in (DEAD_FILES, GEOCODE):
        channel.queue_delete(name)
    channel.exchange_delete(RETRY)
    channel.queue_declare(DEAD_FILES, durable=True)
    (geocode,) = (declared for declared in topology.declarations() if declared.name == GEOCODE)
    assert isinstance(geocode, QuorumQueue)
    QuorumQueue(GEOCODE, geocode.arguments | {"x-delivery-limit": 7}).declare(channel)
    channel.exchange_declare(RETRY, exchange_type="direct", durable=True)
    channel.queue_declare(STALE_QUEUE, durable=True)
    channel.exchange_declare(STALE_EXCHANGE, durable=True)
    yield channel
    for name in (DEAD_FILES, GEOCODE, STALE_QUEUE):
        channel.queue_delete(name)
    for name in (RETRY, STALE_EXCHANGE):
        channel.exchange_delete(name)
    topology.declare(channel)


@pytest.fixture
def run(broker_settings: BrokerSettings, services: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("RABBITMQ_URL", broker_settings.rabbitmq_url.get_secret_value())
    if management := services.get("RABBITMQ_MANAGEMENT_URL"):
        monkeypatch.setenv("RABBITMQ_MANAGEMENT_URL", management)
    else:
        monkeypatch.delenv("RABBITMQ_MANAGEMENT_URL", raising=False)
    return CliRunner()


def test_everything_that_differs_is_listed_with_what_to_do(drifted: BlockingChannel, run: CliRunner) -> None:
    drifted.queue_delete(Queue.HISTORY.broker_name)
    ended = run.invoke(program, ["topology"])
    assert ended.exit_code == 1, ended.output
    lines = dict(line.split(": ", 1) for line in ended.output.splitlines() if ": " in line)
    assert lines[f"queue {DEAD_FILES}"].startswith("'x-queue-type' is ")
    assert lines[f"queue {GEOCODE}"].startswith("'x-delivery-limit' is '7', should be '500'; stop what publishes there")
    assert "let it run empty, delete it on the server, then run: fleettickets topology" in lines[f"queue {GEOCODE}"]
    assert lines[f"exchange {RETRY}"].startswith("'type' is 'direct', should be 'fanout'; delete it")
    assert channels.queue_depth(drifted, Queue.HISTORY.broker_name) == (0, 0)  # what was missing is there again


def test_checking_declares_nothing_and_deletes_nothing(
    drifted: BlockingChannel, run: CliRunner, services: dict[str, str], broker_settings: BrokerSettings
) -> None:
    missing = Queue.HISTORY.broker_name
    drifted.queue_delete(missing)
    for _ in range(2):
        ended = run.invoke(program, ["topology", "--check", "--json"])
        assert ended.exit_code == 1
        found = json.loads(ended.output)
        assert found["declared"] == []
        whats = {difference["name"]: difference["what"] for difference in found["different"]}
        assert whats[missing] == "missing"
        assert {DEAD_FILES, GEOCODE, RETRY} <= whats.keys()
        if "RABBITMQ_MANAGEMENT_URL" in services:
            assert {(other["kind"], other["name"]) for other in found["undeclared"]} == {
                ("queue", STALE_QUEUE),
                ("exchange", STALE_EXCHANGE),
            }
            assert f"{EVENTS} -> {Queue.FILES.broker_name} for '#'" not in whats
            assert whats[f"fleettickets -> {missing} for 'history'"] == "missing"
    with (
        channels.confirming_channel(broker_settings, "tests") as other,
        pytest.raises(Misconfigured, match="no queue"),
    ):
        channels.queue_depth(other, missing)


def test_what_is_not_declared_here_fails_the_check_alone(
    channel: BlockingChannel, run: CliRunner, services: dict[str, str]
) -> None:
    if "RABBITMQ_MANAGEMENT_URL" not in services:
        pytest.skip("the management API's address is not known")
    channel.queue_declare(STALE_QUEUE, durable=True)
    try:
        declared, checked = (run.invoke(program, ["topology", *check]) for check in ([], ["--check"]))
    finally:
        channel.queue_delete(STALE_QUEUE)
    assert (declared.exit_code, checked.exit_code) == (0, 1)
    for ended in (declared, checked):
        assert f"queue {STALE_QUEUE}: undeclared" in ended.output


def test_bindings_and_policies_that_do_harm_are_found(
    channel: BlockingChannel, run: CliRunner, services: dict[str, str], broker_settings: BrokerSettings
) -> None:
    if "RABBITMQ_MANAGEMENT_URL" not in services:
        pytest.skip("the management API's address is not known")
    virtual_host = urlsplit(broker_settings.rabbitmq_url.get_secret_value()).path.removeprefix("/") or "%2f"
    policy = f"{services['RABBITMQ_MANAGEMENT_URL']}/api/policies/{virtual_host}/everything"
    settings = broker_settings.model_copy(update={"management_url": SecretStr(services["RABBITMQ_MANAGEMENT_URL"])})
    history = Queue.HISTORY.broker_name
    channel.queue_bind(history, EVENTS, "#")
    channel.queue_bind(Queue.FILES.broker_name, topology.MQTT, "stale.topic")
    requests.put(
        policy, json={"pattern": ".*", "definition": {"message-ttl": 60000}, "apply-to": "queues"}, timeout=10
    ).raise_for_status()
    try:
        for _ in range(100):  # a policy takes effect on one queue after the other
            ended = run.invoke(program, ["topology", "--check"])
            if f"queue {DEAD_FILES}: by policy" in ended.output:
                break
            channel.connection.process_data_events(time_limit=0.1)
    finally:
        requests.delete(policy, timeout=10)
        for _ in range(150):  # and is forgotten a moment later still
            if not management.overridden(settings):
                break
            channel.connection.process_data_events(time_limit=0.1)
        channel.queue_unbind(history, EVENTS, "#")
        channel.queue_unbind(Queue.FILES.broker_name, topology.MQTT, "stale.topic")
    assert ended.exit_code == 1
    for line in (
        f"binding {EVENTS} -> {history} for '#': undeclared; unbind it",
        f"binding {topology.MQTT} -> {Queue.FILES.broker_name} for 'stale.topic': undeclared; an MQTT topic: name it",
        f"queue {DEAD_FILES}: by policy everything: message-ttl is 60000; keep our queues out",
    ):
        assert line in ended.output


def test_the_lock_of_a_running_poll_is_no_drift(
    channel: BlockingChannel, run: CliRunner, broker_settings: BrokerSettings
) -> None:
    with channels.confirming_channel(broker_settings, "poll") as other, channels.alone(other, "poll"):
        assert channel.is_open
        ended = run.invoke(program, ["topology", "--check"])
    assert ended.exit_code == 0, ended.output


def test_a_server_that_has_it_all_passes_the_check(channel: BlockingChannel, run: CliRunner) -> None:
    ended = run.invoke(program, ["topology", "--check"])
    assert (ended.exit_code, channel.is_open) == (0, True), ended.output


def test_a_binding_for_mqtt_is_made_and_checked(channel: BlockingChannel, run: CliRunner) -> None:
    asked = ["topology", "--mqtt-topic", "plant/changes", "--mqtt-topic", "depot/changes"]
    if os.environ.get("RABBITMQ_MANAGEMENT_URL"):
        missing = run.invoke(program, [*asked, "--check"])
        assert missing.exit_code == 1
        assert "missing; run: fleettickets topology --mqtt-topic plant/changes" in missing.output
    assert run.invoke(program, asked).exit_code == 0
    assert run.invoke(program, [*asked, "--check"]).exit_code == 0
    for key in ("plant.changes", "depot.changes"):
        publishing.publish(channel, publishing.Outgoing(topology.MQTT, key, b"{}", Trace.of(b"{}")))
    assert channels.queue_depth(channel, Queue.FILES.broker_name)[0] == 2
    channel.queue_unbind(Queue.FILES.broker_name, topology.MQTT, "plant.changes")
    channel.queue_unbind(Queue.FILES.broker_name, topology.MQTT, "depot.changes")


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://127.0.0.1:1", DependencyDown), ("{}", Misconfigured), ("http://guest:wrong@{}", Misconfigured)],
)
def test_a_management_api_that_does_not_answer_is_said(
    run: CliRunner, services: dict[str, str], monkeypatch: pytest.MonkeyPatch, url: str, error: type[Exception]
) -> None:
    known = services.get("RABBITMQ_MANAGEMENT_URL", "").rpartition("@")[2]
    monkeypatch.setenv("RABBITMQ_MANAGEMENT_URL", url.format(known))
    ended = run.invoke(program, ["topology"])
    assert isinstance(ended.exception, error)
    assert "\n" not in str(ended.exception)


def test_a_management_api_of_another_broker_is_said(services: dict[str, str], broker_settings: BrokerSettings) -> None:
    if "RABBITMQ_MANAGEMENT_URL" not in services:
        pytest.skip("the management API's address is not known")
    elsewhere = SecretStr(broker_settings.rabbitmq_url.get_secret_value() + "-elsewhere")
    settings = broker_settings.model_copy(
        update={"rabbitmq_url": elsewhere, "management_url": SecretStr(services["RABBITMQ_MANAGEMENT_URL"])}
    )
    with pytest.raises(Misconfigured, match=r"no virtual host '.*-elsewhere'; is it the broker of RABBITMQ_URL\?"):
        management.overridden(settings)

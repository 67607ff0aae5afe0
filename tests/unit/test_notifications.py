"""Rules of a bucket merged and compared, and the broker's address as stores are given it."""

import pytest

from publisher.errors import Misconfigured
from publisher.settings import BrokerSettings, BucketSettings
from publisher.store.notifications import (
    RustfsWay,
    comparable,
    masked,
    merged,
    push_endpoint,
    rustfs_target,
    section_of,
)

OURS = {"Id": "fleettickets-inc", "QueueArn": "arn:aws:sqs:r:1:q", "Events": ["s3:ObjectCreated:*"]}
OTHERS = {"Id": "x", "QueueArn": "arn:aws:sqs:r:1:other", "Events": ["s3:ObjectRemoved:*"]}


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("amqp://guest:guest@127.0.0.1:5673/demo", "amqp://127.0.0.1:5673/demo"),
        ("amqp://127.0.0.1/", "amqp://127.0.0.1:5672"),
        ("amqp://127.0.0.1/%2f", "amqp://127.0.0.1:5672"),
        ("amqp://guest:guest@h/a%2Fb", "amqp://h:5672/a%2Fb"),
        ("amqps://me:se%40cret@h:5671/v", "amqps://me:se%40cret@h:5671/v"),
        ("amqps://me:s@h/v", "amqps://me:s@h:5671/v"),
        ("amqp://me@h/", "amqp://me@h:5672"),
        ("amqps://me:s@[::1]/v", "amqps://me:s@[::1]:5671/v"),
        ("amqp://[::1]:1/", "amqp://[::1]:1"),
    ],
)
def test_the_default_login_is_left_out_and_the_virtual_host_kept(url: str, endpoint: str) -> None:
    assert push_endpoint(url) == endpoint


def test_no_password_is_shown() -> None:
    assert masked("amqps://me:se%40cret@h:5671/v") == "amqps://***@h:5671/v"
    assert masked("amqp://h:5672") == "amqp://h:5672"


def test_the_rules_of_others_stay_where_they_are() -> None:
    now = {
        "QueueConfigurations": [OTHERS],
        "TopicConfigurations": [{**OURS, "TopicArn": "t"}, {**OTHERS, "TopicArn": "t"}],
        "EventBridgeConfiguration": {},
    }
    assert merged(now, "QueueConfigurations", [OURS]) == {
        "QueueConfigurations": [OTHERS, OURS],
        "TopicConfigurations": [{**OTHERS, "TopicArn": "t"}],
        "EventBridgeConfiguration": {},
    }
    assert merged({}, "QueueConfigurations", [OURS]) == {"QueueConfigurations": [OURS]}


def test_merging_again_changes_nothing() -> None:
    once = merged({"QueueConfigurations": [OTHERS]}, "QueueConfigurations", [OURS])
    assert merged(once, "QueueConfigurations", [OURS]) == once


def test_what_stores_only_spell_otherwise_is_the_same() -> None:
    def filtered(name: str, value: str) -> dict[str, object]:
        return {**OURS, "Filter": {"Key": {"FilterRules": [{"Name": name, "Value": value}]}}}

    wanted = {"QueueConfigurations": [OTHERS, filtered("prefix", "a/")]}
    assert comparable({"QueueConfigurations": [filtered("Prefix", "a/"), OTHERS]}) == comparable(wanted)
    assert comparable({"QueueConfigurations": [filtered("Prefix", "b/"), OTHERS]}) != comparable(wanted)
    assert comparable({"QueueConfigurations": [filtered("Suffix", "a/"), OTHERS]}) != comparable(wanted)


@pytest.mark.parametrize(
    ("arn", "section"),
    [
        ("arn:aws:sqs:eu-west-1:123456789012:changes", "QueueConfigurations"),
        ("arn:aws:sns:eu-west-1:123456789012:changes", "TopicConfigurations"),
        ("arn:rustfs:sqs:us-east-1:primary:amqp", "QueueConfigurations"),
        ("arn:minio:sqs::primary:amqp", "QueueConfigurations"),
    ],
)
def test_queues_and_topics_are_told_apart_by_their_arn(arn: str, section: str) -> None:
    assert section_of(arn) == section


@pytest.mark.parametrize("arn", ["", "changes", "arn:aws:lambda:eu-west-1:123456789012:function:f", "arn:aws:sqs"])
def test_an_arn_of_anything_else_is_refused(arn: str) -> None:
    with pytest.raises(Misconfigured, match="--arn"):
        section_of(arn)


def mqtt_of(url: str) -> str:
    """The same broker by MQTT, with TLS if it is spoken with TLS."""
    host = "[::1]" if "[" in url else "h"
    return f"mqtts://{host}:8883" if url.startswith("amqps") else f"tcp://{host}:1883"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://me:secret@h", "amqp://USER:PASSWORD@h:5672/%2f"),
        ("amqps://me:secret@h:1/a%2Fb", "amqps://USER:PASSWORD@h:1/a%2Fb"),
        ("amqp://me:secret@[::1]/", "amqp://USER:PASSWORD@[::1]:5672/%2f"),
    ],
)
def test_the_environment_of_rustfs_leaves_the_password_to_the_operator(url: str, shown: str) -> None:
    bucket = BucketSettings.model_validate(
        {"RUSTFS_ENDPOINT": "http://h", "RUSTFS_ACCESS_KEY": "a", "RUSTFS_SECRET_KEY": "b", "RUSTFS_REGION": "ke-1"}
    )
    environment, arn = rustfs_target(RustfsWay.AMQP, bucket, BrokerSettings.model_validate({"RABBITMQ_URL": url}))
    assert environment["RUSTFS_NOTIFY_AMQP_URL_PRIMARY"] == shown
    assert environment["RUSTFS_NOTIFY_AMQP_EXCHANGE_PRIMARY"] == "fleettickets.events"
    assert arn == "arn:rustfs:sqs:ke-1:primary:amqp"
    for way, name, value in (
        (RustfsWay.MQTT, "RUSTFS_NOTIFY_MQTT_BROKER_PRIMARY", mqtt_of(url)),
        (RustfsWay.WEBHOOK, "RUSTFS_NOTIFY_WEBHOOK_ENDPOINT_PRIMARY", "http://RECEIVER:8080/"),
    ):
        broker = BrokerSettings.model_validate({"RABBITMQ_URL": url}) if way is RustfsWay.MQTT else None
        environment, arn = rustfs_target(way, bucket, broker)
        assert (environment[name], arn) == (value, f"arn:rustfs:sqs:ke-1:primary:{way}")
        assert "secret" not in "".join(environment.values())


@pytest.mark.parametrize(
    ("path", "user"), [("", "USER"), ("/%2f", "USER"), ("/isp", "isp:USER"), ("/a%2Fb", "a/b:USER")]
)
def test_by_mqtt_the_virtual_host_stands_before_the_user(path: str, user: str) -> None:
    bucket = BucketSettings.model_validate(
        {"RUSTFS_ENDPOINT": "http://h", "RUSTFS_ACCESS_KEY": "a", "RUSTFS_SECRET_KEY": "b"}
    )
    broker = BrokerSettings.model_validate({"RABBITMQ_URL": f"amqp://me:secret@h{path}"})
    environment, _ = rustfs_target(RustfsWay.MQTT, bucket, broker)
    assert environment["RUSTFS_NOTIFY_MQTT_USERNAME_PRIMARY"] == user

"""The bucket's notification configuration, written and checked: on the real gateway, and AWS's at moto."""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from typer.testing import CliRunner, Result

from consumer.feeds.declared import packaged_feeds
from consumer.program import KNOWN, program
from publisher.broker import channels, topology
from publisher.broker.topology import Queue
from publisher.errors import DependencyDown, Misconfigured, Refused
from publisher.settings import BrokerSettings, BucketSettings
from publisher.store.bucket import Bucket
from publisher.store.notifications import Notifications

CHANGES = "automations/inc/changes/"
Run = Callable[..., Result]


@pytest.fixture
def run(broker_settings: BrokerSettings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `notifications` for one bucket, at one store."""

    def invoke(settings: BucketSettings, *arguments: str) -> Result:
        monkeypatch.setenv("RUSTFS_ENDPOINT", str(settings.endpoint))
        monkeypatch.setenv("RUSTFS_ACCESS_KEY", settings.access_key.get_secret_value())
        monkeypatch.setenv("RUSTFS_SECRET_KEY", settings.secret_key.get_secret_value())
        monkeypatch.setenv("RUSTFS_REGION", settings.region)
        monkeypatch.setenv("RUSTFS_BUCKET", settings.bucket)
        return CliRunner().invoke(program, ["notifications", *arguments], obj=KNOWN)

    monkeypatch.setenv("RABBITMQ_URL", broker_settings.rabbitmq_url.get_secret_value())
    return invoke


@pytest.fixture
def on_ceph(services: dict[str, str], bucket: Bucket) -> Iterator[BucketSettings]:
    settings = BucketSettings.model_validate({**services, "RUSTFS_BUCKET": bucket.name})
    yield settings
    sns = client("sns", settings)
    for found in sns.list_topics().get("Topics", []):
        if bucket.name in found["TopicArn"]:
            sns.delete_topic(TopicArn=found["TopicArn"])


@pytest.fixture
def on_aws(moto: int) -> BucketSettings:
    settings = BucketSettings.model_validate(
        {
            "RUSTFS_ENDPOINT": f"http://127.0.0.1:{moto}",
            "RUSTFS_ACCESS_KEY": "testing",
            "RUSTFS_SECRET_KEY": "testing",
            "RUSTFS_REGION": "us-east-1",
            "RUSTFS_BUCKET": f"ft-{uuid.uuid4().hex[:12]}",
        }
    )
    client("s3", settings).create_bucket(Bucket=settings.bucket)
    return settings


def client(kind: Any, settings: BucketSettings) -> Any:
    return boto3.client(
        kind,
        endpoint_url=str(settings.endpoint),
        aws_access_key_id=settings.access_key.get_secret_value(),
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        region_name=settings.region,
    )


def configured(settings: BucketSettings, section: str) -> dict[str, Any]:
    """The rules of a section by their Id."""
    found = client("s3", settings).get_bucket_notification_configuration(Bucket=settings.bucket)
    return {rule["Id"]: rule for rule in found.get(section, [])}


def test_ceph_gets_a_topic_and_a_rule_and_keeps_its_other_rules(run: Run, on_ceph: BucketSettings) -> None:
    s3, sns = client("s3", on_ceph), client("sns", on_ceph)
    other = sns.create_topic(Name=f"other-{on_ceph.bucket}", Attributes={"push-endpoint": "http://127.0.0.1:1"})
    theirs = {"Id": "theirs", "TopicArn": other["TopicArn"], "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=on_ceph.bucket, NotificationConfiguration={"TopicConfigurations": [theirs]}
    )
    dry = run(on_ceph, "--store", "ceph", "--json")
    assert dry.exit_code == 1
    assert configured(on_ceph, "TopicConfigurations").keys() == {"theirs"}
    shown = json.loads(dry.output)
    assert (shown["in_place"], shown["topic"]["now"]) == (False, None)
    assert len(shown["wanted"]["TopicConfigurations"]) == 3

    assert run(on_ceph, "--store", "ceph", "--apply").exit_code == 0
    rules = configured(on_ceph, "TopicConfigurations")
    assert rules.keys() == {"theirs", "fleettickets-inc", "fleettickets-crq"}
    assert rules["fleettickets-inc"]["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": CHANGES}]
    assert rules["fleettickets-inc"]["Events"] == ["s3:ObjectCreated:*"]
    checked = run(on_ceph, "--store", "ceph", "--json")
    assert checked.exit_code == 0
    topic = json.loads(checked.output)["topic"]["now"]
    assert (topic["persistent"], topic["amqp-ack-level"]) == ("true", "broker"), "it keeps what is not confirmed"
    assert run(on_ceph, "--store", "ceph", "--apply").exit_code == 0


def test_what_ceph_was_set_to_announce_arrives(
    on_ceph: BucketSettings, broker_settings: BrokerSettings, channel: BlockingChannel
) -> None:
    notifications = Notifications(on_ceph, packaged_feeds().folders)
    notifications.apply(notifications.plan_for_ceph(broker_settings, persistent=False))
    assert notifications.plan_for_ceph(broker_settings, persistent=False).in_place
    assert not notifications.plan_for_ceph(broker_settings).in_place
    s3 = client("s3", on_ceph)
    s3.put_object(Bucket=on_ceph.bucket, Key="automations/inc/processed/no.csv", Body=b"")
    s3.put_object(Bucket=on_ceph.bucket, Key=f"{CHANGES}yes.csv", Body=b"")
    end = time.monotonic() + 40
    while channels.queue_depth(channel, Queue.FILES.broker_name)[0] == 0 and time.monotonic() < end:
        channel.connection.process_data_events(time_limit=0.1)
    _, _, body = channel.basic_get(Queue.FILES.broker_name, auto_ack=True)
    assert json.loads(body or b"")["Records"][0]["s3"]["object"]["key"] == f"{CHANGES}yes.csv"
    assert channels.queue_depth(channel, Queue.FILES.broker_name)[0] == 0


def test_a_rule_that_would_lose_something_in_writing_it_back_is_left_alone(run: Run, on_ceph: BucketSettings) -> None:
    s3, sns = client("s3", on_ceph), client("sns", on_ceph)
    topic = sns.create_topic(Name=f"tagged-{on_ceph.bucket}", Attributes={"push-endpoint": "http://127.0.0.1:1"})
    by_metadata = b"<S3Metadata><FilterRule><Name>x-amz-meta-a</Name><Value>b</Value></FilterRule></S3Metadata>"

    def add_filter(params: dict[str, Any], **_: object) -> None:
        params["body"] = re.sub(b"</Filter>", by_metadata + b"</Filter>", params["body"])

    s3.meta.events.register("before-call.s3.PutBucketNotificationConfiguration", add_filter)
    prefix = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "x/"}]}}
    rule = {"Id": "theirs", "TopicArn": topic["TopicArn"], "Events": ["s3:ObjectCreated:*"], "Filter": prefix}
    s3.put_bucket_notification_configuration(
        Bucket=on_ceph.bucket, NotificationConfiguration={"TopicConfigurations": [rule]}
    )
    ended = run(on_ceph, "--store", "ceph", "--apply")
    assert isinstance(ended.exception, Misconfigured)
    assert "metadata or tags" in str(ended.exception)
    assert configured(on_ceph, "TopicConfigurations").keys() == {"theirs"}


def test_a_password_that_ceph_does_not_take_is_neither_set_nor_shown(
    run: Run, on_ceph: BucketSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://me:hidden-one@127.0.0.1:1/v")
    dry, applied = run(on_ceph, "--store", "ceph"), run(on_ceph, "--store", "ceph", "--apply")
    assert dry.exit_code == 1
    assert "amqp://***@127.0.0.1:1/v" in dry.output
    assert isinstance(applied.exception, Refused)
    assert "over https only" in str(applied.exception)
    assert "hidden-one" not in dry.output + applied.output + str(applied.exception)
    assert configured(on_ceph, "TopicConfigurations") == {}


def test_aws_gets_a_rule_for_the_queue_and_keeps_its_other_rules(run: Run, on_aws: BucketSettings) -> None:
    s3, sqs = client("s3", on_aws), client("sqs", on_aws)
    url = sqs.create_queue(QueueName=on_aws.bucket)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    theirs = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=on_aws.bucket, NotificationConfiguration={"QueueConfigurations": [theirs]}
    )
    assert run(on_aws, "--arn", arn).exit_code == 1
    assert run(on_aws, "--arn", arn, "--apply").exit_code == 0
    rules = configured(on_aws, "QueueConfigurations")
    assert rules.keys() == {"theirs", "fleettickets-inc", "fleettickets-crq"}
    assert rules["theirs"]["Events"] == ["s3:ObjectRemoved:*"]
    again = run(on_aws, "--arn", arn)
    assert again.exit_code == 0, again.output
    assert again.output.endswith("in place\n")

    s3.put_object(Bucket=on_aws.bucket, Key=f"{CHANGES}yes.csv", Body=b"")
    s3.put_object(Bucket=on_aws.bucket, Key="automations/inc/processed/no.csv", Body=b"")
    bodies = [message["Body"] for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]]
    keys = [record["s3"]["object"]["key"] for body in bodies for record in json.loads(body).get("Records", [])]
    assert len(keys) == 1
    assert keys[0].endswith("yes.csv")


def test_for_rustfs_the_environment_and_the_rule_are_shown(
    run: Run, on_aws: BucketSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://me:hidden-one@rabbitmq:5672/%2f")
    ended = run(on_aws, "--store", "rustfs")
    assert ended.exit_code == 1
    lines = ended.output.splitlines()
    assert "RUSTFS_NOTIFY_AMQP_URL_PRIMARY=amqp://USER:PASSWORD@rabbitmq:5672/%2f" in lines
    assert f"RUSTFS_NOTIFY_AMQP_EXCHANGE_PRIMARY={topology.EVENTS}" in lines
    assert '"arn:rustfs:sqs:us-east-1:primary:amqp"' in ended.output
    assert "hidden-one" not in ended.output


def test_for_rustfs_they_are_shown_before_there_is_a_store_to_be_asked(run: Run, on_aws: BucketSettings) -> None:
    away = on_aws.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    ended = run(away, "--store", "rustfs")
    assert isinstance(ended.exception, DependencyDown)
    assert "RUSTFS_NOTIFY_AMQP_ENABLE_PRIMARY=on" in ended.output.splitlines()
    assert "arn: arn:rustfs:sqs:us-east-1:primary:amqp" in ended.output.splitlines()
    shown = json.loads(run(away, "--store", "rustfs", "--json").output)
    rules = {rule["Id"]: rule for rule in shown["rule"]["QueueConfigurations"]}
    assert {rule["QueueArn"] for rule in rules.values()} == {shown["arn"]}
    assert shown["in_place"] is None
    folders = {folder.feed: folder.changes for folder in packaged_feeds().folders}
    assert {name: rule["Filter"]["Key"]["FilterRules"] for name, rule in rules.items()} == {
        f"fleettickets-{feed}": [{"Name": "prefix", "Value": changes}] for feed, changes in folders.items()
    }


def test_a_bucket_that_is_not_there_and_a_choice_that_is_not_made_are_said(run: Run, on_aws: BucketSettings) -> None:
    gone = on_aws.model_copy(update={"bucket": "ft-not-there"})
    arn = "arn:aws:sqs:us-east-1:123456789012:changes"
    for ended, words in (
        (run(gone, "--arn", arn), "RUSTFS_BUCKET: there is no such bucket"),
        (run(on_aws), "say which"),
        (run(on_aws, "--arn", arn, "--store", "ceph"), "say which"),
    ):
        assert isinstance(ended.exception, Misconfigured)
        assert words in str(ended.exception)


def test_a_bucket_is_made_only_when_asked_for(run: Run, on_ceph: BucketSettings) -> None:
    fresh = on_ceph.model_copy(update={"bucket": f"{on_ceph.bucket}-fresh"})
    s3 = client("s3", fresh)
    for arguments in ((), ("--apply",), ("--make-bucket",)):
        assert isinstance(run(fresh, "--store", "ceph", *arguments).exception, Misconfigured)
    try:
        for _ in range(2):
            assert run(fresh, "--store", "ceph", "--make-bucket", "--apply").exit_code == 0
        assert configured(fresh, "TopicConfigurations").keys() == {"fleettickets-inc", "fleettickets-crq"}
    finally:
        s3.delete_bucket(Bucket=fresh.bucket)

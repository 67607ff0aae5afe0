"""AWS's way in: a bucket that announces to SQS, the bridge, the broker, the consumer. S3, SNS and SQS are moto's."""

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest

from tests.conftest import Database
from tests.doubles.proxy import Proxy
from tests.stage.broker import FILES, Broker
from tests.stage.feeds import OddKeys, csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED, Bucket

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

REGION = "us-east-1"
AWS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
KEY = key_at(0)
HIDDEN_SECONDS = 20
"""How long the bridge hides a message from other readers, unless it says so anew."""


@dataclass
class Queue:
    """The SQS queue as its owner sees it."""

    sqs: "SQSClient"
    url: str

    @property
    def arn(self) -> str:
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        return attributes["Attributes"]["QueueArn"]

    def counts(self) -> tuple[int, int]:
        """Messages that a reader could have now, and messages that are hidden in the hands of one."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])


@dataclass
class Aws:
    stage: Stage
    queue: Queue
    sns: "SNSClient"
    events: "EventBridgeClient"
    url: str

    def notify_queue(self) -> None:
        rule = {
            "Id": "changes",
            "QueueArn": self.queue.arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": CHANGES}]}},
        }
        self._configure({"QueueConfigurations": [rule]})

    def notify_topic(self, *, raw: bool = False) -> None:
        topic = self.sns.create_topic(Name=self.stage.bucket.name)["TopicArn"]
        attributes = {"RawMessageDelivery": str(raw).lower()}
        self.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=self.queue.arn, Attributes=attributes)
        self._configure({"TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}]})

    def notify_topic_raw(self) -> None:
        self.notify_topic(raw=True)

    def notify_event_bridge(self) -> None:
        self._configure({"EventBridgeConfiguration": {}})
        name = self.stage.bucket.name
        pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [name]}}}
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        self.events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": self.queue.arn}])

    def _configure(self, configuration: Any) -> None:
        bucket = self.stage.bucket
        bucket.s3.put_bucket_notification_configuration(Bucket=bucket.name, NotificationConfiguration=configuration)

    def settle(self) -> None:
        """Wait until neither queue holds a message."""
        wait_until(lambda: self.queue.counts() == (0, 0), "SQS is empty")
        wait_until(lambda: self.stage.broker.held(FILES) == 0, "the files queue is empty")


@pytest.fixture
def aws(moto: int, broker: Broker, database: Database, tmp_path: Path) -> Iterator[Aws]:
    """A bucket and a queue of one test, and a stage whose program finds both at moto."""
    broker.purge()
    endpoint, name = f"http://127.0.0.1:{moto}", f"aws-{uuid.uuid4().hex[:12]}"
    store = {
        "RUSTFS_ENDPOINT": endpoint,
        "RUSTFS_ACCESS_KEY": "testing",
        "RUSTFS_SECRET_KEY": "testing",
        "RUSTFS_REGION": REGION,
    }
    session = boto3.Session("testing", "testing", region_name=REGION)
    sqs, sns = session.client("sqs", endpoint_url=endpoint), session.client("sns", endpoint_url=endpoint)
    events = session.client("events", endpoint_url=endpoint)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    bucket = Bucket(store, name)
    stage = Stage(store, database.url, broker, bucket, tmp_path)
    stage.environment |= AWS | {"FLEETTICKETS_SQS_QUEUE_URL": url, "FLEETTICKETS_SQS_ENDPOINT": endpoint}
    stage.environment["AWS_DEFAULT_REGION"] = REGION
    try:
        yield Aws(stage, Queue(sqs, url), sns, events, endpoint)
    finally:
        stage.close()
        bucket.remove()
        sqs.close()
        sns.close()
        events.close()


def assert_once(stage: Stage, *keys: str, ignored: Sequence[str] = ()) -> None:
    """Each file was put with one row named after it; each took effect once and is archived."""
    stage.wait_for("done", *keys, *ignored)
    assert stage.waiting() == sorted(ignored)
    assert stage.bucket.keys(PROCESSED) == sorted(key.replace(CHANGES, PROCESSED) for key in keys)
    tickets = stage.query('SELECT ticket_id FROM tickets.inc ORDER BY ticket_id COLLATE "C"')
    assert [row["ticket_id"] for row in tickets] == sorted(keys)
    assert stage.one("SELECT sum(rows_inserted) FROM ingest.ledger") == len(keys)
    unread = stage.query("SELECT key FROM ingest.ledger WHERE decision = 'ignored' ORDER BY key COLLATE \"C\"")
    assert [row["key"] for row in unread] == sorted(ignored)


def put(stage: Stage, *keys: str) -> None:
    for key in keys:
        stage.bucket.put(key, csv([ticket(key)]))


def logged(output: str, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(
    "notify",
    [
        pytest.param(Aws.notify_queue, id="plain"),
        pytest.param(Aws.notify_topic, id="through SNS"),
        pytest.param(Aws.notify_topic_raw, id="through SNS, raw"),
        pytest.param(Aws.notify_event_bridge, id="through EventBridge"),
    ],
)
def test_a_file_in_an_aws_bucket_becomes_rows_by_way_of_sqs(aws: Aws, notify: Callable[[Aws], None]) -> None:
    stage = aws.stage
    notify(aws)
    bridge, consumer = stage.start("sqs"), stage.start("consume")
    keys = OddKeys(0)
    put(stage, *keys.all)
    assert_once(stage, *keys.applied, ignored=keys.ignored)
    assert {row["first_seen_by"] for row in stage.query("SELECT first_seen_by FROM ingest.ledger")} == {"notification"}
    aws.settle()
    bridge.stop()
    consumer.stop()
    batches = logged(bridge.output(), "sqs batch")
    assert sum(batch["published"] for batch in batches) == sum(batch["deleted"] for batch in batches) >= 2


def test_for_cron_the_bridge_carries_what_is_there_and_ends(aws: Aws) -> None:
    aws.notify_queue()
    keys = [key_at(number) for number in range(25)]
    put(aws.stage, *keys)
    done = aws.stage.ask("sqs", "--once")
    assert done == {"published": 26, "deleted": 26}  # moto and AWS send a test event when notifications are set up
    assert aws.queue.counts() == (0, 0)
    again = aws.stage.run("sqs", "--once")
    assert (again.returncode, again.stdout) == (0, "published 0, deleted from SQS 0\n")
    aws.stage.start("consume")
    assert_once(aws.stage, *keys)


def test_a_bridge_killed_before_the_delete_leaves_the_message_to_the_next(aws: Aws) -> None:
    stage = aws.stage
    aws.notify_queue()
    assert stage.ask("sqs", "--once")["published"] == 1  # the test event
    with Proxy(aws.url, losing=b"DeleteMessageBatch") as proxy:
        doomed = stage.start("sqs", FLEETTICKETS_SQS_ENDPOINT=proxy.url)
        put(stage, KEY)
        assert proxy.lost.wait(30)
        doomed.kill()
    assert doomed.wait() == -signal.SIGKILL
    assert aws.queue.counts() == (0, 1)
    consumer = stage.start("consume")
    stage.wait_for("done", KEY)
    healthy = stage.start("sqs")
    wait_until(lambda: logged(healthy.output(), "sqs batch"), "the message comes again", HIDDEN_SECONDS + 15)
    wait_until(lambda: stage.ledger(KEY)["duplicates"] == 1, "the message is known for a duplicate")
    aws.settle()
    assert_once(stage, KEY)
    healthy.stop()
    consumer.stop()


def test_while_the_broker_is_away_messages_stay_in_sqs_and_hidden(aws: Aws) -> None:
    stage = aws.stage
    aws.notify_queue()
    with Proxy(stage.broker.url) as proxy:
        bridge = stage.start("sqs", RABBITMQ_URL=proxy.url)
        wait_until(lambda: logged(bridge.output(), "sqs batch"), "the test event is through")
        proxy.refuse()
        put(stage, KEY)
        wait_until(lambda: aws.queue.counts() == (0, 1), "the bridge has it in hand")
        deadline = time.monotonic() + HIDDEN_SECONDS + 5
        while time.monotonic() < deadline:
            assert aws.queue.counts() == (0, 1), bridge.output()
            time.sleep(0.5)
        assert len(logged(bridge.output(), "sqs visibility extended")) >= 2
        assert stage.broker.ready(FILES) == 1  # the test event alone
        proxy.restore()
        stage.start("consume")
        stage.wait_for("done", KEY)
        aws.settle()
        bridge.stop()
    assert_once(stage, KEY)
    assert stage.ledger(KEY)["duplicates"] == 0


def test_a_bridge_stopped_while_the_broker_is_away_gives_its_messages_back(aws: Aws) -> None:
    stage = aws.stage
    aws.notify_queue()
    with Proxy(stage.broker.url) as proxy:
        bridge = stage.start("sqs", RABBITMQ_URL=proxy.url)
        wait_until(lambda: logged(bridge.output(), "sqs batch"), "the test event is through")
        proxy.refuse()
        put(stage, KEY)
        wait_until(lambda: aws.queue.counts() == (0, 1), "the bridge has it in hand")
        bridge.stop()
    assert aws.queue.counts() == (1, 0)


def test_a_delete_that_fails_costs_a_duplicate_and_no_more(aws: Aws) -> None:
    stage = aws.stage
    aws.notify_queue()
    with Proxy(aws.url, losing=b"DeleteMessageBatch") as proxy:
        bridge = stage.start("sqs", FLEETTICKETS_SQS_ENDPOINT=proxy.url)
        assert proxy.lost.wait(30)
        proxy.refuse()  # the delete breaks off, and SQS is away
        wait_until(lambda: logged(bridge.output(), "sqs delete failed"), "the bridge has noticed")
        assert bridge.running
        proxy.restore()
        bridge.stop()


@pytest.mark.parametrize("service", ["rabbitmq", "SQS"])
def test_a_bridge_says_once_that_a_service_is_back(aws: Aws, service: str) -> None:
    with Proxy(aws.stage.broker.url) as broker, Proxy(aws.url) as sqs:
        bridge = aws.stage.start("sqs", RABBITMQ_URL=broker.url, FLEETTICKETS_SQS_ENDPOINT=sqs.url)
        wait_until(lambda: logged(bridge.output(), "settings"), "both have answered")
        away = broker if service == "rabbitmq" else sqs
        away.refuse()
        wait_until(lambda: f"{service} is not available" in bridge.output(), "it waits")
        assert f"127.0.0.1:{urlsplit(away.url).port}" in bridge.output(), "and says for what, and where"
        away.restore()
        wait_until(lambda: f"{service} is back after" in bridge.output(), "it goes on")
        bridge.stop()
    assert bridge.output().count(" is back after ") == 1


def test_a_queue_that_vanishes_under_the_bridge_is_declared_anew(aws: Aws) -> None:
    stage = aws.stage
    aws.notify_queue()
    bridge = stage.start("sqs")
    wait_until(lambda: logged(bridge.output(), "sqs batch"), "the test event is through")
    with stage.broker.channel() as channel:
        channel.queue_delete(FILES)
    put(stage, KEY)
    wait_until(lambda: logged(bridge.output(), "waiting"), "the bridge has noticed")
    stage.start("consume")
    assert_once(stage, KEY)
    bridge.stop()


def test_sigterm_ends_a_bridge_that_waits_for_messages_at_once(aws: Aws) -> None:
    bridge = aws.stage.start("sqs")
    aws.notify_queue()
    wait_until(lambda: logged(bridge.output(), "sqs batch"), "the bridge is at work")
    time.sleep(0.5)
    began = time.monotonic()
    bridge.stop()
    assert time.monotonic() - began < 15, "the poll under way would last 20 s"


@pytest.mark.parametrize("arguments", [("sqs",), ("sqs", "--once")])
@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        (
            "FLEETTICKETS_SQS_QUEUE_URL",
            "https://sqs.us-east-1.amazonaws.com/123456789012/gone",
            "there is no such queue",
        ),
        ("AWS_ACCESS_KEY_ID", None, "AWS credentials"),
    ],
)
def test_a_wrong_queue_or_missing_credentials_are_one_line(
    aws: Aws, arguments: tuple[str, ...], setting: str, value: str | None, words: str
) -> None:
    environment = aws.stage.environment
    environment.pop(setting) if value is None else environment.update({setting: value})
    ended = aws.stage.run(*arguments, AWS_SHARED_CREDENTIALS_FILE="/nowhere", AWS_CONFIG_FILE="/nowhere")
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr

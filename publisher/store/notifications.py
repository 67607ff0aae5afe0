"""The bucket's own notifications: what it is set to announce, what it should, and setting that.

A PUT of the configuration replaces all of it on most stores, so other rules of the bucket are read and written back.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004

from publisher import tls
from publisher.arrivals.folders import Folder
from publisher.broker.topology import EVENTS, Queue
from publisher.errors import DependencyDown, Misconfigured, StoreRefused
from publisher.settings import BrokerSettings, BucketSettings
from publisher.store.bucket import BUCKET, s3_client, verified_by

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient

Configuration = dict[str, Any]
"""A bucket's notification configuration as the S3 API has it."""

RULE = "fleettickets"
"""How the Ids of our rules begin, one for each feed; every other rule is somebody else's."""
_QUEUES, _TOPICS = "QueueConfigurations", "TopicConfigurations"
_SECTIONS = (_QUEUES, _TOPICS, "LambdaFunctionConfigurations")
_TARGET_ARNS = {"QueueArn", "TopicArn", "LambdaFunctionArn"}
_CEPH_FILTERS = (b"<S3Metadata><", b"<S3Tags><")
_TO_BE_MADE = "(the topic to be made)"


MQTT_TOPIC = "fleettickets/files"
"""What RustFS is told to publish on by MQTT; `topology --mqtt-topic` binds it."""


class RustfsWay(StrEnum):
    """How a RustFS server announces; the value is the end of its target's ARN."""

    AMQP = "amqp"
    MQTT = "mqtt"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of Ceph's: without an ARN there is none; with one but without `now`, it may not be read."""

    name: str
    arn: str | None
    wanted: dict[str, str]
    now: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the bucket has, and what it should have; both whole."""

    bucket: str
    now: Configuration
    wanted: Configuration
    topic: Topic | None = None

    @property
    def in_place(self) -> bool:
        topic = self.topic
        topic_in_place = topic is None or topic.now == topic.wanted or (topic.arn is not None and topic.now is None)
        return topic_in_place and comparable(self.now) == comparable(self.wanted)


class Notifications:
    """The notification configuration of one bucket, through the S3 API and, for Ceph's topics, the SNS API."""

    def __init__(self, settings: BucketSettings, folders: Sequence[Folder]) -> None:
        self._settings = settings
        self._folders = folders
        self._body = b""
        self._s3: S3Client = s3_client(settings)
        self._s3.meta.events.register("before-parse.s3.GetBucketNotificationConfiguration", self._keep_body)
        self._sns: SNSClient = boto3.client(
            "sns",
            endpoint_url=str(settings.endpoint),
            aws_access_key_id=settings.access_key.get_secret_value(),
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            region_name=settings.region,
            verify=verified_by(settings.ca_file),
            config=Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "max_attempts": 2}),
        )

    def make_bucket(self) -> None:
        """Make the bucket unless it is there.

        Raises: Misconfigured, DependencyDown, StoreRefused.
        """
        with _translated_errors(self._settings.where):
            if self._settings.bucket not in {found["Name"] for found in self._s3.list_buckets()["Buckets"]}:
                self._s3.create_bucket(Bucket=self._settings.bucket)

    def wanted_for(self, arn: str) -> Configuration:
        """The rules for a queue or topic, as the configuration of a bucket that has no other.

        Raises: Misconfigured.
        """
        return merged({}, section_of(arn), self._rules(arn, section_of(arn)))

    def plan_for_arn(self, arn: str) -> Plan:
        """The rules for a queue or topic that exists: AWS, MinIO, RustFS.

        Raises: Misconfigured, DependencyDown, StoreRefused.
        """
        now = self._read()
        return Plan(self._settings.bucket, now, merged(now, section_of(arn), self._rules(arn, section_of(arn))))

    def plan_for_ceph(self, broker: BrokerSettings, *, persistent: bool = True) -> Plan:
        """A topic that publishes on the broker, and the rules for it. A persistent one keeps events while it is away.

        Raises: Misconfigured, DependencyDown, StoreRefused.
        """
        now = self._read()
        wanted = {
            "push-endpoint": push_endpoint(broker.rabbitmq_url.get_secret_value()),
            "amqp-exchange": EVENTS,
            # Where the gateway does not keep events, waiting for a confirm makes each PUT slower and saves none.
            "amqp-ack-level": "broker" if persistent else "none",
            "persistent": str(persistent).lower(),
        }
        name = f"{RULE}-{self._settings.bucket}"
        arn = self._topic_arn(name)
        topic = Topic(name, arn, wanted, self._topic_attributes(arn) if arn else None)
        return Plan(self._settings.bucket, now, merged(now, _TOPICS, self._rules(arn or _TO_BE_MADE, _TOPICS)), topic)

    def read(self) -> Configuration:
        """What the bucket is set to announce.

        Raises: Misconfigured, DependencyDown, StoreRefused.
        """
        with _translated_errors(self._settings.where):
            return dict(self._s3.get_bucket_notification_configuration(Bucket=self._settings.bucket))

    def apply(self, plan: Plan) -> None:
        """Set what is planned. Safe to repeat.

        Raises: Misconfigured, DependencyDown, StoreRefused.
        """
        wanted = plan.wanted
        if plan.topic:
            with _translated_errors(self._settings.where):
                arn = self._sns.create_topic(Name=plan.topic.name, Attributes=plan.topic.wanted)["TopicArn"]
            wanted = merged(plan.now, _TOPICS, self._rules(arn, _TOPICS))
        with _translated_errors(self._settings.where):
            self._s3.put_bucket_notification_configuration(
                Bucket=plan.bucket,
                NotificationConfiguration=wanted,  # type: ignore[arg-type]
            )

    def _read(self) -> Configuration:
        with _translated_errors(self._settings.where):
            answer: Configuration = dict(self._s3.get_bucket_notification_configuration(Bucket=self._settings.bucket))
        if any(mark in self._body for mark in _CEPH_FILTERS):
            raise Misconfigured(
                "the bucket has a rule that filters on metadata or tags, which would be lost on writing it back; "
                "add the rule of docs/notifications.md by hand"
            )
        answer.pop("ResponseMetadata", None)
        return answer

    def _keep_body(self, response_dict: dict[str, Any], **_: object) -> None:
        self._body = response_dict["body"]

    def _topic_arn(self, name: str) -> str | None:
        with _translated_errors(self._settings.where):
            for page in self._sns.get_paginator("list_topics").paginate():
                for found in page["Topics"]:
                    if found["TopicArn"].rpartition(":")[2] == name:
                        return found["TopicArn"]
        return None

    def _topic_attributes(self, arn: str) -> dict[str, str] | None:
        try:
            with _translated_errors(self._settings.where):
                endpoint = json.loads(self._sns.get_topic_attributes(TopicArn=arn)["Attributes"]["EndPoint"])
            given = dict(part.partition("=")[::2] for part in endpoint["EndpointArgs"].split("&"))
        except (StoreRefused, ValueError, KeyError):  # a topic that holds a password is not shown over plain HTTP
            return None
        return {
            "push-endpoint": endpoint["EndpointAddress"],
            "amqp-exchange": given.get("amqp-exchange", ""),
            "amqp-ack-level": given.get("amqp-ack-level", ""),
            "persistent": given.get("persistent", "false"),
        }

    def _rules(self, arn: str, section: str) -> list[Configuration]:
        """One for each feed: a rule has one prefix, and what is archived is not to be announced."""
        return [
            {
                "Id": f"{RULE}-{folder.feed}",
                "TopicArn" if section == _TOPICS else "QueueArn": arn,
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": folder.changes}]}},
            }
            for folder in self._folders
        ]


def section_of(arn: str) -> str:
    """Where in the configuration a rule for this target stands.

    Raises: Misconfigured, for what is neither a queue nor a topic.
    """
    match arn.split(":"):
        case ["arn", _, "sqs", _, _, *_]:
            return _QUEUES
        case ["arn", _, "sns", _, _, _]:
            return _TOPICS
        case _:
            raise Misconfigured(f"--arn {arn}: neither a queue (arn:…:sqs:…) nor a topic (arn:…:sns:…)")


def merged(now: Configuration, section: str, ours: list[Configuration]) -> Configuration:
    """Put our rules in the place of earlier ones of the same feeds, and leave all others as they are."""
    kept = {name: value for name, value in now.items() if name not in _SECTIONS}
    ids = {rule["Id"] for rule in ours}
    prefixes = {prefix for rule in ours for prefix in _prefixes(rule)}
    for name in _SECTIONS:
        rules = [
            found
            for found in now.get(name, [])
            # There was a rule without a feed's name once; left in place, it would announce the same once more.
            if not (found.get("Id") in ids or (found.get("Id") == RULE and prefixes.issuperset(_prefixes(found))))
        ]
        if name == section:
            rules += ours
        if rules:
            kept[name] = rules
    return kept


def announcing(configuration: Configuration, folder: str) -> list[str]:
    """The targets of the rules that announce objects created in `folder`, as far as it goes by prefixes."""
    targets = []
    for section in _SECTIONS:
        for rule in configuration.get(section, []):
            prefixes = _prefixes(rule)
            is_of_creation = any(event.startswith("s3:ObjectCreated:") for event in rule["Events"])
            if is_of_creation and folder.startswith(prefixes[0] if prefixes else ""):
                targets += [value for name, value in rule.items() if name in _TARGET_ARNS]
    return targets


def _prefixes(rule: Configuration) -> list[str]:
    rules = rule.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    return [found["Value"] for found in rules if found["Name"].lower() == "prefix"]


def comparable(configuration: Configuration) -> Configuration:
    """Bring to one form what stores write differently: the order of rules, the case of `prefix`."""
    compared: Configuration = {}
    for section, rules in configuration.items():
        if section not in _SECTIONS:
            compared[section] = rules
            continue
        compared[section] = {
            rule.get("Id", ""): (
                sorted(value for name, value in rule.items() if name in _TARGET_ARNS),
                sorted(rule["Events"]),
                sorted(
                    (found["Name"].lower(), found["Value"])
                    for found in rule.get("Filter", {}).get("Key", {}).get("FilterRules", [])
                ),
            )
            for rule in rules
        }
    return compared


def describe(plan: Plan) -> dict[str, Any]:
    """What a person or a script is shown of a plan, without passwords."""
    shown: dict[str, Any] = {"bucket": plan.bucket, "now": plan.now, "wanted": plan.wanted}
    if plan.topic:
        states = {"now": plan.topic.now, "wanted": plan.topic.wanted}
        shown["topic"] = {"name": plan.topic.name} | {
            name: state and state | {"push-endpoint": masked(state["push-endpoint"])} for name, state in states.items()
        }
    return shown


def push_endpoint(rabbitmq_url: str) -> str:
    """The broker's address as Ceph wants it.

    Without credentials where they are the default ones: over plain HTTP the store takes no password.
    """
    url = urlsplit(rabbitmq_url)
    credentials = (unquote(url.username or "guest"), unquote(url.password or "guest"))
    login = "" if credentials == ("guest", "guest") else f"{url.netloc.rpartition('@')[0]}@"
    return f"{url.scheme}://{login}{_host_and_virtual_host(rabbitmq_url)}"


def masked(url: str) -> str:
    """A URL fit to be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl() if parts.username else url


def rustfs_target(way: RustfsWay, bucket: BucketSettings, broker: BrokerSettings | None) -> tuple[dict[str, str], str]:
    """The environment of a RustFS server that announces in this way, and the ARN it then has for rules.

    What is in capitals is left for the operator to fill in. A webhook needs no broker to be known.
    """
    rabbitmq_url = broker.rabbitmq_url.get_secret_value() if broker else ""
    settings = {"ENABLE": "on"} | _RUSTFS[way](rabbitmq_url) | {"QUEUE_DIR": "/data/events"}
    environment = {f"RUSTFS_NOTIFY_{way.upper()}_{name}_PRIMARY": value for name, value in settings.items()}
    if way is RustfsWay.WEBHOOK:
        # From 1.0.0-beta.11 on, private addresses are blocked otherwise.
        environment["RUSTFS_OUTBOUND_ALLOW_ORIGINS"] = "http://RECEIVER:8080"
    return {"RUSTFS_NOTIFY_ENABLE": "true"} | environment, f"arn:rustfs:sqs:{bucket.region}:primary:{way}"


def _by_amqp(rabbitmq_url: str) -> dict[str, str]:
    virtual_host = "" if "/" in _host_and_virtual_host(rabbitmq_url) else "/%2f"
    return {
        "URL": f"{urlsplit(rabbitmq_url).scheme}://USER:PASSWORD@{_host_and_virtual_host(rabbitmq_url)}{virtual_host}",
        "EXCHANGE": EVENTS,
        "ROUTING_KEY": Queue.FILES.value,
        "MANDATORY": "on",
        "PERSISTENT": "on",
    }


def _by_mqtt(rabbitmq_url: str) -> dict[str, str]:
    url = urlsplit(rabbitmq_url)
    virtual_host = unquote(url.path.removeprefix("/")) or "/"
    return {
        "BROKER": f"mqtts://{_host(url)}:8883" if url.scheme == "amqps" else f"tcp://{_host(url)}:1883",
        "TOPIC": MQTT_TOPIC,
        "QOS": "1",
        "USERNAME": "USER" if virtual_host == "/" else f"{virtual_host}:USER",
        "PASSWORD": "PASSWORD",
    }


def _by_webhook(_rabbitmq_url: str) -> dict[str, str]:
    return {"ENDPOINT": "http://RECEIVER:8080/", "AUTH_TOKEN": "FLEETTICKETS_WEBHOOK_TOKEN"}


_RUSTFS = {RustfsWay.AMQP: _by_amqp, RustfsWay.MQTT: _by_mqtt, RustfsWay.WEBHOOK: _by_webhook}


def _host_and_virtual_host(rabbitmq_url: str) -> str:
    url = urlsplit(rabbitmq_url)
    port = url.port or (5671 if url.scheme == "amqps" else 5672)
    virtual_host = unquote(url.path.removeprefix("/")) or "/"
    # A bare slash would be the virtual host with the empty name.
    path = "" if virtual_host == "/" else f"/{quote(virtual_host, safe='')}"
    return f"{_host(url)}:{port}{path}"


def _host(url: SplitResult) -> str:
    name = url.hostname or ""
    return f"[{name}]" if ":" in name else name


@contextmanager
def _translated_errors(where: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        response: dict[str, Any] = dict(error.response)
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        codes = (response.get("Error", {}).get("Code"), response.get("Code"))
        code = next((found for found in codes if found and found != "Unknown"), "an error")
        if code == "NoSuchBucket":
            raise Misconfigured("RUSTFS_BUCKET: there is no such bucket") from error
        text = f"{error.operation_name} is answered with {code} (HTTP {status})"
        if error.operation_name == "CreateTopic":
            text += "; a broker's password is taken over https only"
        raise StoreRefused(BUCKET, text) from error
    except (ConnectionError, HTTPClientError) as error:
        detail = tls.explained(" ".join(str(error).split())[:200], "RUSTFS_ENDPOINT")
        raise DependencyDown(BUCKET, detail, where) from error
    except BotoCoreError as error:
        raise StoreRefused(BUCKET, " ".join(str(error).split())[:200]) from error

"""Tell the store to announce new change files on the broker: Ceph's way, a topic made through the SNS API."""

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from publisher.bucket import BUCKET
from publisher.errors import Refused
from publisher.settings import BrokerSettings, BucketSettings
from publisher.topology import EVENTS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient

_TOPIC = "fleettickets-demo"


def announce_arrivals(s3: "S3Client", bucket: BucketSettings, broker: BrokerSettings) -> None:
    """Have every object created in `changes/`, and nothing else, announced on the exchange, which must exist.

    Raises: Refused, when the store has no such API or does not take the broker's address.
    """
    sns: SNSClient = boto3.client(
        "sns",
        endpoint_url=str(bucket.endpoint),
        aws_access_key_id=bucket.access_key.get_secret_value(),
        aws_secret_access_key=bucket.secret_key.get_secret_value(),
        region_name=bucket.region,
        config=Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "max_attempts": 2}),
    )
    try:
        # Not persistent: the store then announces while it answers the PUT, with no half minute until a new
        # topic's first event. What gets lost that way, the poller finds.
        topic = sns.create_topic(
            Name=_TOPIC,
            Attributes={
                "push-endpoint": push_endpoint(broker.rabbitmq_url.get_secret_value()),
                "amqp-exchange": EVENTS,
                "amqp-ack-level": "broker",
            },
        )
        s3.put_bucket_notification_configuration(
            Bucket=bucket.bucket,
            NotificationConfiguration={
                "TopicConfigurations": [
                    {
                        "Id": _TOPIC,
                        "TopicArn": topic["TopicArn"],
                        "Events": ["s3:ObjectCreated:*"],
                        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": bucket.changes_prefix}]}},
                    }
                ]
            },
        )
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = error.response.get("Error", {}).get("Code")
        raise Refused(BUCKET, f"{error.operation_name} is answered with {code} (HTTP {status})") from error
    except BotoCoreError as error:
        raise Refused(BUCKET, " ".join(str(error).split())[:200]) from error


def push_endpoint(rabbitmq_url: str) -> str:
    """The broker's address as the store wants it.

    Without credentials where they are the default ones: over plain HTTP the store takes no password.
    """
    url = urlsplit(rabbitmq_url)
    credentials = (unquote(url.username or "guest"), unquote(url.password or "guest"))
    login = "" if credentials == ("guest", "guest") else f"{url.username}:{url.password}@"
    port = url.port or (5671 if url.scheme == "amqps" else 5672)
    virtual_host = unquote(url.path.removeprefix("/")) or "/"
    # A bare slash would be the virtual host with the empty name.
    path = "" if virtual_host == "/" else f"/{quote(virtual_host, safe='')}"
    return f"{url.scheme}://{login}{url.hostname}:{port}{path}"

"""The bucket as the exporter sees it, and the notifications that the store itself sends."""

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from consumer.demo.fresh import remove_bucket
from consumer.feeds.declared import packaged_feeds

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient

    from tests.stage.broker import Broker

CHANGES = "automations/inc/changes/"
PROCESSED = "automations/inc/processed/"
THREADS = 8


class Bucket:
    """One bucket; `s3` is there for whatever has no method here."""

    def __init__(self, services: Mapping[str, str], name: str) -> None:
        self.name = name
        self._services = services
        self.s3: S3Client = boto3.client("s3", **self._at(services["RUSTFS_ENDPOINT"]))
        self._topics: SNSClient | None = None
        self._topic = ""
        self._newer_after: dict[str, float] = {}
        self._denied: list[dict[str, Any]] = []
        self.s3.create_bucket(Bucket=name)

    def _at(self, endpoint: str) -> dict[str, Any]:
        # A gateway that has ended by itself is back within seconds: an exporter would try again.
        retries: Literal["standard"] = "standard"
        return {
            "endpoint_url": endpoint,
            "aws_access_key_id": self._services["RUSTFS_ACCESS_KEY"],
            "aws_secret_access_key": self._services["RUSTFS_SECRET_KEY"],
            "region_name": self._services.get("RUSTFS_REGION", "default"),
            "config": Config(
                s3={"addressing_style": "path"},
                max_pool_connections=2 * THREADS,
                retries={"mode": retries, "total_max_attempts": 8},
            ),
        }

    def put(self, key: str, body: bytes) -> None:
        """Store an object; where the key was taken, LastModified has whole seconds and the newer has to be newer."""
        wait = self._newer_after.get(key, 0) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._newer_after[key] = time.monotonic() + 1.1
        self.s3.put_object(Bucket=self.name, Key=key, Body=body)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(self.put, files.keys(), files.values()):
                pass

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def etag(self, key: str) -> str | None:
        """Of what is there now; None if nothing is."""
        try:
            return self.s3.head_object(Bucket=self.name, Key=key)["ETag"].strip('"')
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                raise
            return None

    def read_all(self, folder: str) -> dict[str, bytes]:
        keys = self.keys(folder)
        with ThreadPoolExecutor(THREADS) as threads:
            return dict(zip(keys, threads.map(self.read, keys), strict=True))

    def keys(self, folder: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=folder)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def page(self) -> int:
        """How many keys the store gives to a listing request at most."""
        return self.s3.list_objects_v2(Bucket=self.name, MaxKeys=1000)["MaxKeys"]

    def notify(self, broker: "Broker") -> None:
        """Let the store announce every object that arrives in changes/, without queueing on its side."""
        address = urlsplit(broker.url)
        if (address.username or "guest", address.password or "guest") != ("guest", "guest"):
            pytest.skip("native notifications: the store logs in as guest, the broker has another user")
        attributes = {
            "push-endpoint": f"amqp://{address.hostname}:{address.port}{address.path}",
            "amqp-exchange": "fleettickets.events",
            # Without a queue on its side the store forgets an event that is not confirmed as well; and Ceph 16 has
            # ended by itself where it waits for confirms.
            "amqp-ack-level": "none",
        }
        endpoint = self._services.get("EXPORTER_ENDPOINT", self._services["RUSTFS_ENDPOINT"])
        self.s3 = boto3.client("s3", **self._at(endpoint))
        self._topics = boto3.client("sns", **self._at(endpoint))
        try:
            self._topic = self._topics.create_topic(Name=self.name, Attributes=attributes)["TopicArn"]
        except ClientError as refused:
            pytest.skip(f"native notifications: this store does not send any by AMQP ({refused})")
        self.s3.put_bucket_notification_configuration(
            Bucket=self.name,
            NotificationConfiguration={
                "TopicConfigurations": [
                    {
                        "Id": f"changes-{folder.feed}",
                        "TopicArn": self._topic,
                        "Events": ["s3:ObjectCreated:*"],
                        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": folder.changes}]}},
                    }
                    for folder in packaged_feeds().folders
                ]
            },
        )

    def event(self, key: str, body: bytes = b"", name: str = "ObjectCreated:Put") -> bytes:
        """What the store would send for the object; the extra deliveries of a test are made of it."""
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        found = {"key": key, "size": len(body), "eTag": etag, "versionId": "", "sequencer": "A64D046B10C09737"}
        record = {
            "eventVersion": "2.2",
            "eventSource": "ceph:s3",
            "awsRegion": "",
            "eventTime": "2026-11-23T14:28:54.929694Z",
            "eventName": name,
            "userIdentity": {"principalId": "exporter"},
            "requestParameters": {"sourceIPAddress": ""},
            "responseElements": {"x-amz-request-id": "49ddd032.4112", "x-amz-id-2": "1010-default-default"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "changes",
                "bucket": {"name": self.name, "arn": f"arn:aws:s3:::{self.name}", "id": "49ddd032.4114.1"},
                "object": {**found, "metadata": [], "tags": []},
            },
            "eventId": f"1795444134.932691.{etag}",
            "opaqueData": "",
        }
        return json.dumps({"Records": [record]}).encode()

    def deny(self, action: str, *keys: str) -> None:
        """Refuse an action on the keys to everybody, beside what is refused already."""
        resources = [f"arn:aws:s3:::{self.name}/{key}" for key in keys]
        self._denied.append({"Effect": "Deny", "Principal": "*", "Action": action, "Resource": resources})
        policy = {"Version": "2012-10-17", "Statement": self._denied}
        self.s3.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))

    def allow_all(self) -> None:
        self._denied.clear()
        self.s3.delete_bucket_policy(Bucket=self.name)

    def remove(self) -> None:
        """Empty the bucket and delete it with its topic."""
        remove_bucket(self.s3, self.name)
        if self._topics is not None:
            with contextlib.suppress(ClientError):
                self._topics.delete_topic(TopicArn=self._topic)
            self._topics.close()
        self.s3.close()

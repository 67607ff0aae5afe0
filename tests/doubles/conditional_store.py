"""A proxy in front of the store that keeps conditions of S3's copies and deletes, which the one of the tests ignores.

It looks by itself before it passes a request on, and lets no other one pass meanwhile.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.doubles.faulty_store import FaultyStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FAILED = 412
SOURCES, NAMES, DELETES = "sources", "names", "deletes"
ALL = frozenset({SOURCES, NAMES, DELETES})
LIKE_RUSTFS = frozenset({SOURCES, NAMES})
"""RustFS 1.0.0-rc.3 looks at the ETag of what is copied and at whether the name is free, and at none for a delete."""


class ConditionalStore(FaultyStore):
    """`keeps` are the requests whose conditions it keeps; `refused` counts those of which one did not hold."""

    def __init__(self, services: Mapping[str, str], keeps: frozenset[str] = ALL) -> None:
        self.refused = 0
        self._keeps = keeps
        self._one_by_one = threading.Lock()
        self._s3: S3Client = boto3.client(
            "s3",
            endpoint_url=services["RUSTFS_ENDPOINT"],
            aws_access_key_id=services["RUSTFS_ACCESS_KEY"],
            aws_secret_access_key=services["RUSTFS_SECRET_KEY"],
            region_name=services.get("RUSTFS_REGION", "default"),
            config=Config(s3={"addressing_style": "path"}),
        )
        super().__init__(services["RUSTFS_ENDPOINT"])

    @contextlib.contextmanager
    def passing(self, method: str, path: str, headers: Message) -> Iterator[int | None]:
        if method not in {"PUT", "DELETE"}:
            yield None
            return
        with self._one_by_one:
            there = unquote(urlsplit(path).path)
            source, wanted = headers.get("x-amz-copy-source"), headers.get("x-amz-copy-source-if-match")
            fails = False
            if SOURCES in self._keeps and source and wanted:
                fails = self._etag(unquote(source)) not in {None, wanted}
            if NAMES in self._keeps and method == "PUT" and headers.get("if-none-match"):
                fails = fails or self._etag(there) is not None
            if DELETES in self._keeps and method == "DELETE" and headers.get("if-match"):
                fails = self._etag(there) not in {None, headers["if-match"]}
            self.refused += fails
            yield FAILED if fails else None

    def _etag(self, path: str) -> str | None:
        path, _, version = path.partition("?versionId=")
        bucket, _, key = path.lstrip("/").partition("/")
        try:
            if version:
                return self._s3.head_object(Bucket=bucket, Key=key, VersionId=version)["ETag"]
            return self._s3.head_object(Bucket=bucket, Key=key)["ETag"]
        except ClientError:
            return None

"""The bucket behind boto3: list what waits, read one object as a stream, archive it without losing a byte."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody
from urllib3.exceptions import HTTPError

from publisher import tls
from publisher.errors import DependencyDown, Misconfigured, ObjectChanged, ObjectMissing, ObjectUnavailable, Refused
from publisher.settings import BucketSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "the bucket's store"
_CHUNK = 1 << 20
_PAGE = 1000
"""Objects to a listing request, where the store does not give less."""
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_TRY_AGAIN = frozenset({408, 429})
_CHANGED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_SUFFIX = re.compile(r"~[0-9a-f]{12}(?=\.[^.]*$|$)")
"""What a copy's name gets where the plain name is taken by other bytes."""


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object as a listing, a HEAD or a GET shows it; `etag` without quotes, `size` in bytes, time in UTC."""

    key: str
    etag: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object being read: what the GET said of it, and the bytes still to come."""

    summary: ObjectSummary
    body: StreamingBody

    def read(self, amount: int) -> bytes:
        """Give up to `amount` bytes, b"" at the end.

        Raises: DependencyDown, also for a body shorter than the store announced.
        """
        try:
            return self.body.read(amount)
        except (BotoCoreError, HTTPError, OSError) as error:
            raise DependencyDown(BUCKET, f"reading {self.summary.key!r} broke off: {_one_line(error)}") from error


def s3_client(settings: BucketSettings, connections: int = 10, attempts: int = 3) -> "S3Client":
    """Make a client for any S3 store, addressed path-style; it makes each request up to so many times.

    Raises: Misconfigured.
    """
    try:
        return boto3.client(
            "s3",
            endpoint_url=str(settings.endpoint),
            aws_access_key_id=settings.access_key.get_secret_value(),
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            region_name=settings.region,
            verify=verified_by(settings.ca_file),
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=connections,
                # Stores other than AWS lag behind its newest checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
    except ValueError as error:
        raise Misconfigured(f"RUSTFS_ENDPOINT or RUSTFS_REGION is wrong: {error}") from None


def verified_by(ca_file: Path | None) -> str | None:
    """What boto3 verifies certificates against; None is its own choice, AWS_CA_BUNDLE included, and never nothing."""
    return str(ca_file) if ca_file else None


class Bucket:
    """One bucket and the feed's folders in it. Safe to share between threads."""

    def __init__(self, settings: BucketSettings, connections: int = 10) -> None:
        self.name = settings.bucket
        self.prefix = settings.prefix
        self.changes_prefix = settings.changes_prefix
        self.processed_prefix = settings.processed_prefix
        self._s3 = s3_client(settings, connections)
        # Copies and deletes are not for the client to repeat. One whose answer was lost is done, and by the time of
        # another attempt the key can hold a version that nobody has read: `archive` looks again first.
        self._s3_once = s3_client(settings, connections, attempts=1)

    def require(self) -> None:
        """Ask the store once whether settings and bucket fit together, for a clear word at the start.

        Raises: Misconfigured, DependencyDown.
        """
        try:
            with self._translated_errors(self.changes_prefix):
                self._s3.list_objects_v2(Bucket=self.name, Prefix=self.changes_prefix, MaxKeys=1)
        except DependencyDown as error:
            refusal = error.__cause__
            if isinstance(refusal, ClientError) and _is_refusal(refusal):
                raise Misconfigured(
                    "RUSTFS_BUCKET, RUSTFS_ACCESS_KEY and RUSTFS_SECRET_KEY do not fit the store at RUSTFS_ENDPOINT: "
                    f"{error.detail}"
                ) from error
            raise

    def waiting(self) -> Iterator[ObjectSummary]:
        """Every object in `changes/`, in the order of the keys; one request per thousand.

        Raises: DependencyDown.
        """
        return self._objects(self.changes_prefix)

    def archived(self) -> Iterator[ObjectSummary]:
        """Every object in `processed/`, in the order of the keys; one request per thousand.

        Raises: DependencyDown.
        """
        return self._objects(self.processed_prefix)

    def _objects(self, folder: str) -> Iterator[ObjectSummary]:
        with self._translated_errors(folder):
            listing = self._s3.get_paginator("list_objects_v2")
            pages = listing.paginate(Bucket=self.name, Prefix=folder, PaginationConfig={"PageSize": _PAGE})
            for page in pages:
                for found in page.get("Contents", []):
                    if found["Key"] != folder:  # some tools make a folder an empty object
                        yield ObjectSummary(
                            found["Key"], found["ETag"].strip('"'), found["Size"], found["LastModified"]
                        )

    def change_key(self, archive_key: str) -> str:
        """The key that an archived object had in `changes/`."""
        return self.changes_prefix + _SUFFIX.sub("", archive_key.removeprefix(self.processed_prefix))

    def archives_of(self, key: str) -> list[ObjectSummary]:
        """Every object in `processed/` that a version of the key was archived as.

        Raises: DependencyDown.
        """
        name = PurePosixPath(key.removeprefix(self.changes_prefix))
        found = self._objects(f"{self.processed_prefix}{name.with_suffix('')}")
        return [archived for archived in found if self.change_key(archived.key) == key]

    def digest(self, key: str) -> str:
        """The SHA-256 of an object's bytes, which are streamed.

        Raises: ObjectMissing; Refused, when the store will not give this one; DependencyDown.
        """
        digest = hashlib.sha256()
        with self.open(key) as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    @contextmanager
    def open(self, key: str) -> Iterator[OpenObject]:
        """Read one object as a stream.

        Raises: ObjectMissing; Refused, when the store will not give this one; DependencyDown.
        """
        with self._translated_errors(key):
            answer = self._s3.get_object(Bucket=self.name, Key=key)
        summary = ObjectSummary(key, answer["ETag"].strip('"'), answer["ContentLength"], answer["LastModified"])
        try:
            yield OpenObject(summary, answer["Body"])
        finally:
            answer["Body"].close()

    def head(self, key: str) -> ObjectSummary | None:
        """What the bucket has under the key now, None if nothing.

        Raises: DependencyDown.
        """
        try:
            with self._translated_errors(key):
                answer = self._s3.head_object(Bucket=self.name, Key=key)
        except ObjectMissing:
            return None
        return ObjectSummary(key, answer["ETag"].strip('"'), answer["ContentLength"], answer["LastModified"])

    def archive(self, key: str, etag: str, sha256: str, copied: Callable[[], None]) -> str | None:
        """Move the version `etag` of a change file to `processed/`: copy, check, delete. Repeatable at any point.

        A taken name with other bytes is never overwritten: the copy gets a suffix from its own hash. `copied` is
        called once the copy is known to be good, before the delete.
        Gives the archive's key; None when that version is gone and no copy of it was ever made.
        Raises: ObjectChanged when the key now holds another version, which stays; Refused; DependencyDown.
        """
        try:
            return self._archive(key, etag, sha256, copied)
        except DependencyDown:
            return self._archive(key, etag, sha256, copied)

    def _archive(self, key: str, etag: str, sha256: str, copied: Callable[[], None]) -> str | None:
        if not key.startswith(self.changes_prefix):
            raise ValueError(f"{key!r} is not in {self.changes_prefix!r}")
        for archive_key in self._archive_names(key, sha256):
            taken = self.head(archive_key)
            if taken is not None:
                archive_etag = taken.etag
            elif self._holds(key, etag):
                try:
                    archive_etag = self._copy(key, etag, archive_key)
                except ObjectMissing:
                    continue
            else:
                continue
            if self._is_copy(archive_key, archive_etag, etag, sha256):
                copied()
                self._delete(key, etag)
                return archive_key
        if self.head(key) is not None:
            raise ObjectChanged(self.name, key)
        # Gone since the first look: another delivery of the file may have archived it in between.
        for archive_key in self._archive_names(key, sha256):
            taken = self.head(archive_key)
            if taken is not None and self._is_copy(archive_key, taken.etag, etag, sha256):
                return archive_key
        return None

    def _holds(self, key: str, etag: str) -> bool:
        found = self.head(key)
        return found is not None and found.etag == etag

    def _archive_names(self, key: str, sha256: str) -> tuple[str, str]:
        name = PurePosixPath(key.removeprefix(self.changes_prefix))
        plain = f"{self.processed_prefix}{name}"
        return plain, f"{self.processed_prefix}{name.with_name(f'{name.stem}~{sha256[:12]}{name.suffix}')}"

    def _copy(self, key: str, etag: str, archive_key: str) -> str:
        with self._translated_errors(key):
            answer = self._s3_once.copy_object(
                Bucket=self.name,
                Key=archive_key,
                CopySource={"Bucket": self.name, "Key": key},
                CopySourceIfMatch=f'"{etag}"',
            )
        return answer["CopyObjectResult"]["ETag"].strip('"')

    def _delete(self, key: str, etag: str) -> None:
        # Ceph 16 ignores the conditions of copies and deletes, so a look comes right before each. Stores that keep
        # the conditions close the rest of the gap.
        if not self._holds(key, etag):
            return
        try:
            with self._translated_errors(key):
                self._s3_once.delete_object(Bucket=self.name, Key=key, IfMatch=f'"{etag}"')
        except (ObjectMissing, ObjectChanged):
            pass

    def _is_copy(self, archive_key: str, archive_etag: str, etag: str, sha256: str) -> bool:
        if archive_etag == etag:
            return True
        # An object stored in parts has another ETag than its copy: only the bytes tell.
        return self.digest(archive_key) == sha256

    def _is_open(self) -> bool:
        """Whether the bucket as a whole answers, so that a refusal was meant for one object."""
        try:
            self._s3.list_objects_v2(Bucket=self.name, Prefix=self.changes_prefix, MaxKeys=1)
        except (ClientError, BotoCoreError, HTTPError, OSError):
            return False
        return True

    @contextmanager
    def _translated_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise ObjectMissing(self.name, key) from error
            if code in _CHANGED:
                raise ObjectChanged(self.name, key) from error
            detail = f"{error.operation_name} of {key!r} in {self.name!r}: {_one_line(error)}"
            if _is_refusal(error) and self._is_open():
                raise Refused(BUCKET, detail) from error
            if _is_fault(error) and self._is_open():
                raise ObjectUnavailable(BUCKET, detail) from error
            # Refused credentials and a missing bucket too: the operator can mend them while files wait.
            raise DependencyDown(BUCKET, detail) from error
        except (BotoCoreError, HTTPError, OSError) as error:
            raise DependencyDown(BUCKET, _one_line(error)) from error


def _is_fault(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500  # noqa: PLR2004 - the class of HTTP's server errors


def _is_refusal(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= status < 500 and status not in _TRY_AGAIN  # noqa: PLR2004 - the class of HTTP's client errors


def _one_line(error: BaseException) -> str:
    return tls.explained(" ".join(str(error).split())[:300], "RUSTFS_ENDPOINT")

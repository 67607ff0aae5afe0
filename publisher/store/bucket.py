"""The bucket behind boto3: list what waits, read one object as a stream, archive it without losing a byte."""

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from threading import Event, Lock, Semaphore
from typing import TYPE_CHECKING, Any, TypedDict

import boto3
import botocore.session
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody
from botocore.utils import parse_timestamp
from urllib3.exceptions import HTTPError

from publisher import tls
from publisher.arrivals.folders import CHANGES, Folder, folder_of
from publisher.errors import (
    DependencyDown,
    Misconfigured,
    ObjectChanged,
    ObjectMissing,
    ObjectRefused,
    ObjectUnavailable,
    SlowBody,
)
from publisher.settings import BucketSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        CopySourceTypeDef,
        GetObjectOutputTypeDef,
        HeadObjectOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        ObjectIdentifierTypeDef,
        ObjectTypeDef,
    )
    from urllib3 import HTTPResponse

    class Begin(TypedDict, total=False):
        StartAfter: str


log = structlog.get_logger()

BUCKET = "the bucket's store"
_CHUNK = 1 << 20
_PAGE = 1000
"""Objects to a listing request, where the store does not give less."""
_BESIDE = 8
"""Other objects that a listing around some keys may come by."""
_DEEP, _LISTINGS = 4, 40
"""Where folders are looked for: the names of a path, and requests at the most."""
_SILENT_SECONDS = 20
"""Without a byte a connection of the store ends."""
_LEAST_PACE = 16 * 1024
"""Bytes a second: whoever reads a body that only trickles would be kept for good."""
_PACED_SECONDS = 10
"""The pace is that of the last so many seconds of waiting: a body can be fast to its middle, and trickle from there."""
_SLOW_SECONDS = 10
"""A body that has been waited for longer than this in all is slow."""
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_TRY_AGAIN = frozenset({408, 429})
_CHANGED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_ALL = "RUSTFS_ENDPOINT, RUSTFS_ACCESS_KEY, RUSTFS_SECRET_KEY, RUSTFS_REGION, RUSTFS_BUCKET"
_UNFIT = {
    "InvalidAccessKeyId": ("RUSTFS_ACCESS_KEY", "has no such key"),
    "SignatureDoesNotMatch": ("RUSTFS_SECRET_KEY", "has another secret for this access key"),
    "NoSuchBucket": ("RUSTFS_BUCKET", "has no bucket {bucket!r}"),
    "AccessDenied": ("RUSTFS_ACCESS_KEY", "gives this key no right to bucket {bucket!r}"),
    "AuthorizationHeaderMalformed": ("RUSTFS_REGION", "is of another region"),
    "PermanentRedirect": ("RUSTFS_REGION", "is of another region"),
    "RequestTimeTooSkewed": ("the clock of this machine", "has another time"),
}
"""The one setting that is wrong, and what of it, by what the store answers."""
_ASKED = re.compile(r'("https?://[^"?]*)\?[^"]*"')
"""An address with what was asked of it, which nobody can change."""
_FREE = {"IfNoneMatch": "*"}
"""The condition of a copy that its name is free."""
_NO_ETAG = '"00000000000000000000000000000000"'
_SUFFIX = re.compile(r"~[0-9a-f]{12}(?=\.[^.]*$|$)")
"""What a copy's name gets where the plain name is taken by other bytes."""


def _timestamp(told: str) -> datetime:
    """What stores tell, ISO 8601 or the date of HTTP, in a tenth of the time that botocore takes to read any form."""
    try:
        found = datetime.fromisoformat(told) if told[:1].isdigit() else parsedate_to_datetime(told)
    except ValueError:
        return parse_timestamp(told)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@cache
def _session() -> boto3.Session:
    """It loads what it knows of S3 once. Only the making of clients is not safe between threads."""
    session = botocore.session.Session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return boto3.Session(botocore_session=session)


@dataclass(frozen=True, slots=True)
class Put:
    """One object as somebody stored it: the same bytes stored once more are another put.

    `modified` has whole seconds. `version_id` is None where the bucket keeps no versions.
    """

    key: str
    etag: str
    modified: datetime
    version_id: str | None = None

    def is_same(self, other: "Put") -> bool:
        """Whether both are one put, as far as a bucket without versions can tell them apart."""
        return self.etag == other.etag and self.modified.replace(microsecond=0) == other.modified.replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object as a listing, a HEAD or a GET shows it; `etag` without quotes, `size` in bytes, time in UTC."""

    key: str
    etag: str
    size: int
    modified: datetime
    version_id: str | None = None
    """Only a HEAD or a GET tells, of a bucket that keeps versions."""

    @property
    def put(self) -> Put:
        return Put(self.key, self.etag, self.modified, self.version_id)


@dataclass(frozen=True, slots=True)
class Move:
    """A put to be archived, with the SHA-256 of its bytes; see `Bucket.archive`."""

    put: Put
    sha256: str
    may_delete: bool = True
    looks: bool = True


def pages(objects: Iterable[ObjectSummary]) -> Iterator[list[ObjectSummary]]:
    """The same, a thousand at a time."""
    left = iter(objects)
    while page := list(islice(left, _PAGE)):
        yield page


class SlowBodies:
    """The places for bodies that come slowly, so many at a time. Safe to share between threads.

    Once `stop` is set there are none, and those that are taken are to be left.
    """

    def __init__(self, places: int, stop: Event) -> None:
        self._places = places
        self._free = Semaphore(places)
        self._stop = stop

    def take(self, key: str) -> None:
        """Raises: SlowBody, when no place is free."""
        self.require_going_on(key)
        if not self._free.acquire(blocking=False):
            raise SlowBody(BUCKET, f"{key!r} waits until one of {self._places} others that are slow has been read")

    def require_going_on(self, key: str) -> None:
        """Raises: SlowBody, when the process is to end."""
        if self._stop.is_set():
            raise SlowBody(BUCKET, f"{key!r} is left, since the process ends")

    def leave(self) -> None:
        self._free.release()


class OpenObject:
    """An object being read: what the GET said of it, and the bytes still to come."""

    def __init__(self, summary: ObjectSummary, body: StreamingBody, slow_bodies: SlowBodies, where: str) -> None:
        self._where = where
        self.summary = summary
        self._slow_bodies = slow_bodies
        self._is_slow = False
        # Not by way of `body`, which waits until all is there that it was asked for, at whatever pace.
        self._stream: HTTPResponse = getattr(body, "_raw_stream")  # noqa: B009 - it keeps it to itself
        self._read = 0
        self._waited_in_all, self._waited, self._paced = 0.0, 0.0, 0

    def read(self, amount: int) -> bytes:
        """Give up to `amount` bytes, b"" at the end.

        Raises: ObjectUnavailable, also for a body shorter than the store announced, or one that trickles: it has just
        given the head of it; SlowBody.
        """
        self._require_place()
        began = time.monotonic()
        try:
            found = self._stream.read1(amount)
        except (BotoCoreError, HTTPError, OSError) as error:
            told = f"reading {self.summary.key!r} broke off: {_one_line(error)}"
            raise ObjectUnavailable(BUCKET, told, self._where) from error
        waited = time.monotonic() - began
        self._waited_in_all += waited
        self._waited += waited
        self._read += len(found)
        self._paced += len(found)
        if not found and self._read < self.summary.size:
            raise ObjectUnavailable(
                BUCKET,
                f"reading {self.summary.key!r} broke off after {self._read:,} of {self.summary.size:,} bytes",
                self._where,
            )
        if found and self._waited > _PACED_SECONDS:
            if self._paced < _LEAST_PACE * self._waited and self._read < self.summary.size:
                raise ObjectUnavailable(
                    BUCKET,
                    f"reading {self.summary.key!r} is too slow: {self._paced:,} bytes in {self._waited:.0f} s, after "
                    f"{self._read - self._paced:,} of {self.summary.size:,}",
                    self._where,
                )
            self._waited, self._paced = 0.0, 0
        return found

    def close(self) -> None:
        """Leave the place that it has, if it is slow."""
        if self._is_slow:
            self._is_slow = False
            self._slow_bodies.leave()

    def _require_place(self) -> None:
        if self._is_slow:
            self._slow_bodies.require_going_on(self.summary.key)
        elif self._waited_in_all > _SLOW_SECONDS and self._read < self.summary.size:
            self._slow_bodies.take(self.summary.key)
            self._is_slow = True
            log.warning(
                "slow body",
                key=self.summary.key,
                read=self._read,
                size=self.summary.size,
                seconds=round(self._waited_in_all, 1),
            )


def s3_client(settings: BucketSettings, connections: int = 10, attempts: int = 3) -> "S3Client":
    """Make a client for any S3 store, addressed path-style; it makes each request up to so many times.

    Raises: Misconfigured.
    """
    try:
        return _session().client(
            "s3",
            endpoint_url=str(settings.endpoint),
            aws_access_key_id=settings.access_key.get_secret_value(),
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            region_name=settings.region,
            verify=verified_by(settings.ca_file),
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=_SILENT_SECONDS,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=connections,
                # A third of the time that a request takes here is for these two, and nobody needs either.
                user_agent="fleettickets",
                parameter_validation=False,
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
    """One bucket and the feeds' folders in it, at least one. Safe to share between threads.

    Of the bodies that come slowly `slow` are read at a time, and none to its end once `stop` is set.
    """

    def __init__(
        self,
        settings: BucketSettings,
        folders: Sequence[Folder],
        connections: int = 10,
        *,
        slow: int = 1,
        stop: Event | None = None,
    ) -> None:
        self.name = settings.bucket
        self.folders = tuple(folders)
        self._where = settings.where
        self._slow_bodies = SlowBodies(slow, stop or Event())
        self._s3 = s3_client(settings, connections)
        # Copies and deletes are not for the client to repeat. One whose answer was lost is done, and by the time of
        # another attempt the key can hold a version that nobody has read: `archive` looks again first.
        self._s3_once = s3_client(settings, connections, attempts=1)
        # Whether the store keeps the conditions of copies and of deletes, which it shows on the first of each.
        self._showing = Lock()
        self._keeps_of_copies: bool | None = None
        self._keeps_of_deletes: bool | None = None
        self._refuses_several = False

    def require(self) -> None:
        """Ask the store once whether settings and bucket fit together, for a clear word at the start.

        Raises: Misconfigured, DependencyDown.
        """
        try:
            for folder in self.folders:
                with self._translated_errors(folder.changes):
                    self._s3.list_objects_v2(Bucket=self.name, Prefix=folder.changes, MaxKeys=1)
        except DependencyDown as error:
            refusal = error.__cause__
            if isinstance(refusal, ClientError) and _is_refusal(refusal):
                raise Misconfigured(self._unfit(refusal)) from error
            raise
        except ObjectMissing as error:
            raise Misconfigured(f"RUSTFS_ENDPOINT: what answers at {self._where} is no S3 store") from error

    def look(self) -> None:
        """Ask the store for next to nothing, by one request, which an end of the process may have to wait for.

        Raises: DependencyDown, ObjectRefused.
        """
        folder = self.folders[0]
        with self._translated_errors(folder.changes):
            self._s3_once.list_objects_v2(Bucket=self.name, Prefix=folder.changes, MaxKeys=1)

    def is_empty(self, folder: Folder) -> bool:
        """Whether a feed has nothing that waits and nothing in its archive.

        Raises: DependencyDown, ObjectRefused.
        """
        return not any(self._listing(prefix, 1).get("Contents") for prefix in (folder.changes, folder.processed))

    def other_changes(self, folders: Iterable[Folder]) -> list[str]:
        """Folders called `changes/`, in any case, that are none of these.

        Of those that lie deep, and of a bucket with very many folders, not all are found.
        Raises: DependencyDown; ObjectRefused, where no more may be listed than the feeds' own.
        """
        known = {folder.changes for folder in folders}
        found: list[str] = []
        looked_at, to_come = 0, deque([""])
        while to_come and looked_at < _LISTINGS:
            looked_at += 1
            for prefix in self._listing(to_come.popleft(), _PAGE, Delimiter="/").get("CommonPrefixes", []):
                name = prefix["Prefix"]
                if name.casefold().endswith(f"/{CHANGES}") or name.casefold() == CHANGES:
                    found += [] if name in known else [name]
                elif name.count("/") < _DEEP:
                    to_come.append(name)
        return found

    def _listing(self, prefix: str, keys: int, **options: Any) -> "ListObjectsV2OutputTypeDef":
        with self._translated_errors(prefix):
            return self._s3.list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=keys, **options)

    def waiting(self) -> Iterator[ObjectSummary]:
        """Every object in `changes/`, folder by folder, in the order of the keys; one request per thousand.

        Raises: DependencyDown.
        """
        return chain.from_iterable(map(self.waiting_in, self.folders))

    def waiting_in(self, folder: Folder, after: str = "") -> Iterator[ObjectSummary]:
        """The same of one folder, or what comes after a key.

        Raises: DependencyDown.
        """
        return self._objects(folder.changes, after)

    def archived(self) -> Iterator[ObjectSummary]:
        """Every object in `processed/`, folder by folder, in the order of the keys; one request per thousand.

        Raises: DependencyDown.
        """
        return chain.from_iterable(self._objects(folder.processed) for folder in self.folders)

    def _objects(self, folder: str, after: str = "") -> Iterator[ObjectSummary]:
        with self._translated_errors(folder):
            listing = self._s3.get_paginator("list_objects_v2")
            # Without a key to begin after, as not every store may know what an empty one means.
            begin: Begin = {"StartAfter": after} if after else {}
            listed = listing.paginate(Bucket=self.name, Prefix=folder, PaginationConfig={"PageSize": _PAGE}, **begin)
            for page in listed:
                for found in page.get("Contents", []):
                    if found["Key"] != folder:  # some tools make a folder an empty object
                        yield _listed_object(found)

    def change_key(self, archive_key: str) -> str:
        """The key that an archived object had in `changes/`."""
        folder = self.folder_of(archive_key)
        return folder.changes + _SUFFIX.sub("", archive_key.removeprefix(folder.processed))

    def archives_of(self, key: str) -> list[ObjectSummary]:
        """Every object in `processed/` that a version of the key was archived as.

        Raises: DependencyDown.
        """
        folder = self.folder_of(key)
        name = PurePosixPath(key.removeprefix(folder.changes))
        found = self._objects(f"{folder.processed}{name.with_suffix('')}")
        return [archived for archived in found if self.change_key(archived.key) == key]

    def digest(self, key: str) -> str:
        """The SHA-256 of an object's bytes, which are streamed.

        Raises: ObjectMissing; ObjectRefused, when the store will not give this one; DependencyDown.
        """
        digest = hashlib.sha256()
        with self.open(key) as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    @contextmanager
    def open(self, key: str) -> Iterator[OpenObject]:
        """Read one object as a stream.

        Raises: ObjectMissing; ObjectRefused, when the store will not give this one; DependencyDown.
        """
        with self._translated_errors(key):
            answer = self._s3.get_object(Bucket=self.name, Key=key)
        opened = OpenObject(_summary(key, answer), answer["Body"], self._slow_bodies, self._where)
        try:
            yield opened
        finally:
            opened.close()
            answer["Body"].close()

    def head(self, key: str, version_id: str | None = None) -> ObjectSummary | None:
        """What the bucket has under the key now, or as that version; None if nothing.

        Raises: DependencyDown.
        """
        try:
            with self._translated_errors(key):
                if version_id is None:
                    answer = self._s3.head_object(Bucket=self.name, Key=key)
                else:
                    answer = self._s3.head_object(Bucket=self.name, Key=key, VersionId=version_id)
        except ObjectMissing:
            return None
        return _summary(key, answer)

    def put(self, key: str, body: bytes) -> None:
        """Raises: ObjectRefused, DependencyDown."""
        with self._translated_errors(key):
            self._s3.put_object(Bucket=self.name, Key=key, Body=body)

    def remove(self, key: str) -> None:
        """Delete what is there now, of a bucket that keeps versions for good; nothing is as well.

        Raises: ObjectRefused, DependencyDown.
        """
        found = self.head(key)
        if found is not None:
            self._delete(found.put)

    def archive(
        self, put: Put, sha256: str, copied: Callable[[], None], *, may_delete: bool = True, looks: bool = True
    ) -> str | None:
        """Move a put of a change file to `processed/`: copy, check, delete. Repeatable at any point.

        A taken name with other bytes is never overwritten: the copy gets a suffix from its own hash. `copied` is
        called once the copy is known to be good, before the delete. What is deleted is that put and no other one, not
        even of the same bytes; without `may_delete` nothing is that has no version to be known by. Whoever knows that
        nothing else of its key was applied since need have no `looks`: a store that keeps the condition of a delete
        goes by the bytes, and the same ones put once more are no news then.
        Gives the archive's key; None when that version is gone and no copy of it was ever made.
        Raises: ObjectChanged when the key now holds another version, which stays; ObjectRefused; DependencyDown.
        """
        if not put.key.startswith(self.folder_of(put.key).changes):
            raise ValueError(f"{put.key!r} is no change file")
        move = Move(put, sha256, may_delete, looks)
        try:
            return self._archive(move, copied)
        except SlowBody:
            raise
        except DependencyDown:
            return self._archive(move, copied)

    def archive_all(self, moves: Sequence[Move], copied: Callable[[], None]) -> list[str | ObjectChanged | None]:
        """The same for several, with different keys of one folder; gives ObjectChanged where one would raise it.

        The store's own conditions, or else a listing of either folder, answer at once what of each would be asked for.
        That goes for those that are as they should be; any other is archived as if it were alone.
        Raises: ObjectRefused, DependencyDown; some may be archived by then.
        """
        together = self._copy_together(moves) if len(moves) > 1 else {}
        self._delete_all([move for move in moves if move.may_delete and move.put in together], copied)
        done: list[str | ObjectChanged | None] = []
        for move in moves:
            if move.put in together:
                done.append(together[move.put])
                continue
            try:
                done.append(self.archive(move.put, move.sha256, copied, may_delete=move.may_delete, looks=move.looks))
            except ObjectChanged as error:
                done.append(error)
        return done

    def _delete_all(self, moves: Sequence[Move], copied: Callable[[], None]) -> None:
        """Delete what has good copies."""
        for place, move in enumerate(moves):
            # Where each is to be looked at, one look and one request are for all that are left.
            if self._keeps_of_deletes is False and not self._refuses_several:
                self._delete_at_once([left.put for left in moves[place:]], copied)
                return
            copied()
            self._delete(move.put, looks=move.looks)

    def _delete_at_once(self, puts: Sequence[Put], copied: Callable[[], None]) -> None:
        """Delete puts that have good copies by one request, which knows no conditions, right after one look at all."""
        for _ in puts:
            copied()
        there = self._listed(self.folder_of(puts[0].key).changes, [put.key for put in puts])
        same = {put.key: put for put in puts if (found := there.get(put.key)) is not None and found.put.is_same(put)}
        others = [put for put in puts if put.key not in there]
        if same:
            try:
                with self._translated_errors(puts[0].key):
                    # A store that knew conditions after all would find each one's here.
                    listed: list[ObjectIdentifierTypeDef] = [
                        {"Key": put.key, "ETag": f'"{put.etag}"'} for put in same.values()
                    ]
                    answer = self._s3_once.delete_objects(Bucket=self.name, Delete={"Objects": listed, "Quiet": True})
                others += [same[error["Key"]] for error in answer.get("Errors", [])]
            except (ObjectRefused, ObjectUnavailable) as error:
                log.warning("no deletes of several", detail=str(error))
                is_of_a_moment = isinstance(error, ObjectUnavailable) and not _is_unknown(error.__cause__)
                self._refuses_several = not is_of_a_moment
                others += same.values()
        for put in others:
            self._delete(put)

    def _copy_together(self, moves: Sequence[Move]) -> dict[Put, str]:
        """Copy the puts that are there and have not been copied yet; gives the keys of good copies."""
        names = {move.put: self._archive_names(move.put.key, move.sha256)[0] for move in moves}
        copies, is_kept = {}, self._keeps_of_copies
        for put, name in (names if is_kept else self._to_copy(names)).items():
            if put.version_id:  # its delete is another one
                continue
            with suppress(ObjectMissing, ObjectChanged):
                etag = self._copy_under(put, name, **_FREE) if is_kept else self._copy(put, name)
                if etag == put.etag:
                    copies[put] = name
        return copies

    def _to_copy(self, names: Mapping[Put, str]) -> dict[Put, str]:
        """Those that are there, and whose name in the archive is free."""
        folder = self.folder_of(next(iter(names)).key)
        waiting = self._listed(folder.changes, [put.key for put in names])
        archived = self._listed(folder.processed, list(names.values()))
        return {
            put: name
            for put, name in names.items()
            if (found := waiting.get(put.key)) and found.etag == put.etag and archived.get(name, found) is None
        }

    def _listed(self, folder: str, keys: Sequence[str]) -> dict[str, ObjectSummary | None]:
        """What is there under keys of the folder, of as many of them as one request tells of."""
        first = min(keys)
        with self._translated_errors(first):
            page = self._s3.list_objects_v2(
                Bucket=self.name,
                Prefix=folder,
                StartAfter=first[:-1],  # hardly anything lies between that and the key itself
                MaxKeys=len(keys) + _BESIDE,
            )
        found = {each.key: each for each in map(_listed_object, page.get("Contents", []))}
        last = max(found, default="") if page["IsTruncated"] else max(keys)
        return {key: found.get(key) for key in keys if key <= last}

    def _archive(self, move: Move, copied: Callable[[], None]) -> str | None:
        put, sha256 = move.put, move.sha256
        for archive_key in self._archive_names(put.key, sha256):
            archive_etag = self._copied(put, archive_key)
            if archive_etag is not None and self._is_copy(archive_key, archive_etag, put.etag, sha256):
                copied()
                if move.may_delete or put.version_id:
                    self._delete(put, looks=move.looks)
                return archive_key
        if self.head(put.key) is not None:
            raise ObjectChanged(self.name, put.key)
        # Gone since the first look: another delivery of the file may have archived it in between.
        for archive_key in self._archive_names(put.key, sha256):
            taken = self.head(archive_key)
            if taken is not None and self._is_copy(archive_key, taken.etag, put.etag, sha256):
                return archive_key
        return None

    def _copied(self, put: Put, archive_key: str) -> str | None:
        """The ETag of what the archive has under a name, copied there where that is free; None if the put is gone."""
        if self._keeps_of_copies:
            # Why the store refuses a copy, the looks tell.
            with suppress(ObjectMissing, ObjectChanged):
                return self._copy_under(put, archive_key, **_FREE)
        taken = self.head(archive_key)
        if taken is not None:
            return taken.etag
        if self._holds(put):
            try:
                return self._copy(put, archive_key)
            except ObjectMissing:
                pass
            except ObjectChanged:
                if (taken := self.head(archive_key)) is None:
                    raise
                return taken.etag
        return None

    def _holds(self, put: Put) -> bool:
        """Whether the bytes of the put are still to be had, from whichever put."""
        found = self.head(put.key, put.version_id)
        return found is not None and found.etag == put.etag

    def _archive_names(self, key: str, sha256: str) -> tuple[str, str]:
        folder = self.folder_of(key)
        name = PurePosixPath(key.removeprefix(folder.changes))
        plain = f"{folder.processed}{name}"
        return plain, f"{folder.processed}{name.with_name(f'{name.stem}~{sha256[:12]}{name.suffix}')}"

    def address(self) -> str:
        """Host and port of the store."""
        return self._where

    def folder_of(self, key: str) -> Folder:
        """The folder that has the key.

        Raises: ValueError.
        """
        folder = folder_of(self.folders, key)
        if folder is None:
            raise ValueError(f"{key!r} is in none of the folders")
        return folder

    def _copy(self, put: Put, archive_key: str) -> str:
        """Copy a put to a name that a look has just found free."""
        # While one shows what the store keeps, the others wait for no answer.
        if self._keeps_of_copies is None and self._showing.acquire(blocking=False):
            try:
                return self._copy_in_trial(put, archive_key)
            finally:
                self._showing.release()
        return self._copy_under(put, archive_key, **(_FREE if self._keeps_of_copies else {}))

    def _copy_in_trial(self, put: Put, archive_key: str) -> str:
        """The same under conditions that do not hold, first of the source and then of the name.

        A store that ignores them does what is to be done, or does it once more with the same bytes. What it keeps stays
        open where it cannot be told from somebody's change.
        """
        if self._keeps_of_copies is not None:
            return self._copy_under(put, archive_key)
        with suppress(ObjectChanged):
            etag = self._copy_under(put, archive_key, source=_NO_ETAG)
            self._keeps_of_copies = False
            return etag
        etag = self._copy_under(put, archive_key)
        with suppress(ObjectMissing):
            kept = _kept(lambda: self._copy_under(put, archive_key, **_FREE))
            if not kept:
                self._keeps_of_copies = False
            elif self._holds(put):  # or it may have been the source's condition
                self._keeps_of_copies = True
        return etag

    def _copy_under(self, put: Put, archive_key: str, source: str | None = None, **conditions: str) -> str:
        """Raises: ObjectChanged for a condition that does not hold, the source's ETag among them; ObjectMissing."""
        of: CopySourceTypeDef = {"Bucket": self.name, "Key": put.key}
        if put.version_id:
            of["VersionId"] = put.version_id
        with self._translated_errors(put.key):
            answer = self._s3_once.copy_object(
                Bucket=self.name,
                Key=archive_key,
                CopySource=of,
                CopySourceIfMatch=source or f'"{put.etag}"',
                **conditions,  # type: ignore[arg-type]
            )
        return answer["CopyObjectResult"]["ETag"].strip('"')

    def _delete(self, put: Put, *, looks: bool = True) -> None:
        """Delete the put; where the bucket keeps versions that one for good, and none that is there by now.

        A store that keeps the conditions of deletes finds by itself whether these bytes are there. Others, such as Ceph
        16, ignore them, so a look comes right before.
        """
        with suppress(ObjectMissing, ObjectChanged):
            if put.version_id:
                self._delete_under(put, VersionId=put.version_id)
                return
            is_kept = self._keeps_of_deletes
            if not (is_kept and not looks) and not self._is_there(put):
                return
            if is_kept is None and self._showing.acquire(blocking=False):
                try:
                    self._delete_in_trial(put)
                finally:
                    self._showing.release()
            else:
                self._delete_under(put, **({"IfMatch": f'"{put.etag}"'} if is_kept else {}))

    def _delete_in_trial(self, put: Put) -> None:
        """Delete a put that is there under a condition that does not hold, and otherwise as it is kept."""
        kept = _kept(lambda: self._delete_under(put, IfMatch=_NO_ETAG))
        if kept is None:
            self._delete_under(put)  # refused as well, it was not for the condition
        elif kept:
            self._delete_under(put, IfMatch=f'"{put.etag}"')
        if self._keeps_of_deletes is None:
            self._keeps_of_deletes = bool(kept)

    def _delete_under(self, put: Put, **conditions: str) -> None:
        with self._translated_errors(put.key):
            self._s3_once.delete_object(Bucket=self.name, Key=put.key, **conditions)  # type: ignore[arg-type]

    def _is_there(self, put: Put) -> bool:
        found = self.head(put.key)
        return found is not None and found.put.is_same(put)

    def _is_copy(self, archive_key: str, archive_etag: str, etag: str, sha256: str) -> bool:
        if archive_etag == etag:
            return True
        # An object stored in parts has another ETag than its copy: only the bytes tell.
        return self.digest(archive_key) == sha256

    def _is_open(self) -> bool:
        """Whether the bucket as a whole answers, so that a refusal was meant for one object."""
        try:
            self._s3.list_objects_v2(Bucket=self.name, Prefix=self.folders[0].changes, MaxKeys=1)
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
                raise ObjectRefused(BUCKET, detail) from error
            if _is_fault(error) and self._is_open():
                raise ObjectUnavailable(BUCKET, detail, self._where) from error
            # Refused credentials and a missing bucket too: the operator can mend them while files wait.
            if _is_refusal(error):
                raise DependencyDown(BUCKET, self._unfit(error)) from error
            raise DependencyDown(BUCKET, detail, self._where) from error
        except (BotoCoreError, HTTPError, OSError) as error:
            raise DependencyDown(BUCKET, _one_line(error), self._where) from error

    def _unfit(self, error: ClientError) -> str:
        """Which setting is wrong, where the store refuses whatever it is asked."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        setting, what = _UNFIT.get(code, (_ALL, "refuses all that it is asked"))
        return f"{setting}: the store at {self._where} {what.format(bucket=self.name)} ({code}, {error.operation_name})"


def _kept(request: Callable[[], object]) -> bool | None:
    """Whether the store keeps the condition of a request, which does not hold, or has done what it is asked.

    None where it has not, and refuses such a condition. Raises: ObjectMissing, DependencyDown.
    """
    try:
        request()
    except ObjectChanged:
        return True
    except ObjectRefused:
        return None
    except ObjectUnavailable as error:
        if _is_unknown(error.__cause__):
            return None
        raise
    return False


def _listed_object(found: "ObjectTypeDef") -> ObjectSummary:
    return ObjectSummary(found["Key"], found["ETag"].strip('"'), found["Size"], found["LastModified"])


def _summary(key: str, answer: "GetObjectOutputTypeDef | HeadObjectOutputTypeDef") -> ObjectSummary:
    version = answer.get("VersionId")
    # A bucket that has stopped to keep versions calls each new object "null", the next one as well.
    named = version if version and version != "null" else None
    return ObjectSummary(key, answer["ETag"].strip('"'), answer["ContentLength"], answer["LastModified"], named)


def _is_fault(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500  # noqa: PLR2004 - the class of HTTP's server errors


def _is_unknown(error: BaseException | None) -> bool:
    """Whether the store does not know what it is asked."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    return code in {"NotImplemented", "501"}


def _is_refusal(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= status < 500 and status not in _TRY_AGAIN  # noqa: PLR2004 - the class of HTTP's client errors


def _one_line(error: BaseException) -> str:
    return tls.explained(_ASKED.sub(r'\1"', " ".join(str(error).split()))[:300], "RUSTFS_ENDPOINT")

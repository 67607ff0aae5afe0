"""Whether a store keeps the conditions of S3's copies and deletes: tried on small objects of our own."""

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from publisher import tls
from publisher.arrivals.folders import Folder
from publisher.errors import DependencyDown, StoreRefused
from publisher.settings import BucketSettings
from publisher.store.bucket import BUCKET, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef

_WRONG = '"00000000000000000000000000000000"'
_REFUSED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_UNKNOWN = frozenset({"NotImplemented", "501", "InvalidRequest", "InvalidArgument"})


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the store does with a condition that does not hold: refuses (True), or goes on as if there were none.

    A copy has two: what is copied, and that its name is free.
    """

    copy: bool
    delete: bool


def try_conditions(settings: BucketSettings, folder: Folder) -> Conditions:
    """Write, copy and delete an object in `doctor/` beside a feed's `changes/`, which nothing else looks at.

    Leaves nothing.

    Raises: DependencyDown; StoreRefused, when the store will not write, copy or delete there at all.
    """
    s3, bucket, where = s3_client(settings), settings.bucket, settings.where
    source = f"{folder.prefix}doctor/{uuid.uuid4().hex}"
    copy = f"{source}.copy"
    of: CopySourceTypeDef = {"Bucket": bucket, "Key": source}
    try:
        _do(where, "write", lambda: s3.put_object(Bucket=bucket, Key=source, Body=b"fleettickets doctor\n"))
        keeps_copy = _refuses(
            where,
            "copy",
            lambda: s3.copy_object(Bucket=bucket, Key=copy, CopySource=of, CopySourceIfMatch=_WRONG),
            is_needed=True,
        )
        if keeps_copy:
            _do(where, "copy", lambda: s3.copy_object(Bucket=bucket, Key=copy, CopySource=of))
            keeps_copy = _refuses(
                where, "copy", lambda: s3.copy_object(Bucket=bucket, Key=copy, CopySource=of, IfNoneMatch="*")
            )
        keeps_delete = _refuses(where, "delete", lambda: s3.delete_object(Bucket=bucket, Key=copy, IfMatch=_WRONG))
        _do(where, "delete", lambda: s3.delete_object(Bucket=bucket, Key=copy))
        _do(where, "delete", lambda: s3.delete_object(Bucket=bucket, Key=source))
    finally:
        for key in (copy, source):
            with contextlib.suppress(ClientError, BotoCoreError):
                s3.delete_object(Bucket=bucket, Key=key)
    return Conditions(copy=keeps_copy, delete=keeps_delete)


def _refuses(where: str, what: str, call: Callable[[], object], *, is_needed: bool = False) -> bool:
    """Whether the store refuses a request for its condition, which does not hold; it may know no such condition.

    Raises: StoreRefused, also for a condition that `is_needed` and not known; DependencyDown.
    """
    try:
        _do(where, what, call)
    except StoreRefused as error:
        code = _code(error.__cause__)
        if code in _REFUSED:
            return True
        if is_needed or code not in _UNKNOWN:
            raise
    return False


def _do(where: str, what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        raise StoreRefused(BUCKET, f"no right to {what} an object? {' '.join(str(error).split())[:200]}") from error
    except BotoCoreError as error:
        detail = tls.explained(" ".join(str(error).split())[:200], "RUSTFS_ENDPOINT")
        raise DependencyDown(BUCKET, detail, where) from error


def _code(error: BaseException | None) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""

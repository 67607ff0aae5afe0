"""The first half of a file's tail: its object moves to `processed/`, and the ledger says where it went."""

from collections.abc import Iterator

from consumer import database
from consumer.applying import LedgerFile
from consumer.database import Pool
from consumer.fail_points import AtPoint
from publisher.bucket import Bucket
from publisher.errors import ObjectChanged


def archive_file(pool: Pool, bucket: Bucket, file: LedgerFile, at: AtPoint) -> str | None:
    """Archive the applied version. Repeatable; gives the archive's key, None when there was nothing left to archive.

    Raises: Refused, DependencyDown.
    """
    archive_key, reason = None, None
    try:
        archive_key = bucket.archive(file.key, file.etag, file.sha256, lambda: at("after copy, before delete"))
        if archive_key is None:
            reason = "gone from the bucket before it was archived"
    except ObjectChanged:
        # The new version raises an event of its own and keeps its place.
        reason = "replaced in the bucket before it was archived"
    at("after delete, before state")
    if file.state == "applied":
        with database.transaction(pool) as connection:
            parameters = {"file_id": file.file_id, "archive_key": archive_key, "reason": reason}
            database.rows(connection, "ledger", "record_archived", parameters)
    return archive_key


def open_tails(pool: Pool, bucket: Bucket, age: float) -> Iterator[LedgerFile]:
    """Give every version that was applied more than `age` seconds ago and is not archived, the first applied first.

    Raises: DependencyDown.
    """
    parameters = {"bucket": bucket.name, "prefix": bucket.prefix, "age": age, "after": 0}
    while True:
        with database.transaction(pool) as connection:
            tails = [LedgerFile(**row) for row in database.rows(connection, "ledger", "open_tails", parameters)]
        if not tails:
            return
        yield from tails
        # By number, and not from the start again: what cannot be archived stays, and must not keep the rest back.
        parameters["after"] = tails[-1].file_id

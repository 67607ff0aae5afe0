"""The first half of a file's tail: its object moves to `processed/`, and the ledger says where it went."""

from collections.abc import Iterator

from consumer.fail_points import Reached
from consumer.files.applying import LedgerFile, ledger_file, lock_key
from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.errors import FleetticketsError, ObjectChanged
from publisher.store.bucket import Bucket


def archive_file(pool: Pool, bucket: Bucket, file: LedgerFile, reached: Reached) -> str | None:
    """Archive the applied version, under its key's lock. Repeatable; gives the archive's key, None where none was made.

    Only the put that was read is deleted. Whatever else its key holds by now, the same bytes stored once more too, is
    left to a delivery of its own: another version may have been applied in between, and these bytes are the news then.
    Raises: ObjectRefused, DependencyDown, KeyInHand.
    """
    with database.transaction(pool) as connection:
        lock_key(connection, bucket.name, file.key)
        parameters = {"file_id": file.file_id, "decided_at": file.decided_at}
        standing = database.row(connection, "ledger", "standing", parameters)
        if standing is None or standing["is_applied_again"] or standing["state"] in {"seen", "failed"}:
            return None
        archive_key, reason = None, None
        try:
            archive_key = bucket.archive(
                file.put,
                file.sha256,
                lambda: reached("after copy, before delete"),
                may_delete=not standing["is_overtaken"],
            )
            if archive_key is None:
                reason = "gone from the bucket before it was archived"
        except ObjectChanged:
            # The new version raises an event of its own and keeps its place.
            reason = "replaced in the bucket before it was archived"
        reached("after delete, before state")
        if standing["state"] == "applied":
            parameters = {"file_id": file.file_id, "archive_key": archive_key, "reason": reason}
            database.rows(connection, "ledger", "record_archived", parameters)
    return archive_key


def leave_unarchived(pool: Pool, file: LedgerFile, error: FleetticketsError) -> None:
    """Record that the store does not let the object be archived: its rows are in, and the sweep tries again.

    Raises: DependencyDown.
    """
    with database.transaction(pool) as connection:
        parameters = {"file_id": file.file_id, "error": str(error)}
        database.rows(connection, "ledger", "record_not_archived", parameters)


def open_tails(pool: Pool, bucket: Bucket, age: float, *, only_due: bool) -> Iterator[LedgerFile]:
    """Give every version that was applied more than `age` seconds ago and is not archived, the first applied first.

    `only_due` leaves out those that could not be archived a while ago.
    Raises: DependencyDown.
    """
    parameters = {"bucket": bucket.name, "prefix": bucket.prefix, "age": age, "after": 0, "due_or_not": not only_due}
    while True:
        with database.transaction(pool) as connection:
            tails = [ledger_file(row) for row in database.rows(connection, "ledger", "open_tails", parameters)]
        if not tails:
            return
        yield from tails
        # By number, and not from the start again: what cannot be archived stays, and must not keep the rest back.
        parameters["after"] = tails[-1].file_id

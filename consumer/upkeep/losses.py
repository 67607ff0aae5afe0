"""Objects that are gone, acknowledged by a person: from then on `verify` tells them apart."""

from pydantic import Field

from consumer.fail_points import Reached
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.upkeep.views import Moment, View
from publisher.errors import FleetticketsError, Misconfigured
from publisher.store.bucket import Bucket


class NotLost(FleetticketsError):
    """Nothing of this file is gone that the ledger has."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key!r} is not lost: {why}")
        self.key = key


class KnownLoss(View):
    """What somebody says of an object that is gone."""

    reason: str
    acknowledged_by: str = Field(description="The user and the host of the command.")
    login: str = Field(description="Of the database.")
    acknowledged_at: Moment


class Loss(View):
    """A version of a file whose object is gone."""

    key: str
    etag: str
    object_key: str


def lost_versions(connection: Connection, bucket: Bucket, key: str) -> list[Loss]:
    """Those of a file, by its key, that of its archived object or its bare name, whose object the bucket does not have.

    Raises: NotLost, DependencyDown, Refused; Misconfigured for a bare name that files of several feeds have.
    """
    with database.translated_errors():
        parameters = {"bucket": bucket.name, "keys": _meant(bucket, key.replace("\0", ""))}
        candidates = [Loss(**row) for row in database.rows(connection, "losses", "candidates", parameters)]
    if len(several := {loss.key: None for loss in candidates}) > 1:
        raise Misconfigured(f"several have that name: {' and '.join(several)}; say which")
    if not candidates:
        raise NotLost(key, "the ledger has no version of it that needs an object")
    lost = [loss for loss in candidates if bucket.head(loss.object_key) is None]
    if not lost:
        raise NotLost(key, f"the bucket has {candidates[0].object_key!r}")
    return lost


def _meant(bucket: Bucket, given: str) -> list[str]:
    if "/" in given:
        return [given]
    return [folder + given for one in bucket.folders for folder in (one.changes, one.processed)]


def acknowledge(  # noqa: PLR0917 - what is said, and who says it
    connection: Connection, bucket: Bucket, losses: list[Loss], reason: str, by: str, reached: Reached
) -> None:
    """Keep the reason, and who says so: of all of them, or of none. Once more, the last word counts.

    Raises: DependencyDown, Refused.
    """
    with database.translated_errors(), connection.transaction():
        for loss in losses:
            version = {"bucket": bucket.name, "key": loss.key, "etag": loss.etag}
            database.rows(connection, "losses", "acknowledge", version | {"reason": reason, "by": by})
            reached("between acknowledgements")
    reached("acknowledged, not told")

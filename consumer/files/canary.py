"""A canary: a file that `doctor` lays among a feed's change files. It goes the way of each of them and leaves nothing.

The store announces it, a consumer reads it, applies it by its own statements, rolls that back, and archives it; then it
removes the copy as well. So whoever laid it may have died meanwhile. How far it came is in `ingest.canaries`.
"""

import hashlib
import re
from functools import partial

from consumer.feeds.feed import Feed
from consumer.files.rehearsal import rehearse
from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.arrivals.messages import SeenBy
from publisher.errors import HeldByAnother, ObjectChanged, ObjectMissing, Permanent, Refused
from publisher.store.bucket import Bucket

_MOST_BYTES = 64 * 1024
"""A larger one is none of ours, and not read."""
_NAME = re.compile(r"canary-(?P<name>[0-9a-f]{32})\.csv")


def key_of(feed: Feed, name: str) -> str:
    """Where a canary is laid; no change file can be called so."""
    return f"{feed.folder.changes}canary-{name}.csv"


def name_in(feed: Feed, key: str) -> str | None:
    """The name of the canary that the key is of; None for any other file."""
    match = _NAME.fullmatch(key.removeprefix(feed.folder.changes))
    return match["name"] if match else None


class Canaries:
    """Carries each its way. Safe to share between threads."""

    def __init__(self, pool: Pool, bucket: Bucket) -> None:
        self._pool = pool
        self._bucket = bucket

    def carry(self, feed: Feed, key: str, name: str, seen_by: SeenBy) -> bool:
        """Whatever fails that would fail for one file alone is noted, and the canary is removed all the same.

        Gives whether it was one: a large file is none, whatever its name.
        Raises: DependencyDown.
        """
        try:
            with self._bucket.open(key) as opened:
                put = opened.summary.put
                if opened.summary.size > _MOST_BYTES:
                    return False
                self._note("delivered", key, seen_by=seen_by)
                body = b"".join(iter(partial(opened.read, _MOST_BYTES), b""))
        except ObjectMissing:
            # Whoever laid it has given it up; or somebody who carried it has died between its archive and its end.
            for copy in self._bucket.archives_of(key):
                self._bucket.remove(copy.key)
            return True
        self._note("opened", key)
        try:
            if rehearse(self._pool, feed, name, body):
                self._note("applied", key)
            else:
                self._note("failed", key, trouble="it was applied, and its rows were not there")
        except (HeldByAnother, Permanent, Refused) as error:
            self._note("failed", key, trouble=f"it cannot be applied: {error.detail}")
        try:
            archive_key = self._bucket.archive(put, hashlib.sha256(body).hexdigest(), lambda: None)
        except ObjectChanged:
            return True
        self._note("archived", key)
        if archive_key is not None:
            self._bucket.remove(archive_key)
        self._note("removed", key)
        return True

    def _note(self, stage: str, key: str, **told: str) -> None:
        with database.statement(self._pool) as connection:
            database.rows(connection, "canaries", stage, {"key": key} | told)

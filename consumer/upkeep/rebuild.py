"""The contents that tickets had before their feed had a history, from the files of the archive.

Each file is read in a transaction of its own, in which it is told of and its rows are put in their places, as those
of a late file are. No ticket changes. So it may run beside consumers, end at any point, and be begun again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from pydantic import Field

from consumer.feeds.feed import Feed
from consumer.files import ledger, tellings
from consumer.files.cleaning import TicketRow
from consumer.files.rows import Rows
from consumer.files.tellings import UntoldFile
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.postgres.queries import statements
from consumer.upkeep.drain import waiting_for_key
from consumer.upkeep.views import Moment, View
from publisher.errors import (
    KeyInHand,
    LockTimeout,
    ObjectMissing,
    ObjectRefused,
    ObjectUnavailable,
    Permanent,
    SlowBody,
    StatementRefused,
)
from publisher.store.bucket import Bucket

_OF_THIS_ONE = (
    KeyInHand, LockTimeout, ObjectMissing, ObjectRefused, ObjectUnavailable, Permanent, SlowBody, StatementRefused,
)  # fmt: skip
"""What is wrong with one file, or in its way, is no reason to leave the others unread."""


class UnreadFile(View):
    """A file that could not be read, and why; what it told stays unknown."""

    key: str
    reason: str


class Rebuilt(View):
    """What became of the files of one feed."""

    feed: str
    files: int = Field(description="That were read.")
    rows: int = Field(description="Of tickets, in these.")
    changed: int = Field(description="Rows that told of a content, or of when it began, what was not known.")
    unread: list[UnreadFile]
    since: Moment | None = Field(description="From when on nothing is missing now; null for all times.")


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One run over the archive, of what is no older than the bound. `stop` ends it after the file in hand."""

    pool: Pool
    bucket: Bucket
    bound: datetime
    stop: Event

    def count(self, feed: Feed) -> int:
        """How many files are to be read. Raises: DependencyDown."""
        with database.transaction(self.pool) as connection:
            return tellings.count_untold(connection, feed, self.bucket.name, self.bound)

    def run(self, feed: Feed, done: Callable[[], None]) -> Rebuilt:
        """Read those of a feed; `done` is called after each.

        Raises: DependencyDown.
        """
        with database.transaction(self.pool) as connection:
            tellings.begin(connection, feed)
        files = rows = changed = 0
        unread: list[UnreadFile] = []
        for file in self._untold(feed):
            try:
                found = waiting_for_key(lambda: self._read(feed, file), file.key, self.stop)  # noqa: B023 - done with it
            except _OF_THIS_ONE as error:
                unread.append(UnreadFile(key=file.key, reason=str(error)))
            else:
                files, rows, changed = files + 1, rows + found[0], changed + found[1]
            done()
        with database.transaction(self.pool) as connection:
            since = tellings.settle_since(connection, feed, self.bound)
        return Rebuilt(feed=feed.name, files=files, rows=rows, changed=changed, unread=unread, since=since)

    def _untold(self, feed: Feed) -> Iterator[UntoldFile]:
        before = None
        while not self.stop.is_set():
            with database.transaction(self.pool) as connection:
                files = tellings.untold(connection, feed, self.bucket.name, self.bound, before)
            if not files:
                return
            for file in files:
                if self.stop.is_set():
                    return
                yield file
            before = files[-1]

    def _read(self, feed: Feed, file: UntoldFile) -> tuple[int, int]:
        """Tell of one file. Gives its rows of tickets, and how many of them changed what is known."""
        with database.transaction(self.pool) as connection:
            ledger.lock_key(connection, self.bucket.name, file.key)
            sha256 = tellings.digest_of_untold(connection, file)
            if sha256 is None:
                return 0, 0
            with self.bucket.open(file.archive_key) as opened:
                # It was applied once, so it is judged by nothing but its rows.
                rows = Rows(opened.read, feed, max_reject_share=1, allows_missing=True)
                count = _stage(connection, rows)
            if rows.sha256 != sha256:
                raise Permanent("other bytes", f"{file.archive_key} has other bytes than were applied: see verify")
            told = tellings.tell_of_past(connection, feed, file.file_id)
            return count, tellings.put_late(connection, feed, told)


def _stage(connection: Connection, rows: Rows) -> int:
    count = 0
    with connection.cursor() as cursor, cursor.copy(statements("merge")["copy_to_staging"]) as copy:
        for row in rows:
            if isinstance(row, TicketRow):
                count += 1
                copy.write_row((1, row.line, row.ticket_id, row.raw, None, None, None, None, None))
    return count

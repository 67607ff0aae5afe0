"""The contents that tickets had before their feed had a history, from the files of the archive.

Some files at a time are read in one transaction, in which they are told of and their rows are put in their places, as
those of late files are. No ticket changes. So it may run beside consumers, end at any point, and be begun again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from psycopg import Copy
from pydantic import Field

from consumer.feeds.feed import Feed
from consumer.files import ledger, tellings
from consumer.files.cleaning import TicketRow
from consumer.files.rows import Rows
from consumer.files.tellings import UntoldFile
from consumer.postgres import database
from consumer.postgres.database import Pool
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
_FILES, _ROWS = 100, 50_000
"""At a time. All that is told behind a file is looked through for it, and as well for many; but meanwhile files of
their keys wait, and while their rows are put in their places, files of the same tickets."""


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

    def run(self, feed: Feed, done: Callable[[int], None]) -> Rebuilt:
        """Read those of a feed; `done` is told of so many whenever it is through with them.

        Raises: DependencyDown.
        """
        with database.transaction(self.pool) as connection:
            tellings.begin(connection, feed)
        files = rows = changed = 0
        unread: list[UnreadFile] = []
        for some in self._untold(feed):
            for read in self._together_or_each(feed, some, unread):
                files, rows, changed = files + read.files, rows + read.rows, changed + read.changed
            done(len(some))
        with database.transaction(self.pool) as connection:
            since = tellings.settle_since(connection, feed, self.bound)
        return Rebuilt(feed=feed.name, files=files, rows=rows, changed=changed, unread=unread, since=since)

    def _untold(self, feed: Feed) -> Iterator[list[UntoldFile]]:
        """So many as are read at a time, until it is to stop."""
        before = None
        while not self.stop.is_set():
            with database.transaction(self.pool) as connection:
                files = tellings.untold(
                    connection, feed, self.bucket.name, self.bound, before, most_files=_FILES, most_rows=_ROWS
                )
            if not files:
                return
            yield files
            before = files[-1]

    def _together_or_each(
        self, feed: Feed, files: Sequence[UntoldFile], unread: list[UnreadFile]
    ) -> Iterator["_ReadFiles"]:
        """All in one transaction; where one of them cannot be read, each in its own, and that one is `unread`."""
        try:
            yield waiting_for_key(lambda: self._read(feed, files), files[0].key, self.stop)
        except _OF_THIS_ONE as error:
            if len(files) == 1:
                unread.append(UnreadFile(key=files[0].key, reason=str(error)))
                return
            for file in files:
                if self.stop.is_set():
                    return
                yield from self._together_or_each(feed, [file], unread)

    def _read(self, feed: Feed, files: Sequence[UntoldFile]) -> "_ReadFiles":
        """Tell of files, but for those that somebody has told of meanwhile, or that are not to be waited for now."""
        with database.transaction(self.pool) as connection:
            for file in files:  # before the first is read, so that who has to wait for one has read none
                ledger.lock_key(connection, self.bucket.name, file.key)
            found: list[UntoldFile] = []
            rows = 0
            with connection.cursor() as cursor:
                for file in files:
                    if self.stop.is_set():
                        break
                    sha256 = tellings.digest_of_untold(connection, file)
                    if sha256 is not None:
                        found.append(file)
                        with cursor.copy(statements("merge")["copy_to_staging"]) as copy:
                            rows += self._copy(copy, len(found), feed, file, sha256)
            if not found:
                return _ReadFiles(0, 0, 0)
            told = tellings.tell_of_past(connection, feed, [file.file_id for file in found])
            return _ReadFiles(len(found), rows, tellings.put_late(connection, feed, told))

    def _copy(self, copy: Copy, place: int, feed: Feed, file: UntoldFile, sha256: str) -> int:
        """Stage the rows of one. Gives how many. Raises: what is of this one alone."""
        count = 0
        with self.bucket.open(file.archive_key) as opened:
            # It was applied once, so it is judged by nothing but its rows.
            rows = Rows(opened.read, feed, max_reject_share=1, allows_missing=True)
            for row in rows:
                if isinstance(row, TicketRow):
                    count += 1
                    copy.write_row((place, row.line, row.ticket_id, row.raw, None, None, None, None, None))
        if rows.sha256 != sha256:
            raise Permanent("other bytes", f"{file.archive_key} has other bytes than were applied: see verify")
        return count


@dataclass(frozen=True, slots=True)
class _ReadFiles:
    """Files that were read, their rows of tickets, and how many of these changed what is known."""

    files: int
    rows: int
    changed: int

"""A file judged while it streams: each row by its feed's declaration, and the file by its rows. Pure.

What arrives and what somebody tries as a sample are judged here, so that what is told of a sample holds.
"""

from collections.abc import Iterator

from consumer.feeds.feed import Feed
from consumer.files.cleaning import Cleaner, Dropped, RowReject, TicketRow
from consumer.files.proportion import Cost
from consumer.files.reading import ChangeFileReader
from publisher.errors import Permanent


class Judge:
    """Of one file. `blanks` are the nulls that its rows are to get."""

    def __init__(self, feed: Feed, reader: ChangeFileReader, max_reject_share: float) -> None:
        """Raises: Permanent, for a header that the feed cannot go by; what the reader raises."""
        self._reader = reader
        self._records = reader.records()
        self._cleaner = Cleaner(next(self._records, None), feed)
        self._max_reject_share = max_reject_share
        self.blanks = self._cleaner.blanks

    def rows(self) -> Iterator[TicketRow | RowReject | Dropped]:
        """What each row is.

        Raises: Permanent, when the file fails whole, which the last row may decide; what the reader raises.
        """
        cost = Cost(self.blanks)
        read = rejected = 0
        first_reject: RowReject | None = None
        for record in self._records:
            read += 1
            row = self._cleaner.clean(record)
            if isinstance(row, RowReject):
                rejected += 1
                first_reject = first_reject or row
            if not isinstance(row, Dropped):
                cost.add(row, self._reader.size)
            yield row
        if first_reject and rejected > self._max_reject_share * read:
            raise Permanent(
                "too many rejects",
                f"{rejected} of {read} rows, more than the share of {self._max_reject_share:g}; "
                f"the first is line {first_reject.line}: {first_reject.reason}",
            )

"""A change file as judged rows: each by its feed's declaration, the file by its rows, and all its lines counted. Pure.

What arrives and what somebody tries as a sample are judged here, so that what is told of a sample holds.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from consumer.feeds.feed import Feed
from consumer.files.cleaning import Cleaner, Dropped, RowReject, TicketRow
from consumer.files.decoding import Read
from consumer.files.header import Header
from consumer.files.proportion import Cost
from consumer.files.reading import NOT_UTF8, ChangeFileReader, Record
from publisher.errors import Permanent

KEPT_REJECTS = 100
"""Of a file that is refused for them."""
_TOLD_GROUPS, _KEPT_GROUPS = 3, 100
_CHARS_TOGETHER = 16 * 1024
FEWEST_ROWS = 10
"""From so many on, a share of them says something of the file."""


@dataclass(frozen=True, slots=True)
class LineCounts:
    """What became of the lines of a file; all but `read` add up to `read`."""

    read: int
    blank: int
    header: int
    """Those of the first header, of each that came again, and of one that says what parts the columns."""
    rejected: int
    rows: int
    """Those of rows that are no rejects, on however many lines."""


class TooManyRejects(Permanent):
    """A file of which so much cannot be tickets that the rest is not trusted; it tells what is wrong, and how often."""

    def __init__(self, rows: "Rows", how_many: str) -> None:
        first = rows.rejects[0]
        kinds = "; ".join(f"{count:,} x {group}" for group, count in rows.groups.most_common(_TOLD_GROUPS))
        more = len(rows.groups) - _TOLD_GROUPS
        of_encoding = sum(count for group, count in rows.groups.items() if group.startswith(NOT_UTF8))
        super().__init__(
            "not UTF-8" if 2 * of_encoding > rows.groups.total() else "too many rejects",
            f"{how_many}: {kinds}{f'; and {more} kinds more' if more > 0 else ''}; "
            f"the first is line {first.line}: {first.reason}",
        )
        self.rejects = tuple(rows.rejects)
        self.groups = dict(rows.groups.most_common(_KEPT_GROUPS))


class Rows:
    """The rows of one file: iterate once, then ask for the counts.

    Raises: Permanent, when the file fails whole, which the last row may decide; what `read` raises.
    """

    def __init__(self, read: Read, feed: Feed, *, max_reject_share: float, allows_missing: bool) -> None:
        self._reader = ChangeFileReader(read, feed, allows_missing=allows_missing)
        self._feed = feed
        self._records = 0
        self._rejected_lines = 0
        self._row_lines = 0
        self._never = 0
        self.header = self._reader.header
        """The first one."""
        self.notes = self.header.notes
        """What is to be known of all that came so far."""
        self._cleaner = Cleaner(self.header, feed)
        self._max_reject_share = max_reject_share
        self.rejects: list[RowReject] = []
        """The first ones."""
        self.groups: Counter[str] = Counter()
        """Rejects by what they have in common."""
        self.rules: Counter[str] = Counter()
        """And by the rule that they break."""

    def __iter__(self) -> Iterator[TicketRow | RowReject | Dropped]:
        cost = Cost(lambda: self._reader.judged_size)
        for record, row in self._judged():
            self._records += 1
            if isinstance(row, RowReject):
                self._rejected_lines += record.lines
                self.groups[row.group] += 1
                self.rules[row.rule] += 1
                if len(self.rejects) < KEPT_REJECTS:
                    self.rejects.append(row)
            else:
                self._row_lines += record.lines
            if not isinstance(row, Dropped):
                cost.add(row)
                if cost.has_too_many_rejects:
                    raise TooManyRejects(self, f"{cost.of_rejects >> 20} MB of them by line {row.line:,}")
            yield row
        if self._has_too_many_rejects():
            lines, share = self.lines, self._max_reject_share
            of_lines = f"{lines.rejected:,} of {lines.rejected + lines.rows:,} lines"
            raise TooManyRejects(self, f"{of_lines}, more than the share of {share:g}")

    def _judged(self) -> Iterator[tuple[Record, TicketRow | RowReject | Dropped]]:
        for header, records in self._batches():
            if header is not self._cleaner.header:
                self._never += self._cleaner.never
                self.notes |= header.notes
                self._cleaner = Cleaner(header, self._feed, self.header)
            yield from zip(records, self._cleaner.clean_all(records), strict=True)

    def _batches(self) -> Iterator[tuple[Header, list[Record]]]:
        """The records of one header that come one after the other, some thousand characters of them at a time."""
        header, batch, chars = self.header, list[Record](), 0
        try:
            for record in self._reader.records():
                if batch and header is not self._reader.header:
                    yield header, batch
                    batch, chars = [], 0
                header = self._reader.header
                batch.append(record)
                chars += len(record.raw)
                if chars > _CHARS_TOGETHER:
                    yield header, batch
                    batch, chars = [], 0
        except Permanent:
            if batch:  # what comes before it is told before it
                yield header, batch
            raise
        if batch:
            yield header, batch

    @property
    def sha256(self) -> str:
        return self._reader.sha256

    @property
    def never(self) -> int:
        """Dates that were of no year that a ticket can be of."""
        return self._never + self._cleaner.never

    @property
    def lines(self) -> LineCounts:
        return LineCounts(
            read=self._reader.lines,
            blank=self._reader.blank_lines,
            header=self._reader.header_lines,
            rejected=self._rejected_lines,
            rows=self._row_lines,
        )

    def _has_too_many_rejects(self) -> bool:
        """Whether too large a share of its lines with rows cannot be tickets; of a few, a share tells nothing."""
        lines = self._rejected_lines + self._row_lines
        return self._records >= FEWEST_ROWS and self._rejected_lines > self._max_reject_share * lines

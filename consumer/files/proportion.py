"""What a file may cost the database: in proportion to its own bytes, so that no small file fills the disk. Pure.

The cost of a row is estimated from above, judged while the file streams, and counted before the row is sent on.
"""

from collections.abc import Callable

from consumer.files.cleaning import RowReject, TicketRow
from publisher.errors import Permanent

MULTIPLE = 44
"""Of the leanest rows that make sense, ids in files of all columns, one costs 42 times its bytes; usual, 5 to 15."""
ALLOWANCE = 1024 * 1024
"""Bytes that any file may cost beyond that, so that small ones need not be in proportion."""
MAX_REJECTS = 64 * 1024 * 1024
"""Bytes of rows that cannot be tickets, of one file. It can be no share: the good rows may be the last ones."""

ROW = 420
"""Bytes of a ticket apart from its text: its position, its entry in each index, and what its history has of a row."""
CLOSURE = 250
REJECT = 160
COPIES = 2
"""So often is the text of a ticket there at least while it is merged: staged or sorted, and written."""


class Cost:
    """Of the rows of one file so far, in bytes."""

    def __init__(self, read: Callable[[], int]) -> None:
        """`read` tells how many bytes of the file are read by now."""
        self.bytes = 0
        self.of_rejects = 0
        self._read = read
        self._allowed = ALLOWANCE

    @property
    def has_too_many_rejects(self) -> bool:
        return self.of_rejects > MAX_REJECTS

    def add(self, row: TicketRow | RowReject) -> None:
        """Count one more row.

        Raises: Permanent.
        """
        match row:
            case TicketRow():
                self.bytes += ROW + COPIES * _size(row.raw) + (CLOSURE if row.closed_at else 0)
            case RowReject():
                size = REJECT + _size(row.reason) + _size(row.raw)
                self.bytes += size
                self.of_rejects += size
        if self.bytes > self._allowed:
            self._require_in_proportion(row.line)

    def _require_in_proportion(self, line: int) -> None:
        read = self._read()
        self._allowed = MULTIPLE * read + ALLOWANCE
        if self.bytes > self._allowed:
            raise Permanent(
                "out of proportion",
                f"its first {read:,} bytes would take {self.bytes:,} in the database, more than {MULTIPLE} times as "
                f"much, by line {line}: names of columns too long for their values, or rows of next to nothing; "
                "shorten the names or leave such rows out, and put it again",
            )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

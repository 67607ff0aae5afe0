"""A change file as records: decoded, split and bounded while it streams, whatever its size. Pure.

A file fails whole when it is not UTF-8, is cut off inside a quoted field, or has a field too large to hold.
A record that only breaks CSV's own rules comes back with `fault` set.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.errors import Permanent

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Read = Callable[[int], bytes]
"""Gives up to so many bytes, b"" at the end."""

MAX_RECORD_CHARS = 16 * 1024 * 1024
"""A record beyond this is taken for an opening quote that never closes."""
MAX_HELD_CHARS = 2 * 1024 * 1024
"""A record beyond this is passed over unparsed: in fields, it would take up to a hundred times its size in memory."""
_SHOWN_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `line` is the line of the file on which it begins, from 1; `raw` its text as it stands there."""

    line: int
    fields: list[str]
    raw: str
    fault: str | None = None


class ChangeFileReader:
    """Reads records from `read(amount) -> bytes`. After the last one, `size` and `sha256` tell of all the bytes."""

    def __init__(self, read: Read) -> None:
        self._bytes = _CountedBytes(read)
        csv.field_size_limit(MAX_HELD_CHARS)

    @property
    def size(self) -> int:
        return self._bytes.size

    @property
    def sha256(self) -> str:
        return self._bytes.digest.hexdigest()

    def records(self) -> Iterator[Record]:
        """Every record that is not an empty line, the header first.

        Raises: Permanent, and what `read` raises.
        """
        text = io.TextIOWrapper(io.BufferedReader(self._bytes, 1 << 18), encoding="utf-8-sig", newline="")
        lines = _Lines(text)
        reader = csv.reader(lines, strict=True)
        while True:
            lines.begin_record()
            try:
                fields, fault = next(reader), None
            except StopIteration:
                return
            except _TooLong:
                fields, fault = [], f"more than {MAX_HELD_CHARS:,} characters"
            except csv.Error as error:
                if lines.ended:
                    raise _cut_off(lines.first) from error
                fields, fault = [], str(error)
            except UnicodeDecodeError as error:
                raise Permanent("not UTF-8", f"{error.reason} near line {lines.last + 1}") from error
            if fields or fault:
                yield Record(lines.first, fields, lines.raw, fault)


class _TooLong(Exception):
    pass


def _cut_off(line: int) -> Permanent:
    return Permanent("cut off", f"the file ends inside a quoted field that begins on line {line}")


class _CountedBytes(io.RawIOBase):
    """The raw stream, hashed and counted as it passes."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self._read = read
        self.size = 0
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        chunk = self._read(len(view))
        view[: len(chunk)] = chunk
        self.digest.update(chunk)
        self.size += len(chunk)
        return len(chunk)


class _Lines:
    """Lines of bounded length, which remembers those of the record being read."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._taken: list[str] = []
        self._chars = 0
        self.last = 0
        self.first = 1
        self.ended = False
        self._is_half_ended = False

    def begin_record(self) -> None:
        self._taken.clear()
        self._chars = 0
        self.first = self.last + 1

    @property
    def raw(self) -> str:
        return "".join(self._taken)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_HELD_CHARS + 1)
        if line == "\n" and self._is_half_ended:
            line = self._text.readline(MAX_HELD_CHARS + 1)
        self._is_half_ended = False
        if not line:
            self.ended = True
            raise StopIteration
        self.last += 1
        self._taken.append(line)
        self._chars += len(line)
        if self._chars > MAX_HELD_CHARS:
            self._pass_over(line)
            raise _TooLong
        return line

    def _pass_over(self, piece: str) -> None:
        """Read to the end of the record that `piece` belongs to: a line's end after an even number of quotes."""
        quotes = sum(line.count('"') for line in self._taken)
        self._taken = [self.raw[:_SHOWN_CHARS]]
        while quotes % 2 or not piece.endswith(("\n", "\r")):
            before, piece = piece, self._text.readline(_SHOWN_CHARS)
            # A piece can end between the two characters of one line end.
            self.last += before.endswith(("\n", "\r")) and not (before.endswith("\r") and piece == "\n")
            if not piece and quotes % 2:
                raise _cut_off(self.first)
            if not piece:
                return
            quotes += piece.count('"')
            self._chars += len(piece)
            if self._chars > MAX_RECORD_CHARS:
                raise Permanent(
                    "record too large",
                    f"more than {MAX_RECORD_CHARS:,} characters from line {self.first} on: a quote that never closes?",
                )
        self._is_half_ended = piece.endswith("\r")

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
        csv.field_size_limit(MAX_RECORD_CHARS)

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
            except csv.Error as error:
                if lines.ended:
                    raise Permanent(
                        "cut off", f"the file ends inside a quoted field that begins on line {lines.first}"
                    ) from error
                fields, fault = [], str(error)
            except UnicodeDecodeError as error:
                raise Permanent("not UTF-8", f"{error.reason} near line {lines.last + 1}") from error
            if fields or fault:
                yield Record(lines.first, fields, lines.raw, fault)


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
        line = self._text.readline(MAX_RECORD_CHARS + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.last += 1
        self._taken.append(line)
        self._chars += len(line)
        if self._chars > MAX_RECORD_CHARS:
            raise Permanent(
                "record too large",
                f"more than {MAX_RECORD_CHARS:,} characters from line {self.first} on: a quote that never closes?",
            )
        return line

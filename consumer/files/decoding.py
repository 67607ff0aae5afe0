"""The bytes of a change file as lines of text: unpacked, decoded, numbered and bounded while they stream. Pure.

UTF-8, with or without its mark, and UTF-16 with one are read, and gzip of either. What else a file can be is refused
by its name. A byte that is no UTF-8 is kept as Python's surrogate of it, so that one row can be blamed.
"""

import hashlib
import io
import re
import zlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from publisher.errors import Permanent

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Read = Callable[[int], bytes]
"""Gives up to so many bytes, b"" at the end."""

MAX_LINE_CHARS = 2 * 1024 * 1024
"""A line beyond this is passed over unparsed: in fields, it would take up to a hundred times its size in memory."""
MAX_PASSED_CHARS = 16 * 1024 * 1024
"""A line beyond this fails the file: what follows it is hardly one of change files."""
SHOWN_CHARS = 10_000
"""What is kept of a line that is passed over."""

MAX_UNPACKED_BYTES = 4 * 1024**3
MAX_RATIO = 250
"""So many times its packed bytes may a file have. Of CSV, 5 to 20 are usual, and 100 is a file of next to nothing."""
UNPACKED_ALLOWANCE = 4 * 1024 * 1024
"""Bytes that any packed file may have, so that small ones need not be in proportion."""
JUDGED_RATIO = 20
"""A packed file may cost the database what one of so many times its bytes may, and no more."""

_CHUNK = 1 << 18
_MARK_BYTES = 4
GZIP = b"\x1f\x8b"
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_OTHERS = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd"),
    (b"\xfd7zXZ", "packed with xz"),
    (b"BZh", "packed with bzip2"),
    (b"%PDF", "a PDF"),
    (b"PAR1", "a Parquet file"),
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (GZIP, "packed twice"),
    (b"{", "JSON"),
    (b"[{", "JSON"),
    (b"<", "HTML or XML"),
)
_MARK_TWICE = "\u00ef\u00bb\u00bf"
"""A byte order mark that was read as Windows-1252 and encoded once more."""
_MARK_BEGINS = f"\ufeff{_MARK_TWICE[0]}"
_NOT_DECODED = re.compile("[\ud800-\udfff]+")
_CESU = re.compile("\udced[\udca0-\udcbf]")


class Line(NamedTuple):
    """One line with its end as it stands; `number` from 1. Of one that `is_too_long` there is only the beginning."""

    number: int
    text: str
    is_too_long: bool = False


class TextLines:
    """The lines of what `read` gives, some of which can be given back.

    After the last one, `size` and `sha256` tell of all the bytes as they were read, and `count` how many there were.
    Raises of `next` and `peek`: Permanent, and what `read` raises.
    """

    def __init__(self, read: Read) -> None:
        self._bytes = _CountedBytes(read)
        self._text: io.TextIOWrapper | None = None
        self._ahead: deque[Line] = deque()
        self._is_half_ended = False
        self.count = 0

    @property
    def size(self) -> int:
        return self._bytes.size

    @property
    def sha256(self) -> str:
        return self._bytes.digest.hexdigest()

    @property
    def judged_size(self) -> int:
        """Bytes so far that what the file costs is held against."""
        return min(self._bytes.unpacked, JUDGED_RATIO * self._bytes.size)

    def next(self) -> Line | None:
        """The next line; None at the end."""
        return self._ahead.popleft() if self._ahead else self._read()

    def peek(self, place: int = 0) -> Line | None:
        """The line behind `place` others, which `next` will give in its turn; None where there is none."""
        while len(self._ahead) <= place:
            line = self._read()
            if line is None:
                return None
            self._ahead.append(line)
        return self._ahead[place]

    def give_back(self, lines: list[Line]) -> None:
        """They are the next ones, in their order."""
        self._ahead.extendleft(reversed(lines))

    def _read(self) -> Line | None:
        try:
            if self._text is None:
                self._text = self._bytes.opened()
            text = self._text.readline(MAX_LINE_CHARS + 1)
            if text == "\n" and self._is_half_ended:
                text = self._text.readline(MAX_LINE_CHARS + 1)
            self._is_half_ended = False
            if not text:
                return None
            self.count += 1
            if text[0] in _MARK_BEGINS:  # a mark amid the file: exports that were put one behind the other
                text = text.removeprefix("\ufeff").removeprefix(_MARK_TWICE)
            return Line(self.count, text) if len(text) <= MAX_LINE_CHARS else self._passed_over(self._text, text)
        except UnicodeDecodeError as error:
            raise Permanent(
                "cut off", f"the file ends in the middle of a character: {error.reason}, behind line {self.count}"
            ) from error

    def _passed_over(self, stream: io.TextIOWrapper, text: str) -> Line:
        shown, length, piece = text[:SHOWN_CHARS], len(text), text
        while not piece.endswith(("\n", "\r")):
            piece = stream.readline(SHOWN_CHARS)
            if not piece:
                break
            length += len(piece)
            if length > MAX_PASSED_CHARS:
                raise Permanent(
                    "line too long", f"more than {MAX_PASSED_CHARS:,} characters without an end, on line {self.count}"
                )
        # A piece can end between the two characters of one line end.
        self._is_half_ended = piece.endswith("\r")
        return Line(self.count, shown, is_too_long=True)


def undecoded(text: str) -> str | None:
    """What is wrong with text that is not all UTF-8; None where it is."""
    if text.isascii() or (found := _NOT_DECODED.search(text)) is None:
        return None
    if _CESU.search(text):
        return "this looks like CESU-8, as some programs write for it; export as UTF-8"
    if "\udc80" <= found[0][0] <= "\udcff":
        shown = " ".join(f"0x{ord(char) - 0xDC00:02X}" for char in found[0][:4] if char >= "\udc80")
        return f"byte {shown}, this looks like Windows-1252; export as UTF-8"
    return "half a character of UTF-16, this looks like a text that was cut; export as UTF-8"


class _CountedBytes(io.RawIOBase):
    """The raw stream, hashed and counted as it passes, and unpacked where it is gzip.

    Its first bytes tell, not its name or what the store says of its encoding: either can be left out, or be wrong.
    """

    def __init__(self, read: Read) -> None:
        super().__init__()
        self._read = read
        self._begin = b""
        self._unpacked = bytearray()
        self._packed: _Gzip | None = None
        self.size = 0
        self.unpacked = 0
        self.digest = hashlib.sha256()

    def opened(self) -> io.TextIOWrapper:
        """The stream as text, by what it begins with.

        Raises: Permanent, and what `read` raises.
        """
        self._begin = begin = self._first(_MARK_BYTES)
        self.unpacked = len(begin)
        if begin.startswith(GZIP):
            self._packed, self._begin, self.unpacked = _Gzip(begin), b"", 0
            while len(self._unpacked) < _MARK_BYTES and self._fill():
                pass
            begin = bytes(self._unpacked[:_MARK_BYTES])
        encoding = _encoding_of(begin)
        return io.TextIOWrapper(
            io.BufferedReader(self, _CHUNK),
            encoding=encoding,
            errors="surrogatepass" if encoding == "utf-16" else "surrogateescape",
            newline="",
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        if self._packed is None:
            chunk = self._begin or self._taken(len(view))
            if self._begin:
                self._begin = b""
            else:
                self.unpacked += len(chunk)
            view[: len(chunk)] = chunk
            return len(chunk)
        while not self._unpacked and self._fill():
            pass
        count = min(len(view), len(self._unpacked))
        view[:count] = self._unpacked[:count]
        del self._unpacked[:count]
        return count

    def _first(self, count: int) -> bytes:
        found = b""
        while len(found) < count and (chunk := self._taken(count - len(found))):
            found += chunk
        return found

    def _taken(self, count: int) -> bytes:
        chunk = self._read(count)
        self.digest.update(chunk)
        self.size += len(chunk)
        return chunk

    def _fill(self) -> bool:
        """Unpack some more; whether there may be more yet. Raises: Permanent, and what `read` raises."""
        assert self._packed is not None  # noqa: S101 - only a packed stream is filled
        chunk = b"" if self._packed.has_more else self._taken(_CHUNK)
        if not chunk and not self._packed.has_more:
            self._packed.end()
            return False
        found = self._packed.unpack(chunk, _CHUNK)
        self._unpacked += found
        self.unpacked += len(found)
        if self.unpacked > min(MAX_UNPACKED_BYTES, MAX_RATIO * self.size + UNPACKED_ALLOWANCE):
            raise Permanent(
                "unpacked too large",
                f"its first {self.size:,} bytes unpack to more than {self.unpacked:,}: no more than {MAX_RATIO} times "
                f"as much and {MAX_UNPACKED_BYTES >> 30} GiB are taken; put it in parts, or not packed",
            )
        return True


class _Gzip:
    """Members of gzip, one behind the other, as `cat a.gz b.gz` gives them."""

    def __init__(self, begin: bytes) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._rest = begin
        self._is_behind = False

    @property
    def has_more(self) -> bool:
        return bool(self._rest)

    def unpack(self, chunk: bytes, at_most: int) -> bytes:
        """Raises: Permanent."""
        packed = self._rest + chunk
        if self._member.eof:
            packed = packed.lstrip(b"\0")  # what is there to fill a block
            if not packed:
                self._rest = b""
                return b""
            self._is_behind = packed[: len(GZIP)] != GZIP
            self._member = zlib.decompressobj(wbits=31)
        try:
            found = self._member.decompress(packed, at_most)
        except zlib.error as error:
            what = "what follows its packed data is no gzip" if self._is_behind else "its packed data are not whole"
            raise Permanent("damaged gzip", f"{what}; pack it anew, and put it again") from error
        self._rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return found

    def end(self) -> None:
        """Raises: Permanent, when a member is not complete."""
        if not self._member.eof:
            raise Permanent("cut off", "the gzip data end before their end")


def _encoding_of(begin: bytes) -> str:
    """Raises: Permanent, for what is none that is read."""
    # A page may begin with a byte order mark, and have two bytes for each character then.
    behind = next((begin.removeprefix(mark).replace(b"\0", b"") for mark, _ in _MARKS if begin.startswith(mark)), b"")
    for mark, what in _OTHERS:
        if begin.startswith(mark) or behind.startswith(mark):
            raise Permanent("not CSV", f"this looks like {what}; export as CSV in UTF-8, as it is or packed with gzip")
    for mark, encoding in _MARKS:
        if begin.startswith(mark):
            return encoding
    if len(begin) == _MARK_BYTES and (not any(begin[::2]) or not any(begin[1::2])):
        raise Permanent("not UTF-8", "this looks like UTF-16 without its byte order mark; export as UTF-8")
    return "utf-8"

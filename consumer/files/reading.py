"""A change file as records, each with the lines that it takes; every line of the file is in one of them. Pure.

Quotes are where exports go wrong, and one that is astray must not take the rows behind it along. So a record of several
lines stands only if it has the right number of fields and none of its later lines begins a row; else its first line is
at fault alone, and reading goes on at the next one. From there on a line has to look like a row, until one does.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

from consumer.feeds.feed import Feed
from consumer.files.decoding import MAX_LINE_CHARS, Line, Read, TextLines, undecoded
from consumer.files.header import Header, begin, known_columns, read_header, split
from consumer.files.shape import Shape
from publisher.errors import Permanent

MAX_RECORD_CHARS = MAX_LINE_CHARS
"""A record of several lines beyond this is taken for a quote that does not close."""
_AHEAD_LINES, _AHEAD_CHARS = 100, 64 * 1024
"""So far is looked for the end of what may be a row, and for what comes behind one."""
_LINE_ENDS = ("\n", "\r")
NOT_UTF8 = "is not UTF-8"
"""How the fault of such a row begins."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, which begins on `line` of the file, from 1, and takes so many `lines`.

    `raw` is its text as it stands there. One with a `fault` cannot be a row.
    """

    line: int
    fields: list[str]
    raw: str
    lines: int = 1
    fault: str | None = None


class ChangeFileReader:
    """Reads records from `read(amount) -> bytes`, by the header that comes first and by each that comes behind it.

    `header` is the one that the record given last goes by. After the last one, `size` and `sha256` tell of all the
    bytes, and `lines`, `blank_lines` and `header_lines` of all the lines.
    Raises: Permanent, and what `read` raises.
    """

    def __init__(self, read: Read, feed: Feed, *, allows_missing: bool) -> None:
        self._feed = feed
        self._allows_missing = allows_missing
        self._lines = TextLines(read)
        self._shape: Shape | None = None
        self._is_lost = False
        self._line_behind_fault = 0
        self._first_asked, self._id_asked = 0, ""
        self._fields_before: list[str] = []
        self._beside = ""
        """What stood where the id belongs of the row that got lost."""
        csv.field_size_limit(2 * MAX_RECORD_CHARS)
        found = begin(self._lines, known_columns(feed).keys())
        self._delimiter = found.delimiter
        mark = re.escape(found.delimiter)
        self._whole_field = re.compile(f' *(?:"(?:[^"]|"")*"|(?:[^"{mark}][^{mark}]*)?(?<!"))(?:{mark}|$)')
        self.blank_lines = found.blank_lines
        self.header_lines = found.separator_lines
        self._quoted = _Quoted(self._lines)
        self._csv = csv.reader(self._quoted, delimiter=found.delimiter, skipinitialspace=True, strict=True)
        self.header = self._first_header()

    @property
    def size(self) -> int:
        return self._lines.size

    @property
    def judged_size(self) -> int:
        """Bytes so far that what the file costs is held against."""
        return self._lines.judged_size

    @property
    def sha256(self) -> str:
        return self._lines.sha256

    @property
    def lines(self) -> int:
        return self._lines.count

    def records(self) -> Iterator[Record]:
        """Every record behind the header that is not empty. Raises: the same."""
        while (line := self._lines.next()) is not None:
            record = self._parsed(line)
            if record.fault is None and not any(map(str.strip, record.fields)):
                self.blank_lines += record.lines
            elif (judged := self._judged(record)) is not None:
                yield judged

    def _first_header(self) -> Header:
        line = self._lines.next()
        if line is None:
            raise Permanent("no header", "the file is empty")
        record = self._parsed(line)
        if record.fault:
            raise Permanent("no header", f"line {line.number}: {record.fault}")
        return self._begin_rows(record)

    def _begin_rows(self, record: Record) -> Header:
        header = read_header(record.fields, self._feed, allows_missing=self._allows_missing)
        self.header_lines += record.lines
        if self._shape is not None and header != self.header and any('"' in name for name in header.written):
            raise Permanent(
                "header astray", f"line {record.line} names columns with a quote among them: {record.raw[:200]!r}"
            )
        if self._shape is None or header != self.header:
            self._shape = Shape(header, self._feed)
            self.header = header
        self._is_lost = False
        return self.header

    def _parsed(self, line: Line) -> Record:
        """The record that begins on the line."""
        if line.is_too_long:
            self._is_lost = True
            return Record(line.number, [], line.text, fault=f"is a line of more than {MAX_LINE_CHARS:,} characters")
        if '"' not in line.text:
            return Record(line.number, line.text.rstrip("\r\n").split(self._delimiter), line.text)
        shape = self._shape
        self._quoted.begin(line, self._begins_row if shape else None)
        taken = self._quoted.taken
        try:
            fields = next(self._csv)
        except _Swallowed as error:
            return self._first_at_fault(taken, f"opens a quote that does not close: {error}")
        except csv.Error:
            misplaced = f"has a quote where none can be, by line {taken[-1].number}: in quotes it is written twice"
            return self._first_at_fault(
                taken, "opens a quote that never closes" if self._quoted.has_ended else misplaced
            )
        if len(taken) > 1 and shape and not self._fits(shape, fields, taken):
            why = f"has a text in quotes that goes on to line {taken[-1].number}, and {shape.misfit(fields)}"
            return self._first_at_fault(taken, why)
        return Record(line.number, fields, "".join(part.text for part in taken), len(taken))

    def _fits(self, shape: Shape, fields: list[str], taken: list[Line]) -> bool:
        """Whether a record of several lines has the fields of a row."""
        if shape.is_same_header(fields):
            return True
        self._require_no_other_header(taken[0], f"has a text in quotes that goes on to line {taken[-1].number}")
        first = taken[0].text.replace('"', "").split(self._delimiter)
        # A text may end in line breaks; but then the quotes part nothing else than the delimiters do.
        has_more = any(line.text.strip(f' "\r\n{self._delimiter}') for line in taken[1:])
        has_more = has_more or [*map(str.strip, fields)] == [*map(str.strip, first)]
        if not has_more and shape.is_row(first):
            return False
        if shape.fitted(fields) is not None:
            one, other = shape.id_of(first).strip(), shape.id_of(fields).replace('"', "").strip()
            return one == other or shape.fitted(first) is None or not shape.knows(one, shape.id_of(fields))
        others = (split(line, self._delimiter) for line in taken[1:] if not self._begins_with_rest(line.text))
        is_short = self._is_short_row(shape, fields, taken[0].number)
        return is_short and has_more and not any(shape.is_short_row(other, is_behind_row=True) for other in others)

    def _is_short_row(self, shape: Shape, fields: list[str], line: int) -> bool:
        if not self._is_lost:
            return shape.is_short_row(fields, is_behind_row=line != self._line_behind_fault)
        is_known = shape.knows(shape.id_of(fields), self._beside) or shape.is_wide_row(fields)
        return is_known and shape.is_short_row(fields, is_behind_row=False, beside=self._beside)

    def _first_at_fault(self, taken: list[Line], why: str) -> Record:
        first, *others = taken
        self._lines.give_back(others)
        self._require_no_other_header(first, why)
        fields = split(first, self._delimiter)
        self._is_lost, self._beside = True, self._id_on(self._shape, first) if self._shape else ""
        return Record(first.number, fields, first.text, fault=why)

    def _require_no_other_header(self, line: Line, why: str) -> None:
        """Raises: Permanent, since what follows a header that cannot be read cannot be read by the one before it."""
        if self._shape and self._shape.has_other_names(line.text, self._delimiter):
            raise Permanent("header astray", f"line {line.number} names columns, but {why}; put each export by itself")

    def _judged(self, record: Record) -> Record | None:
        """As a row, or with what is wrong with it; None for a header, which is read on by."""
        shape = self._shape
        assert shape is not None  # noqa: S101 - there is one behind the header
        if record.fault:
            return record
        if not record.raw.isascii() and (fault := undecoded(record.raw)):
            self._require_no_other_header(Line(record.line, record.raw), f"{NOT_UTF8}: {fault}")
            return replace(record, fault=f"{NOT_UTF8}: {fault}")
        fields = shape.fitted(record.fields)
        if fields is None:
            return self._misfit(shape, record)
        if self._is_lost:
            if not shape.is_row(fields) or self._may_be_rest(shape, record):
                return replace(record, fault="follows a row that cannot be read, and does not look like one itself")
            self._is_lost = False
        if not shape.learns(fields):
            if shape.has_names_alone(fields):
                raise Permanent(
                    "header astray",
                    f"line {record.line} names columns, but not {self._feed.id}; put each export by itself",
                )
            if shape.is_lone_text(fields):
                return replace(
                    record, fault="has nothing but a text where the id belongs, of another form than ids here"
                )
            self._begin_rows(record)
            return None
        return record if fields is record.fields else replace(record, fields=fields)

    def _misfit(self, shape: Shape, record: Record) -> Record | None:
        fields = record.fields
        if row := shape.unglued(fields, record.raw):
            if not self._is_lost:
                return replace(record, fields=row)
            if not shape.is_row(row) or self._may_be_rest(shape, replace(record, fields=row)):
                return replace(record, fault="follows a row that cannot be read, and does not look like one itself")
            self._is_lost = False
            return replace(record, fields=row)
        if shape.is_header(fields):
            self._begin_rows(record)
            return None
        if shape.is_sentinel(fields):
            return record
        if shape.has_names(fields):
            raise Permanent(
                "glued exports",
                f"line {record.line} has names of columns behind its values: two exports without a line end "
                "between them; put each as a file of its own",
            )
        if self._is_short_row(shape, fields, record.line) and not (self._is_lost and self._may_be_rest(shape, record)):
            if self._is_followed_by_row(shape, record):
                self._is_lost = False
                shape.learn(shape.id_of(fields))
                return replace(record, fields=shape.filled(fields))
            self._is_lost, self._beside = True, shape.id_of(fields)
            why = "and what follows is no row: a line break in a text that is not in quotes, or a file that is cut off?"
            return replace(record, fault=f"{shape.misfit(fields)}, {why}")
        self._is_lost = self._is_lost or '"' in record.raw or shape.is_short(fields)
        if shape.is_short(fields):  # one that is too wide has no rest
            self._line_behind_fault = record.line + record.lines
        self._fields_before = fields
        return replace(record, fault=shape.misfit(fields))

    def _is_followed_by_row(self, shape: Shape, record: Record) -> bool:
        """Whether what follows is one, or nothing at all, which says something only if it is known where rows begin."""
        if not record.raw.endswith(_LINE_ENDS):
            return False
        for place in range(_AHEAD_LINES):
            line = self._lines.peek(place)
            if line is None:
                return True
            if not line.text.strip(f' "\r\n{self._delimiter}'):
                continue
            # The next row may have a quote astray, which is not this one's fault.
            parted = split(line, self._delimiter), line.text.replace('"', "").split(self._delimiter)
            if any(shape.begins_row(fields, shape.id_of(record.fields)) for fields in parted):
                return True
            if '"' in line.text and shape.is_row(self._record_from(line, place + 1), shape.id_of(record.fields)):
                return True
            is_whole = any(shape.is_whole(fields) for fields in parted)
            return is_whole and all(shape.is_too_wide(record.fields + fields[1:]) for fields in parted)
        return False

    def _begins_row(self, first: Line, line: Line) -> bool:
        """Whether a line is a row by itself, or with those behind it, that a quote on the first has swallowed."""
        shape = self._shape
        assert shape is not None  # noqa: S101 - asked behind the header only
        if line.is_too_long:
            return False
        if self._first_asked != first.number:
            self._first_asked, self._id_asked = first.number, self._id_on(shape, first)
        beside = self._id_asked
        if '"' not in line.text:
            fields = line.text.rstrip("\r\n").split(self._delimiter)
            return shape.is_row(fields, beside) or shape.has_most(fields, beside)
        if self._begins_with_rest(line.text):
            return False
        fields = self._record_from(line, 0)
        parted = split(line, self._delimiter), line.text.replace('"', "").split(self._delimiter)
        return shape.is_row(fields, beside) or any(shape.has_most(others, beside) for others in parted)

    def _id_on(self, shape: Shape, line: Line) -> str:
        """What seems to be the id on a line by itself, whose quotes may be astray; "" for nothing like one."""
        for fields in (split(line, self._delimiter), line.text.replace('"', "").split(self._delimiter)):
            if shape.is_new_id(text := shape.id_of(fields)):
                return text
        return ""

    def _begins_with_rest(self, text: str) -> bool:
        """Whether a quote closes before the id that does not open there: of a text in quotes it is the last line."""
        assert self._shape is not None  # noqa: S101 - asked behind the header only
        at = 0
        for _ in range(self._shape.id_place):
            field = self._whole_field.match(text, at)
            if field is None:
                return True
            at = field.end()
        return False

    def _may_be_rest(self, shape: Shape, record: Record) -> bool:
        """Whether a row that follows what got lost may be the end of that, where an id is not the first column."""
        if '"' in record.raw and self._begins_with_rest(record.raw):
            return True
        before = self._fields_before
        is_behind = record.line == self._line_behind_fault and len(before) <= shape.id_place
        return is_behind and shape.fitted(before + record.fields[1:]) is not None

    def _record_from(self, line: Line, place: int) -> list[str]:
        """The fields of the record that a line begins; none where its quotes are astray."""
        lines = self._from(line, place)
        try:
            return next(csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=True))
        except csv.Error:
            return []

    def _from(self, line: Line, begin: int) -> Iterator[str]:
        """The text of a line, and of those behind it, so far as is looked; the next one is so many ahead."""
        yield line.text
        chars = len(line.text)
        for place in count(begin):
            ahead = self._lines.peek(place)
            if ahead is None or ahead.is_too_long or place == begin + _AHEAD_LINES or chars > _AHEAD_CHARS:
                return
            chars += len(ahead.text)
            yield ahead.text


class _Swallowed(Exception):
    """A line that a quote goes on over is a row by itself."""


class _Quoted(Iterator[str]):
    """The lines of a record with quotes, taken one by one for as long as a quote is open."""

    def __init__(self, lines: TextLines) -> None:
        self._lines = lines
        self._begins_row: Callable[[Line, Line], bool] | None = None
        self._chars = 0
        self.taken: list[Line] = []
        self.has_ended = False

    def begin(self, line: Line, begins_row: Callable[[Line, Line], bool] | None) -> None:
        """A record begins on the line; `begins_row(first, line)` tells a row from a line of a text."""
        self._lines.give_back([line])
        self._begins_row = begins_row
        self._chars = 0
        self.taken = []
        self.has_ended = False

    def __next__(self) -> str:
        line = self._lines.next()
        if line is None:
            self.has_ended = True
            raise StopIteration
        if self.taken and self._begins_row is not None and self._begins_row(self.taken[0], line):
            self._lines.give_back([line])
            raise _Swallowed(f"line {line.number} is a row by itself")
        self._chars += len(line.text)
        if line.is_too_long or self._chars > MAX_RECORD_CHARS:
            self._lines.give_back([line])
            raise _Swallowed(f"there are more than {MAX_RECORD_CHARS:,} characters by line {line.number}")
        self.taken.append(line)
        return line.text

"""A change file as records, each with the lines that it takes; every line of the file is in one of them. Pure.

Quotes are where exports go wrong, and one that is astray must not take the rows behind it along. So a record of several
lines stands only if it has the right number of fields and none of its lines is a row by itself; else its first line is
at fault alone, and reading goes on at the next one. From there on a line has to look like a row, until one does. To
doubt, a line is read in each way that its quotes may be meant; to believe, only as it stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from consumer.feeds.feed import Feed
from consumer.files.decoding import MAX_LINE_CHARS, Line, Read, TextLines, undecoded
from consumer.files.header import Header, begin, known_columns, read_header, says_delimiter, split
from consumer.files.ids import Ids
from consumer.files.quoting import AHEAD_LINES, QuoteAstray, Quoting
from consumer.files.shape import Naming, Shape
from publisher.errors import Permanent

_NEAR_LINES = 3
"""So many may lie between two rows that quotes astray put together."""
_LINE_ENDS = ("\n", "\r")
NOT_UTF8 = "is not UTF-8"
"""How the fault of such a row begins."""


class Record(NamedTuple):
    """One record, which begins on `line` of the file, from 1, and takes so many `lines`.

    `raw` is its text as it stands there. One with a `fault` cannot be a row.
    """

    line: int
    fields: list[str]
    raw: str
    lines: int = 1
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class _OpenFault:
    """What got lost and may go on, until there is a row again.

    `beside` is what seemed to be its id, `has_id` whether a line had a place for one, `line` the last one, and `begun`
    the same if a row may begin there whose id is to come.
    """

    beside: str = ""
    has_id: bool = False
    begun: str = ""
    line: str = ""
    is_in_text: bool = False
    """Whether its quotes leave a text open, of which a delimiter is none."""
    has_text: bool = True
    """Whether anything but quotes and delimiters got lost."""
    word: str = ""
    """What the last line is alone, where an id may begin that goes on behind its line break."""
    is_over: bool = False
    """Whether what may be its end was there, with an id and all fields, so that another row is none."""


@dataclass(frozen=True, slots=True)
class _Opening:
    """The line on which a text in quotes opens, as if it were a row by itself."""

    number: int
    id: str
    """What seems to be it, however the quotes are; "" for nothing like one."""
    is_whole: bool
    is_odd: bool
    """Whether there are other fields behind the quote, or nothing: few texts begin with a delimiter or a line break."""


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
        self._ids = Ids(feed)
        self._open: _OpenFault | None = None
        self._opening = _Opening(0, "", is_whole=False, is_odd=False)
        found = begin(self._lines, known_columns(feed).keys())
        self._delimiter = found.delimiter
        self._quoting = Quoting(self._lines, found.delimiter)
        self.blank_lines = found.blank_lines
        self.header_lines = found.separator_lines
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
            if self._open is None and self._is_plain(record):
                yield record
            elif record.fault is None and not any(map(str.strip, record.fields)):
                self.blank_lines += record.lines
            elif record.fault is None and says_delimiter(record.raw, self._delimiter):
                self.header_lines += record.lines
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
        is_odd = any('"' in name or self._delimiter in name for name in header.written)
        if self._shape is not None and header != self.header and is_odd:
            raise Permanent(
                "header astray", f"line {record.line} names columns with a quote among them: {record.raw[:200]!r}"
            )
        if self._shape is None or header != self.header:
            self._shape = Shape(header, self._feed, self._ids)
            self.header = header
        self._open = None
        return self.header

    def _parsed(self, line: Line) -> Record:
        """The record that begins on the line."""
        if line.is_too_long:
            self._open = _OpenFault(is_in_text=True)
            return Record(line.number, [], line.text, fault=f"is a line of more than {MAX_LINE_CHARS:,} characters")
        if '"' not in line.text:
            return Record(line.number, line.text.rstrip("\r\n").split(self._delimiter), line.text)
        shape = self._shape
        try:
            fields, taken = self._quoting.record(line, self._is_swallowed if shape else None)
        except QuoteAstray as astray:
            return self._first_at_fault(astray.taken, astray.why)
        if len(taken) > 1 and shape and not self._stands(shape, fields, taken):
            is_misfit = shape.fitted(fields) is None
            why = shape.misfit(fields) if is_misfit else "may be a row by itself"
            return self._first_at_fault(
                taken, f"has a text in quotes that goes on to line {taken[-1].number}, and {why}"
            )
        return Record(line.number, fields, "".join(part.text for part in taken), len(taken))

    def _first_at_fault(self, taken: list[Line], why: str) -> Record:
        first, *others = taken
        self._quoting.give_back(others)
        self._require_no_other_header(first, why)
        fields = split(first, self._delimiter)
        if self._shape and self._shape.is_sentinel(fields):
            self._open = None  # however its quotes are, it is no row that may go on
        elif self._shape:
            self._lose(self._shape, first.text, self._opening_on(self._shape, first).id)
        return Record(first.number, fields, first.text, fault=why)

    def _stands(self, shape: Shape, fields: list[str], taken: list[Line]) -> bool:
        """Whether several lines are one record, which has no line break but in its texts."""
        first, *others = taken
        if shape.is_same_header(fields):
            return True
        self._require_no_other_header(first, f"has a text in quotes that goes on to line {taken[-1].number}")
        bare = self._quoting.bare(first)
        if shape.is_same_header(bare) or shape.is_sentinel(fields):  # each has one line
            return False
        # A text may end in line breaks; but then the quotes part nothing else than the delimiters do.
        is_same = [*map(str.strip, fields)] == [*map(str.strip, bare)]
        is_more = is_same or any(map(self._quoting.has_text, others))
        end = others[-1]
        if not is_same and self._delimiter in end.text.partition('"')[0] and not self._quoting.has_text(end):
            return False  # a row of nothing is no end of a text
        if (whole := shape.fitted(bare)) is not None:
            # Where its id is on a later line, the first one must not have another.
            is_first = shape.id_of(split(first, self._delimiter)).strip() == shape.id_of(fields).strip()
            is_other = shape.begins_row(bare, shape.id_of(fields)) or shape.may_be_spoilt_row(bare)
            may_be_other = is_other or shape.is_row_but_id(bare)
            if (not is_more and shape.is_row(whole, "")) or (may_be_other and not is_first):
                return False
        if (text := shape.id_of(fields).strip(" \t")) != text.strip("\r\n"):
            return False  # an id has no line break at its end, unless a quote is astray
        if shape.fitted(fields) is not None:
            # A value in a column without a name is more likely one of another row.
            return not shape.is_too_wide(fields)
        others = [line for line in others if not self._quoting.begins_with_rest(line.text, shape.id_place)]
        readings = [parted for line in others for parted in self._quoting.parted(line)]
        may_be_others = any(shape.may_have_id(parted) or shape.may_be_row_without_id(parted) for parted in readings)
        return is_more and shape.is_short_row(fields, is_open=False) and not may_be_others

    def _is_swallowed(self, taken: list[Line], line: Line) -> bool:
        """Whether a line that a quote goes on over is a row by itself, or with those behind it."""
        shape = self._shape
        assert shape is not None  # noqa: S101 - asked behind the header only
        if line.is_too_long:
            return False
        opening = self._opening_on(shape, taken[0])
        is_behind = len(taken) <= _NEAR_LINES and not any(map(self._quoting.has_text, taken[1:]))
        readings = self._quoting.parted(line)
        namings = (shape.naming(fields) in {Naming.HEADER, Naming.BEHIND_VALUES} for fields in readings)
        if any(namings) or any(map(shape.is_sentinel, readings)):
            return True
        if says_delimiter(line.text.replace('"', ""), self._delimiter):
            return True
        if self._quoting.begins_with_rest(line.text, shape.id_place):
            return False
        is_apart = opening.is_whole and not self._quoting.begins_with_rest(line.text, shape.id_place + 1)
        if is_apart and any(map(shape.may_be_row_apart, readings)):
            return True
        if '"' in line.text and any(self._ids.may_be(shape.id_of(fields), opening.id) for fields in readings):
            readings.append(self._quoting.record_ahead(line, 0))
        is_next = is_behind and opening.is_whole and opening.is_odd
        return any(shape.may_be_row(fields, opening.id, is_next=is_next) for fields in readings)

    def _require_no_other_header(self, line: Line, why: str) -> None:
        """Raises: Permanent, since what follows a header that cannot be read cannot be read by the one before it."""
        shape = self._shape
        if shape is None:
            return
        bare = self._quoting.bare(line)
        if shape.naming(bare) is not Naming.NOT and not shape.is_same_header(bare):
            raise Permanent("header astray", f"line {line.number} names columns, but {why}; put each export by itself")

    def _judged(self, record: Record) -> Record | None:
        """As a row, or with what is wrong with it; None for a header, which is read on by."""
        shape = self._shape
        assert shape is not None  # noqa: S101 - there is one behind the header
        if record.fault:
            return record
        if not record.raw.isascii() and (fault := undecoded(record.raw)):
            self._require_no_other_header(Line(record.line, record.raw), f"{NOT_UTF8}: {fault}")
            if self._open is not None:
                self._lose(shape, record.raw, "")
            return record._replace(fault=f"{NOT_UTF8}: {fault}")
        if shape.is_sentinel(record.fields):
            self._open = None
            return record
        fields = shape.fitted(record.fields)
        naming = shape.naming(record.fields, is_lost=self._open is not None)
        if naming is Naming.HEADER:
            self._begin_rows(record)
            return None
        if naming is Naming.WITHOUT_ID and shape.may_have_id(record.fields):
            return record._replace(fault="has names of columns for values")
        if naming is Naming.WITHOUT_ID:
            raise Permanent(
                "header astray",
                f"line {record.line} names columns, but not {self._feed.id}; put each export by itself",
            )
        if naming is Naming.BEHIND_VALUES:
            fields = shape.unglued(record.fields, record.raw)
            if fields is None:
                raise Permanent(
                    "glued exports",
                    f"line {record.line} has names of columns behind its values: two exports without a line end "
                    "between them; put each as a file of its own",
                )
        return self._misfit(shape, record) if fields is None else self._fit(shape, record._replace(fields=fields))

    def _is_plain(self, record: Record) -> bool:
        """Whether it is as most rows are, so that nothing else is to be asked."""
        shape = self._shape
        assert shape is not None  # noqa: S101 - there is one behind the header
        return (
            record.fault is None
            and shape.is_plain(record.fields, record.raw)
            and (record.raw.isascii() or not undecoded(record.raw))
        )

    def _fit(self, shape: Shape, record: Record) -> Record:
        """Of the right width."""
        fields, before = record.fields, self._open
        if before is not None:
            is_row = shape.is_row(fields, before.beside)
            if self._may_end_id(shape, record):
                self._open = None
                return record._replace(fault="may have but the end of an id, behind a line break in it")
            if not is_row or self._may_be_rest(shape, record):
                self._lose(shape, record.raw, before.beside)
                self._open = replace(self._open or before, is_over=is_row)
                return record._replace(fault="follows a row that cannot be read, and does not look like one itself")
            self._open = None
        if shape.is_lone_text(fields):
            return record._replace(fault="has nothing but a text where the id belongs, of another form than ids here")
        self._ids.learn(shape.id_of(fields).replace('"', ""))
        return record

    def _misfit(self, shape: Shape, record: Record) -> Record:
        fields, before = record.fields, self._open
        fault = shape.misfit(fields)
        beside = before.beside if before else ""
        is_short_row = shape.is_short_row(fields, beside, is_open=before is not None and before.has_text)
        if is_short_row and not self._may_be_rest(shape, record):
            if self._is_followed_by_row(shape, record):
                self._open = None
                self._ids.learn(shape.id_of(fields))
                return record._replace(fields=shape.filled(fields))
            beside = shape.id_of(fields)
            fault += (
                ", and what follows is no row: a line break in a text that is not in quotes, or a file that is cut off?"
            )
        if '"' in record.raw:  # in quotes, several names are one field
            self._require_no_other_header(Line(record.line, record.raw), fault)
        if not shape.is_short(fields) and self._ids.is_new(shape.id_of(fields)):
            beside = shape.id_of(fields)
        if before is not None or '"' in record.raw or shape.is_short(fields):  # one that is too wide has no rest
            self._lose(shape, record.raw, beside)
            if self._open and record.lines > 1 and shape.may_have_id(fields):
                self._open = replace(self._open, has_id=True, begun="")  # its last line is none by itself
        return record._replace(fault=fault)

    def _is_followed_by_row(self, shape: Shape, record: Record) -> bool:
        """Whether what follows a short row is one, or nothing at all, rather than its rest."""
        if not record.raw.endswith(_LINE_ENDS):
            return False
        beside = shape.id_of(record.fields)
        for place in range(AHEAD_LINES):
            line = self._lines.peek(place)
            if line is None:
                return True
            if not self._quoting.has_text(line) or says_delimiter(line.text, self._delimiter):
                continue
            readings = self._quoting.parted(line)
            whole = self._quoting.record_ahead(line, place + 1) if '"' in line.text else readings[0]
            if any(
                shape.begins_row(fields, beside)
                or shape.is_sentinel(fields)
                or shape.naming(fields, is_lost=True) is Naming.HEADER
                for fields in (*readings, whole)
            ):
                return True
            if (fields := shape.fitted(whole)) and shape.is_row(fields, beside):
                return True
            # What would be too much for one row is two: as it stands, or in whichever way its quotes are meant.
            are_two = (
                shape.may_be_whole(fields) and shape.is_too_wide(record.fields + fields[1:])
                for fields in (whole, *readings)
            )  # fmt: skip
            return next(are_two) or all(are_two)
        return False

    def _lose(self, shape: Shape, raw: str, beside: str) -> None:
        before = self._open or _OpenFault(has_text=False)
        last = raw.rstrip("\r\n").replace("\r", "\n").rpartition("\n")[2]
        bare = last.replace('"', "").split(self._delimiter)
        before_quote = last.partition('"')[0].rstrip(" ")
        # Of a text that goes on, a delimiter is none. None goes on behind a row's width or an id where it belongs, from
        # nothing, or on the line on which another one ends. What cannot be read in an id leaves it where it is.
        goes_on = (
            shape.is_short(bare)
            and not self._ids.may_be("".join(filter(str.isprintable, shape.id_of(bare))))
            and self._quoting.has_text(Line(0, last))
            and (not before_quote or before_quote.endswith(self._delimiter))
        )
        has_id = len(split(Line(0, last), self._delimiter) if goes_on else bare) > shape.id_place
        is_astray = self._quoting.begins_with_rest(last, len(bare))
        opens = goes_on and is_astray
        has_id = has_id or self._makes_row(shape, before.line if opens else before.begun, bare)
        # Behind an id, a line on which a quote closes is the last one of a text, unless one opens there.
        ends = any(field.rstrip(" ").endswith('"') for field in last.split(self._delimiter))
        closes = is_astray or (before.is_in_text and ends)
        is_begun = not has_id and (opens or not (before.has_id and closes))
        is_word = shape.id_place == 0 and len(bare) == 1 and self._ids.may_begin(last)
        if before.word and self._ids.may_end(shape.id_of(bare), before.word, before.beside):
            beside = before.word + shape.id_of(bare)
        self._open = _OpenFault(
            beside or before.beside, before.has_id or has_id, last if is_begun else "", last,
            is_in_text=before.is_in_text != raw.count('"') % 2,
            has_text=before.has_text or self._quoting.has_text(Line(0, raw)),
            word=bare[0].strip() if is_word else "",
        )  # fmt: skip

    def _makes_row(self, shape: Shape, begun: str, rest: list[str]) -> bool:
        """Whether a line makes a whole row with the one before it, so that none goes on behind it."""
        *fields, text = begun.replace('"', "").split(self._delimiter)
        if not begun or not shape.is_short([*fields, text]):
            return False
        whole = shape.fitted([*fields, f"{text} {rest[0]}", *rest[1:]])
        return whole is not None and self._ids.may_be(shape.id_of(whole))

    def _may_be_rest(self, shape: Shape, record: Record) -> bool:
        """Whether what looks like a row may be the end of what got lost: of an id, or of what stands before one."""
        if self._open is None or self._open.is_over:
            return False
        if self._may_end_id(shape, record):
            return True
        if '"' in record.raw and self._quoting.begins_with_rest(record.raw, shape.id_place):
            return True
        begun = self._open.begun
        # What would be too much for one row is two; but with quotes, a delimiter may be of a text.
        is_told = begun and not (self._open.is_in_text and '"' in begun + record.raw)
        return bool(begun) and not (is_told and shape.is_too_wide(begun.split(self._delimiter)[1:] + record.fields))

    def _may_end_id(self, shape: Shape, record: Record) -> bool:
        """Whether a row begins with the rest of an id that the line before it is the beginning of."""
        before = self._open
        if before is None or not before.word:
            return False
        return self._ids.may_end(shape.id_of(record.fields).replace('"', ""), before.word, before.beside)

    def _opening_on(self, shape: Shape, line: Line) -> _Opening:
        if self._opening.number != line.number:
            bare, parted = self._quoting.bare(line), split(line, self._delimiter)
            texts = (text for text in map(shape.id_of, (parted, bare)) if self._delimiter not in text)
            found = next(filter(self._ids.is_new, texts), "").strip("\"'=")
            is_whole = shape.fitted(bare) is not None
            self._opening = _Opening(
                line.number, found, is_whole=is_whole, is_odd=len(parted) < len(bare) or not parted[-1].strip()
            )
        return self._opening

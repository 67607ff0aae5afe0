"""Lines by their quotes: the records that they make as they stand, and what else each may mean. Pure."""

import csv
import re
from collections.abc import Callable, Iterator
from itertools import count

from consumer.files.decoding import MAX_LINE_CHARS, Line, TextLines
from consumer.files.header import split
from publisher.errors import Permanent

MAX_RECORD_CHARS = MAX_LINE_CHARS
"""A record of several lines beyond this is taken for a quote that does not close."""
AHEAD_LINES = 100
"""So far is looked for the end of what may be a row, and for what comes behind one."""
_AHEAD_CHARS = 64 * 1024
_MOST_AGAIN, _AGAIN_PER_LINE = 10_000, 2
"""So many lines of a file may be looked at again for its quotes; more have no end."""

IsSwallowed = Callable[[list[Line], Line], bool]
"""Tells a line that is a row by itself from one of a text that begins on the lines before."""


class QuoteAstray(Exception):
    """A record whose quotes are not as they have to be, on so many lines as were tried."""

    def __init__(self, taken: list[Line], why: str) -> None:
        super().__init__(why)
        self.taken = taken
        self.why = why


class Quoting:
    """Of the lines of one file."""

    def __init__(self, lines: TextLines, delimiter: str) -> None:
        csv.field_size_limit(2 * MAX_RECORD_CHARS)
        self._lines = lines
        self._delimiter = delimiter
        mark = re.escape(delimiter)
        self._whole_field = re.compile(f' *+(?:"(?:[^"]|"")*" *|(?:[^"{mark}][^{mark}]*)?(?<!"))(?:{mark}|$)')
        self._quoted = _Quoted(lines)
        self._csv = csv.reader(self._quoted, delimiter=delimiter, skipinitialspace=True, strict=True)
        self._again = 0

    def record(self, line: Line, is_swallowed: IsSwallowed | None) -> tuple[list[str], list[Line]]:
        """The fields of the record that begins on the line, and its lines.

        Raises: QuoteAstray; Permanent, and what reading raises.
        """
        quoted = self._quoted
        quoted.begin(line, is_swallowed)
        try:
            return next(self._csv), quoted.taken
        except _Swallowed as error:
            why = f"opens a quote that does not close: {error}"
        except csv.Error:
            if len(quoted.taken) == 1 and self._is_whole(line):  # it has spaces behind a quote, which mean nothing
                return split(line, self._delimiter), quoted.taken
            last = quoted.taken[-1].number
            misplaced = f"has a quote where none can be, by line {last}: in quotes it is written twice"
            why = "opens a quote that never closes" if quoted.has_ended else misplaced
        raise QuoteAstray(quoted.taken, why)

    def give_back(self, lines: list[Line]) -> None:
        """They are the next ones, in their order. Raises: Permanent, where that would have no end."""
        self._lines.give_back(lines)
        self._look_again(len(lines))

    def record_ahead(self, line: Line, place: int) -> list[str]:
        """The fields of the record that a line begins, of which the next one is so many ahead; none for one astray."""
        lines = self._from(line, place)
        try:
            return next(csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=True))
        except csv.Error:
            return split(line, self._delimiter) if self._is_whole(line) else []

    def bare(self, line: Line) -> list[str]:
        """The fields of a line if none of its quotes is meant."""
        return line.text.rstrip("\r\n").replace('"', "").split(self._delimiter)

    def parted(self, line: Line) -> list[list[str]]:
        """The fields of a line by itself, in both ways that its quotes may be meant."""
        return [self.bare(line), split(line, self._delimiter)] if '"' in line.text else [self.bare(line)]

    def has_text(self, line: Line) -> bool:
        return bool(line.text.strip(f' "\r\n{self._delimiter}'))

    def begins_with_rest(self, text: str, places: int) -> bool:
        """Whether a quote closes in the first so many places that does not open there: as where a text ends."""
        at = 0
        for _ in range(places) if '"' in text else ():
            field = self._whole_field.match(text, at)
            if field is None:
                return True
            at = field.end()
        return False

    def _is_whole(self, line: Line) -> bool:
        """Whether each quote that opens in it closes in it, at the end of a field or before spaces there."""
        return not self.begins_with_rest(line.text.rstrip("\r\n"), line.text.count(self._delimiter) + 1)

    def _from(self, line: Line, begin: int) -> Iterator[str]:
        """The text of a line, and of those behind it, so far as is looked."""
        yield line.text
        chars = len(line.text)
        for place in count(begin):
            ahead = self._lines.peek(place)
            self._look_again(1)
            if ahead is None or ahead.is_too_long or place == begin + AHEAD_LINES or chars > _AHEAD_CHARS:
                return
            chars += len(ahead.text)
            yield ahead.text

    def _look_again(self, lines: int) -> None:
        self._again += lines
        if self._again > _MOST_AGAIN + _AGAIN_PER_LINE * self._lines.count:
            raise Permanent(
                "quotes astray",
                f"by line {self._lines.count:,}, so many quotes open or close where none can that no row is sure; "
                "a quote in a text is written twice, and the text in quotes",
            )


class _Swallowed(Exception):
    """A line that a quote goes on over is a row by itself."""


class _Quoted(Iterator[str]):
    """The lines of a record with quotes, taken one by one for as long as a quote is open."""

    def __init__(self, lines: TextLines) -> None:
        self._lines = lines
        self._is_swallowed: IsSwallowed | None = None
        self._chars = 0
        self.taken: list[Line] = []
        self.has_ended = False

    def begin(self, line: Line, is_swallowed: IsSwallowed | None) -> None:
        """A record begins on the line."""
        self._lines.give_back([line])
        self._is_swallowed = is_swallowed
        self._chars = 0
        self.taken = []
        self.has_ended = False

    def __next__(self) -> str:
        line = self._lines.next()
        if line is None:
            self.has_ended = True
            raise StopIteration
        if self.taken and self._is_swallowed is not None and self._is_swallowed(self.taken, line):
            self._lines.give_back([line])
            raise _Swallowed(f"line {line.number} is a row by itself")
        self._chars += len(line.text)
        if line.is_too_long or self._chars > MAX_RECORD_CHARS:
            self._lines.give_back([line])
            raise _Swallowed(f"there are more than {MAX_RECORD_CHARS:,} characters by line {line.number}")
        self.taken.append(line)
        return line.text

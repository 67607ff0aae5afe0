"""The header contract: which column of a file is which of the feed's, by its header and the declaration alone. Pure.

Names are matched as they stand first, then folded. What the exporter always writes and this file lacks is told, and so
is each column that goes by another name or that the declaration does not know: a change of the export never blanks a
column without a word. Where the header is, which mark parts its columns and where it comes again is told here too.
"""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any

from consumer.feeds.feed import Feed
from consumer.feeds.folding import folded_name
from consumer.files.decoding import Line, TextLines, undecoded
from publisher.errors import Permanent

COLUMNS_MISSING = "columns missing"
"""The reason of a file that lacks what its exporter always writes; a person may let it off."""
MAX_COLUMNS = 2000
MAX_HEADER_BYTES = 16 * 1024
"""Of all names together, in UTF-8: each row repeats the names of what it has."""
DELIMITERS = (",", ";", "\t", "|")
_SHOWN_CHARS = 200
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?\1* *[\r\n]*', re.IGNORECASE)
"""What Excel takes for the first line of a file, and writes there, as wide as the table is."""
_OF_NO_VALUE = f' "\r\n{"".join(DELIMITERS)}'


@dataclass(frozen=True, slots=True)
class HeaderNotes:
    """What a person has to know of a header; empty for one that is as declared."""

    renamed: dict[str, str] = field(default_factory=dict)
    """By the feed's name, the file's own."""
    missing: tuple[str, ...] = ()
    """Columns that the exporter always writes."""
    undeclared: tuple[str, ...] = ()
    """As they are called in `raw`."""
    twice: tuple[str, ...] = ()
    """Columns of the feed that the file has more than once, alike in every row."""

    def __or__(self, other: "HeaderNotes") -> "HeaderNotes":
        """What is to be known of a file that has both headers."""
        return HeaderNotes(
            self.renamed | other.renamed,
            *(tuple(dict.fromkeys(one + more)) for one, more in (
                (self.missing, other.missing), (self.undeclared, other.undeclared), (self.twice, other.twice),
            )),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Those that there are, in JSON's types."""
        return {name: told if isinstance(told, dict) else list(told) for name, told in asdict(self).items() if told}


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a file, by place: `written` are the names as they stand, and `names` those that `raw` has.

    A row has `least` to `width` fields: columns without a name at the end may be left out. `twins` are places of one
    column with another of it.
    """

    written: tuple[str, ...]
    names: tuple[str, ...]
    least: int
    id_place: int
    twins: tuple[tuple[int, int], ...]
    notes: HeaderNotes

    @property
    def width(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The mark that parts the columns, and the lines before the header: empty ones, and one that names the mark."""

    delimiter: str
    blank_lines: int
    separator_lines: int


def begin(lines: TextLines, known: Collection[str]) -> Beginning:
    """Read up to the header, which is the next line then, and tell by it or by a line `sep=;` what parts the columns.

    `known` are names of columns, folded; the more of them a mark makes, the likelier it is the one.

    Raises: Permanent, and what reading raises.
    """
    blank, said, separators = 0, None, 0
    while (line := lines.peek()) is not None:
        match = _SEPARATOR.fullmatch(line.text) if said is None else None
        if match is None and line.text.strip(_OF_NO_VALUE):
            break
        lines.next()
        said, separators, blank = match[1] if match else said, separators + bool(match), blank + (not match)
    if line is None:
        return Beginning(said or DELIMITERS[0], blank, separators)
    parted = {mark: split(line, mark) for mark in DELIMITERS}
    # What the file says counts where its header does not tell better.
    likely = {
        mark: (sum(folded_name(name) in known for name in names), mark == said, len(names))
        for mark, names in parted.items()
    }
    return Beginning(max(DELIMITERS, key=lambda mark: likely[mark]), blank, separators)


def says_delimiter(text: str, delimiter: str) -> bool:
    """Whether a line does, as one before a header."""
    match = _SEPARATOR.fullmatch(text)
    return match is not None and match[1] == delimiter


def split(line: Line, delimiter: str) -> list[str]:
    """The fields of one line by itself, however its quotes are."""
    return next(csv.reader([line.text], delimiter=delimiter, skipinitialspace=True), [])


def read_header(fields: Sequence[str], feed: Feed, *, allows_missing: bool) -> Header:
    """Judge a header, as the fields of its record.

    Raises: Permanent, when it does not name the feed's id, lacks what the exporter always writes and this is not
    allowed, or has more than a header may.
    """
    if len(fields) > MAX_COLUMNS:
        raise Permanent("too many columns", f"the header has {len(fields):,}, more than {MAX_COLUMNS:,}")
    written = [name.strip() for name in fields]
    if any("\0" in name for name in written):
        raise Permanent("no header", "a NUL byte in the header")
    if fault := next(filter(None, map(undecoded, written)), None):
        raise Permanent("not UTF-8", f"in the header: {fault}")
    columns = _columns(written, feed)
    names = tuple(_named(written, columns))
    size = sum(len(name.encode()) for name in names)
    if size > MAX_HEADER_BYTES:
        raise Permanent("header too large", f"names of {size:,} bytes, more than {MAX_HEADER_BYTES:,}")
    places: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        if column is not None:
            places.setdefault(column, []).append(place)
    if feed.id not in places:
        shown = ", ".join(written)[:_SHOWN_CHARS]
        raise Permanent(f"no {feed.id}", f"the header has no column {feed.id} but: {shown!r}")
    missing = tuple(name for name in feed.always if name not in places)
    if missing and not allows_missing:
        raise Permanent(COLUMNS_MISSING, ", ".join(missing))
    least = max(place for place, name in enumerate(written, start=1) if name)
    notes = HeaderNotes(
        renamed={column: written[at] for column, found in places.items() for at in found if written[at] != column},
        missing=missing,
        undeclared=tuple(names[at] for at, column in enumerate(columns[:least]) if column is None),
        twice=tuple(column for column, found in places.items() if len(found) > 1),
    )
    twins = tuple((found[0], other) for found in places.values() for other in found[1:])
    return Header(tuple(written), names, least, places[feed.id][0], twins, notes)


@lru_cache(maxsize=16)
def known_columns(feed: Feed) -> Mapping[str, str]:
    """The feed's columns by their folded names, those that are never kept among them."""
    return {folded_name(name): name for name in (*feed.columns, *feed.never_kept)}


def _columns(written: Iterable[str], feed: Feed) -> list[str | None]:
    """Of each name the feed's column that it is; None for one that the feed does not know."""
    exact = feed.columns.keys() | feed.never_kept
    known = known_columns(feed)
    return [name if name in exact else known.get(folded_name(name)) for name in written]


def _named(written: Sequence[str], columns: Sequence[str | None]) -> Iterator[str]:
    """What `raw` calls each column: nothing in a file may vanish, so each but a twin has a name of its own."""
    reserved = {*filter(None, columns), *written}
    used: set[str] = set()
    for place, (name, column) in enumerate(zip(written, columns, strict=True), start=1):
        own = column or name or f"column_{place}"
        if column is None and (own in used or (not name and own in reserved)):
            own = next(other for number in count(2) if (other := f"{own}_{number}") not in reserved | used)
        used.add(own)
        yield own

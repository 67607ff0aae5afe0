"""A feed's declaration guessed from a sample of its files, and what a file comes to by a declaration. Pure."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from consumer.feeds.feed import (
    MAX_TEXT_BYTES,
    MAX_TYPED_COLUMNS,
    NOTHING,
    OF_THE_TABLE,
    Column,
    Feed,
    Form,
    column_name,
)  # fmt: skip
from consumer.feeds.folding import folded_name
from consumer.files.cleaning import Dropped, RowReject, TicketRow
from consumer.files.decoding import Read, TextLines
from consumer.files.header import begin, split
from consumer.files.ids import MAX_ID_CHARS
from consumer.files.reading import ChangeFileReader
from consumer.files.rows import Rows
from consumer.files.values import is_of
from publisher.errors import Permanent
from publisher.terminal import printable

SAMPLED_ROWS = 20_000
"""More tell little more."""
_NEARLY = 0.9
"""From this share on a column is meant to be of a form, and the rest is for a person to judge."""
_GUESSED = (Form.TIMESTAMP, Form.BOOLEAN, Form.NUMBER)
_PLURAL = {Form.TIMESTAMP: "timestamps", Form.BOOLEAN: "booleans", Form.NUMBER: "numbers"}
_OTHER_DATE = re.compile(r"\d{1,2}/\d{1,2}/\d{2,4}([ T].*)?", re.ASCII)
_CODE = re.compile(r"\+|[+-]?0\d", re.ASCII)
"""How what looks like a number begins and is none: 00100, +254."""
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_LIKE_AN_ID = re.compile(r"(^|_)(id|key|number|no|nr|ref|reference|uuid|guid)($|_)")
_PAIR = (Form.LATITUDE.value, Form.LONGITUDE.value)
"""What a pair of coordinates has to be called to be where a ticket is."""
_SHOWN_CHARS = 40


@dataclass(slots=True)
class _Values:
    """What the values of one column were."""

    place: int
    name: str
    filled: int = 0
    distinct: set[int] = field(default_factory=set)
    of: Counter[Form] = field(default_factory=Counter)
    misfit: dict[Form, str] = field(default_factory=dict)
    """The first that was not of the form."""
    dates: int = 0
    date: str = ""
    codes: int = 0
    flags: int = 0
    longest_bytes: int = 0
    longest_chars: int = 0

    def add(self, value: str) -> None:
        self.filled += 1
        self.distinct.add(hash(value))
        for form in _GUESSED:
            if is_of(form, value):
                self.of[form] += 1
            else:
                self.misfit.setdefault(form, value)
        if _OTHER_DATE.fullmatch(value):
            self.dates += 1
            self.date = self.date or value
        self.codes += _CODE.match(value) is not None
        self.flags += value in {"0", "1"}
        self.longest_bytes = max(self.longest_bytes, len(value.encode()))
        self.longest_chars = max(self.longest_chars, len(value))

    def guess(self) -> tuple[Form, str]:
        """The form, and what it goes by: of all values, and what is ambiguous is `any`."""
        if not self.filled:
            return Form.ANY, "nothing to go by"
        if self.flags == self.filled:
            return Form.ANY, "all of them 0 or 1: boolean or number?"
        form = max(_GUESSED, key=lambda form: self.of[form])
        if self.of[form] == self.filled and not (form is Form.NUMBER and self.codes):
            return form, f"all of them {_PLURAL[form]}"
        if self.dates >= _NEARLY * self.filled:
            return Form.ANY, f"dates such as {_shown(self.date)}, which are not read: let them be 2024-01-31 10:05:00"
        if self.filled > self.of[form] >= _NEARLY * self.filled and not (form is Form.NUMBER and self.codes):
            others = _shown(self.misfit[form])
            return Form.ANY, f"{_share(self.of[form], self.filled)} of them {_PLURAL[form]}, others such as {others}"
        if self.longest_bytes > MAX_TEXT_BYTES:
            return Form.ANY, f"the longest of {self.longest_bytes:,} bytes, and text takes {MAX_TEXT_BYTES:,}"
        return Form.TEXT, f"up to {self.longest_bytes:,} bytes"


@dataclass(frozen=True, slots=True)
class _Sample:
    columns: list[_Values]
    """Those that have a name."""
    rows: int
    left_out: int
    """Rows that are not as long as the header."""
    is_whole: bool


def guessed_declaration(name: str, prefix: str, id_column: str | None, file: str, sample: BinaryIO) -> str:
    """The text of a declaration, in TOML, with what each guess goes by; `file` is what the sample is called.

    Raises: Permanent, for what is no CSV file with a header that a feed can have.
    """
    sampled = _read(sample)
    chosen = _id_of(sampled, id_column)
    of_all = "" if sampled.is_whole else "the first "
    left_out = f"; {sampled.left_out:,} more cannot be read as rows" if sampled.left_out else ""
    column_lines, always = _column_lines(sampled, chosen)
    lines = [
        f"# Guessed from {_comment(file)}: {of_all}{sampled.rows:,} rows, {len(sampled.columns):,} columns{left_out}.",
        "# Each guess says what it goes by. Look at them, then run: fleettickets feeds check",
        f"name = {_basic(name)}",
        f"prefix = {_basic(prefix)}",
        f"id = {_basic(chosen.name)}",
        "# What the exporter always writes: a file without one of these is refused, and no row loses what it had.",
        *textwrap.wrap(f"always = [{', '.join(always)}]", 120, subsequent_indent="    ", break_long_words=False),
        "# What stands for an empty value, as it is spelt, in every column that is not `any`.",
        f"nothing = [{', '.join(map(_basic, NOTHING))}]",
        "",
        "# A row is rejected for the first of these that it breaks, in this order. `any` is not looked at, and in raw",
        "# alone, as is each column that is not listed.",
        "[columns]",
    ]
    return "\n".join([*lines, *column_lines]) + "\n"


def _read(sample: BinaryIO) -> _Sample:
    """Raises: Permanent."""
    names = _names(sample.read)
    sample.seek(0)
    of_once = [name for name, count in Counter(map(folded_name, names)).items() if count == 1]
    first = next((name for name in names if name), None)
    if first is None:
        raise Permanent("no header", "no column has a name" if names else "the file is empty")
    if any("\0" in name for name in names):
        raise Permanent("no header", "a NUL byte in the header")
    # By whichever id, the rules are those of a file that arrives.
    whichever = Feed(name="sample", prefix="", id=first, columns={first: Column()})
    reader = ChangeFileReader(sample.read, whichever, allows_missing=True)
    # What the header names twice stays undeclared, and is kept under numbered names.
    columns = [_Values(at, name) for at, name in enumerate(names) if name and folded_name(name) in of_once]
    if not columns:
        raise Permanent("double column", f"the header names each of its columns twice, {first!r} among them")
    rows = left_out = 0
    is_whole = True
    for record in reader.records():
        if rows + left_out == SAMPLED_ROWS:
            is_whole = False
            break
        if record.fault or len(record.fields) != len(names):
            left_out += 1
            continue
        rows += 1
        for column in columns:
            value = record.fields[column.place].strip()
            if value and value not in NOTHING:
                column.add(value)
    if left_out and not rows:
        raise Permanent("not CSV", f"no row has the header's {len(names)} fields")
    return _Sample(columns, rows, left_out, is_whole)


def _names(read: Read) -> list[str]:
    """Those of a header, without spaces around them.

    Raises: Permanent.
    """
    lines = TextLines(read)
    delimiter = begin(lines, ()).delimiter
    line = lines.next()
    return [name.strip() for name in split(line, delimiter)] if line else []


def _id_of(sample: _Sample, wanted: str | None) -> _Values:
    if wanted is not None:
        found = next((column for column in sample.columns if column.name == wanted), None)
        if found is None:
            raise Permanent(f"no {wanted}", "the header has no such column for an id")
        return found

    def fitness(column: _Values) -> tuple[bool, bool, bool, bool, int, int]:
        fits = column.longest_chars <= MAX_ID_CHARS
        is_unique = 0 < sample.rows == column.filled == len(column.distinct)
        is_named_so = column.name == "ticket_id"
        is_like_one = _LIKE_AN_ID.search(column_name(column.name)) is not None
        is_else = column.of[Form.TIMESTAMP] + column.dates < max(1, column.filled)
        return fits and is_unique, fits and is_named_so, is_like_one, is_else, len(column.distinct), -column.place

    return max(sample.columns, key=fitness)


def _column_lines(sample: _Sample, chosen: _Values) -> tuple[list[str], list[str]]:
    """A line for each column, and the names of those whose absence would leave typed columns without a value."""
    guesses = {column.name: column.guess() for column in sample.columns}
    is_pair = chosen.name not in _PAIR and all(name in guesses and guesses[name][0] is Form.NUMBER for name in _PAIR)
    taken = set(OF_THE_TABLE)
    typed = 0
    lines, always = [], []
    for column in sample.columns:
        form, why = guesses[column.name]
        key = column.name if _BARE.fullmatch(column.name) else _basic(column.name)
        share = f"{_share(column.filled, sample.rows)} of the rows have a value"
        if column is chosen:
            lines.append(f'{key} = "text"  # the id: {share}, {_share(len(column.distinct), sample.rows)} another one')
            continue
        if is_pair and column.name in _PAIR:
            form, why = Form(column.name), f"{why}; in the typed column where the pair is within Kenya"
        if form is not Form.ANY and typed == MAX_TYPED_COLUMNS:
            form, why = Form.ANY, f"{form}: {why}; a table has up to {MAX_TYPED_COLUMNS} typed columns"
        told = f'"{form}"'
        if form is not Form.ANY:
            typed += 1
            if form not in (Form.LATITUDE, Form.LONGITUDE):
                always.append(_basic(column.name))
            table_name = _free_name(column.name, taken)
            taken.add(table_name)
            if table_name != column_name(column.name):
                told = f'{{ form = "{form}", column = "{table_name}" }}'
        lines.append(f"{key} = {told}  # {_comment(f'{share}, {why}')}")
    return lines, always


def _free_name(name: str, taken: set[str]) -> str:
    wanted = column_name(name)
    if wanted not in taken:
        return wanted
    # Of the 31 characters that a declared name may have, four are for the number.
    return next(found for number in range(2, 10_000) if (found := f"{wanted[:25]}_{number}") not in taken)


def _share(part: int, whole: int) -> str:
    """Rounded down: all of them is all of them."""
    return "under 1%" if 0 < part * 100 < whole else f"{part * 100 // max(1, whole)}%"


def _shown(value: str) -> str:
    return repr(value[:_SHOWN_CHARS])


def _comment(text: str) -> str:
    return printable(text)


def _basic(text: str) -> str:
    """A string as TOML has it: JSON's escapes, and one that JSON leaves."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


@dataclass(slots=True)
class Trial:
    """What a file would come to by a feed's declaration."""

    rows: int = 0
    accepted: int = 0
    tickets: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason, without the values."""
    first_lines: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    refused: Permanent | None = None
    """Why the file would fail whole. What it is refused for in its middle, it is not read beyond."""


def tried(feed: Feed, read: Read, *, max_reject_share: float, allows_missing: bool) -> Trial:
    """Judge a file as one that arrives, and touch nothing."""
    trial, ids = Trial(), set[int]()
    try:
        for row in Rows(read, feed, max_reject_share=max_reject_share, allows_missing=allows_missing):
            trial.rows += 1
            match row:
                case TicketRow(ticket_id=ticket_id):
                    trial.accepted += 1
                    ids.add(hash(ticket_id))
                case RowReject(line=line, group=group):
                    trial.rejected[group] += 1
                    trial.first_lines.setdefault(group, line)
                case Dropped() as dropped:
                    trial.dropped[dropped.name.lower()] += 1
    except Permanent as error:
        trial.refused = error
    trial.tickets = len(ids)
    return trial


def reasons(trial: Trial) -> Sequence[tuple[str, int, int]]:
    """Reason, rows and the first of their lines, the most frequent first."""
    return [(reason, count, trial.first_lines[reason]) for reason, count in trial.rejected.most_common()]

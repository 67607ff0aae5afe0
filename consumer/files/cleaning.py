"""What one row goes through: dropped, rejected with a reason, or a ticket fit for its typed columns. Pure.

Which column is what, its feed says: alarms and the exporter's sentinel are dropped, case is brought to one form, empty
is null, and every value that was in the file stays in `raw`.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum, auto
from functools import partial

from consumer.feeds.feed import MAX_TEXT_BYTES, Feed, FollowOn, Form, Years
from consumer.files.reading import Record
from publisher.arrivals.keys import EAT
from publisher.errors import Permanent

CLOSED_AT = "closed_at"
"""Where a feed has a history, the column that says when a ticket was closed."""
MAX_ID_CHARS = 200
MAX_COLUMNS = 2000
MAX_HEADER_BYTES = 16 * 1024
"""Of all names together, in UTF-8: each row repeats the names of what it has."""
MAX_FIELD_CHARS = 1024 * 1024
_SHOWN_CHARS = 10_000
_INTEGER_MAX = 2**31 - 1

_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s?(Z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)


class Dropped(Enum):
    """A row that is left out on purpose and counted."""

    ALARM = auto()
    SENTINEL = auto()


@dataclass(frozen=True, slots=True)
class RowReject:
    """A row that cannot be a ticket."""

    line: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A row that can; `raw` is JSON text with every column that has a value, `closed_at` the instant or None."""

    line: int
    ticket_id: str
    raw: str
    closed_at: datetime | None


class Cleaner:
    """Judges the rows of one file by its header.

    `blanks` is JSON text with a null for each column of the file that is one of the feed's own: what `raw` has besides
    a row's values. A column that is none of them is in `raw` only where it has a value.
    Raises: Permanent, when the header does not name the feed's id, a column twice, or more than a header may.
    """

    def __init__(self, header: Record | None, feed: Feed) -> None:
        if header is None:
            raise Permanent("no header", "the file is empty")
        if header.fault:
            raise Permanent("no header", header.fault)
        if len(header.fields) > MAX_COLUMNS:
            raise Permanent("too many columns", f"the header has {len(header.fields):,}, more than {MAX_COLUMNS:,}")
        columns = [name.strip() for name in header.fields]
        if feed.id not in columns:
            shown = ", ".join(columns)[:200]
            raise Permanent(f"no {feed.id}", f"the header has no column {feed.id} but: {shown!r}")
        # A column without a name is kept under its place, since nothing in a file may vanish.
        named = [name or f"column_{place}" for place, name in enumerate(columns, start=1)]
        size = sum(len(name.encode()) for name in named)
        if size > MAX_HEADER_BYTES:
            raise Permanent("header too large", f"names of {size:,} bytes, more than {MAX_HEADER_BYTES:,}")
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise Permanent("double column", f"the header names {twice!r} twice")
        if any("\0" in name for name in named):
            raise Permanent("no header", "a NUL byte in the header")
        self._columns = named
        self.blanks = json.dumps({name: None for name in named if name in feed.columns})
        self._feed = feed
        self._id_place = columns.index(feed.id)
        self._rules = _rules(feed)
        self._cases = {name: column.case for name, column in feed.columns.items() if column.case}
        self._has_history = FollowOn.HISTORY in feed.follow_ons

    def clean(self, record: Record) -> TicketRow | RowReject | Dropped:
        feed = self._feed
        if feed.sentinel and _is_sentinel(record.fields, self._id_place, feed.sentinel):
            return Dropped.SENTINEL
        fault = record.fault or self._shape_fault(record.fields)
        if fault:
            return _reject(record, fault)
        fields = [field.strip() for field in record.fields]
        values = {name: field for name, field in zip(self._columns, fields, strict=True) if field}
        for name in feed.never_kept:
            values.pop(name, None)
        fault = self._value_fault(values)
        if fault:
            return _reject(record, fault)
        if feed.drop_when and read_boolean(values.get(feed.drop_when) or ""):
            return Dropped.ALARM
        for name, case in self._cases.items():
            if value := values.get(name):
                values[name] = value.lower() if case == "lower" else value.upper()
        closed_at = values.get(CLOSED_AT) if self._has_history else None
        return TicketRow(
            record.line,
            values[feed.id],
            json.dumps(values, ensure_ascii=False),
            (closed_at and read_timestamp(closed_at)) or None,
        )

    def _shape_fault(self, fields: list[str]) -> str | None:
        if len(fields) != len(self._columns):
            return f"{len(fields)} fields where the header has {len(self._columns)}"
        if any("\0" in field for field in fields):
            return "a NUL byte"
        longest = max(map(len, fields))
        if longest > MAX_FIELD_CHARS:
            return f"a field of {longest:,} characters, more than {MAX_FIELD_CHARS:,}"
        return None

    def _value_fault(self, values: dict[str, str]) -> str | None:
        name = self._feed.id
        ticket_id = values.get(name)
        if ticket_id is None:
            return f"no {name}"
        if len(ticket_id) > MAX_ID_CHARS:
            return f"a {name} of {len(ticket_id):,} characters"
        for column, (is_fit, complaint) in self._rules.items():
            value = values.get(column)
            if value is not None and not is_fit(value):
                return f"{column} {value[:60]!r} is {complaint}"
        return None


def read_timestamp(text: str) -> datetime | None:
    """`YYYY-MM-DD[ HH:MM[:SS[.f]]]` or ISO 8601; EAT where it names no zone. None for anything else."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        return datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            int((fraction or "0").ljust(6, "0")[:6]), tzinfo=_zone(zone),
        )  # fmt: skip
    except ValueError:
        return None


def _zone(zone: str | None) -> timezone:
    if zone is None:
        return EAT
    if zone == "Z":
        return timezone.utc  # noqa: UP017 - typed as a timezone
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    if int(digits[2:]) > 59 or offset > timedelta(hours=15):  # noqa: PLR2004 - minutes of an hour; Postgres' limit
        raise ValueError(zone)
    return timezone(-offset if zone[0] == "-" else offset)


def read_boolean(text: str) -> bool | None:
    folded = text.lower()
    return True if folded in _TRUE else False if folded in _FALSE else None


def _is_timestamp(text: str) -> bool:
    return read_timestamp(text) is not None


def _is_timestamp_within(years: Years, text: str) -> bool:
    found = read_timestamp(text)
    return found is not None and years.first <= found.year <= years.last


def _is_boolean(text: str) -> bool:
    return read_boolean(text) is not None


def _is_minutes(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) < _INTEGER_MAX + 0.5


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _is_short_text(text: str) -> bool:
    return len(text.encode()) <= MAX_TEXT_BYTES


_Rule = tuple[Callable[[str], bool], str]
_RULES: dict[Form, _Rule] = {
    Form.TIMESTAMP: (_is_timestamp, "no timestamp"),
    Form.BOOLEAN: (_is_boolean, "neither true nor false"),
    Form.NUMBER: (_is_number, "no number"),
    Form.LATITUDE: (_is_number, "no number"),
    Form.LONGITUDE: (_is_number, "no number"),
    Form.MINUTES: (_is_minutes, "no number of minutes"),
    Form.TEXT: (_is_short_text, f"longer than {MAX_TEXT_BYTES:,} bytes"),
}
"""What a value is not, that is not of its form."""


def is_of(form: Form, value: str) -> bool:
    """Whether a value is of a form, which is not `any`."""
    return _RULES[form][0](value)


def _rules(feed: Feed) -> dict[str, _Rule]:
    """Of each column that has one; the id has its own."""
    rules = {name: _RULES[column.form] for name, column in feed.columns.items() if column.form in _RULES}
    del rules[feed.id]
    if feed.years is not None:
        within = (partial(_is_timestamp_within, feed.years), f"no timestamp of {feed.years.first} to {feed.years.last}")
        rules |= {name: within for name in rules if feed.columns[name].form is Form.TIMESTAMP}
    return rules


def _is_sentinel(fields: list[str], id_place: int, sentinel: str) -> bool:
    return any(place < len(fields) and fields[place].lstrip().startswith(sentinel) for place in (0, id_place))


def _reject(record: Record, reason: str) -> RowReject:
    return RowReject(record.line, reason, record.raw.rstrip("\r\n")[:_SHOWN_CHARS].replace("\0", "\u2400"))

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
from functools import lru_cache

from consumer.feeds.feed import MAX_TEXT_BYTES, Feed, FollowOn, Form
from consumer.feeds.folding import folded_name, mended_id, mended_place
from consumer.files.decoding import undecoded
from consumer.files.header import Header, known_columns
from consumer.files.ids import MAX_ID_CHARS
from consumer.files.reading import Record
from publisher.arrivals.keys import EAT
from publisher.errors import Permanent

CLOSED_AT = "closed_at"
"""Where a feed has a history, the column that says when a ticket was closed."""
FIRST_YEAR, LAST_YEAR = "1990", "2099"
"""As tickets.eat_ts has them."""
MAX_FIELD_CHARS = 1024 * 1024
_SHOWN_CHARS = 10_000
_INTEGER_MAX = 2**31 - 1
_as_json = json.JSONEncoder(ensure_ascii=False).encode

_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})
_NUMBERS = re.compile(r"(?<![-\w])\d[\d,]*(?![-\w])|0x[0-9A-F]{2}( 0x[0-9A-F]{2})*")
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
    """What cannot be a ticket: so many `lines` of the file from `line` on.

    `group` is the reason without what is one row's; `ticket_id` what stands where the id belongs, if that can be one.
    """

    line: int
    reason: str
    raw: str
    group: str
    lines: int = 1
    ticket_id: str | None = None


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A row that can; `raw` is JSON text with every column that has a value, `closed_at` the instant or None."""

    line: int
    ticket_id: str
    raw: str
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a row, and the same without its values."""

    told: str
    group: str


class Cleaner:
    """Judges the rows of one header.

    `blanks` is JSON text with a null for each column of the file that is one of the feed's own: what `raw` has besides
    a row's values. A column that is none of them is in `raw` only where it has a value. `never` counts the dates so far
    that are of no year that a ticket can be of, and so say that there is none.
    """

    def __init__(self, header: Header, feed: Feed, first: Header | None = None) -> None:
        self.header = header
        self._feed = feed
        blanks = {name: None for name in header.names if name in feed.columns}
        self.blanks = json.dumps(blanks)
        # Rows of a later header have the nulls of the first one from the file, and those that it has more of their own.
        self._more_blanks = {name: None for name in blanks if first is not None and name not in first.names}
        self.never = 0
        self._nothing = frozenset(feed.nothing)
        self._folded_names = known_columns(feed).keys()
        self._rules = [(name, rule) for name, rule in _rules(feed).items() if name in header.names]
        self._rules_of_short_rows = [(name, rule) for name, rule in self._rules if rule is not _RULES[Form.TEXT]]
        self._can_be_nothing = {name for name, column in feed.columns.items() if column.form is not Form.ANY}
        self._places = [name for name in feed.places if name in header.names]
        self._cases = {name: column.case for name, column in feed.columns.items() if column.case}
        self._has_history = FollowOn.HISTORY in feed.follow_ons

    def clean(self, record: Record) -> TicketRow | RowReject | Dropped:
        """Raises: Permanent, for a column that stands in the file twice and with another value each time."""
        feed = self._feed
        if feed.sentinel and _is_sentinel(record.fields, self.header.id_place, feed.sentinel):
            return Dropped.SENTINEL
        if record.fault:
            return self._reject(record, _told(record.fault))
        values = self._values(record)
        fault = self._id_fault(values) or self._value_fault(values, record.raw)
        if fault:
            return self._reject(record, fault)
        if feed.drop_when and read_boolean(values.get(feed.drop_when) or ""):
            return Dropped.ALARM
        for one, other in self.header.twins:
            self._require_alike(record, one, other)
        self._bring_to_one_form(values)
        closed_at = values.get(CLOSED_AT) if self._has_history else None
        return TicketRow(
            record.line,
            values[feed.id],
            _as_json(self._more_blanks | values if self._more_blanks else values),
            (closed_at and read_timestamp(closed_at)) or None,
        )

    def _values(self, record: Record) -> dict[str, str]:
        """By name, without those that stand for nothing or are never kept."""
        fields = [field.strip() for field in record.fields]
        values = {name: field for name, field in zip(self.header.names, fields, strict=True) if field}
        if not self._nothing.isdisjoint(fields) or _can_be_wrapped(record.raw):
            for name in self._can_be_nothing & values.keys():
                if self._is_nothing(values[name]):
                    del values[name]
        for name in self._feed.never_kept:
            values.pop(name, None)
        return values

    def _is_nothing(self, text: str) -> bool:
        """Whether it says that there is no value, also behind what cannot be seen or what keeps a spreadsheet off."""
        if text in self._nothing or len(text) > MAX_ID_CHARS:
            return text in self._nothing
        return not (meant := mended_place(text)) or meant in self._nothing

    def _require_alike(self, record: Record, one: int, other: int) -> None:
        """Of one column that stands there twice, both have to mean the same."""
        header, name = self.header, self.header.names[one]
        texts = [record.fields[place].strip() for place in (one, other)]
        if texts[0] == texts[1] or self._meant(name, texts[0]) == self._meant(name, texts[1]):
            return
        places: dict[str, list[int]] = {}
        for place, others in header.twins:
            places.setdefault(header.names[place], [place]).append(others)
        twice = "; ".join(
            f"{name} as {' and '.join(repr(header.written[at][:60]) for at in found)}" for name, found in places.items()
        )
        told = " and ".join(
            f"{text[:60]!r} under {header.written[place][:60]!r}"
            for text, place in zip(texts, (one, other), strict=True)
        )
        raise Permanent("columns twice", f"{twice}; line {record.line} has {told}: leave all but one of each out")

    def _meant(self, name: str, text: str) -> object:
        """What a value comes to in its column."""
        if self._is_nothing(text) and name in self._can_be_nothing:
            return None
        if name == self._feed.id:
            return mended_id(text)
        if name in self._places:
            return mended_place(text)
        match self._feed.columns[name].form:
            case Form.TIMESTAMP:
                return read_timestamp(text) or text
            case Form.BOOLEAN:
                return text if (flag := read_boolean(text)) is None else flag
        return text.casefold() if name in self._cases else text

    def _id_fault(self, values: dict[str, str]) -> _Fault | None:
        """What is wrong with the id, which is mended otherwise."""
        name = self._feed.id
        ticket_id, fault = mended_id(values.get(name) or "")
        if not ticket_id or ticket_id in self._nothing:
            return _told(f"has no {name}")
        if fault and "\0" not in ticket_id:
            return _Fault(f"{name} {ticket_id[:60]!r} {fault}", f"{name} {fault}")
        if len(ticket_id) > MAX_ID_CHARS:
            return _told(f"has a {name} of {len(ticket_id):,} characters, more than {MAX_ID_CHARS}")
        if not ticket_id[-1].isdigit() and folded_name(ticket_id) in self._folded_names:
            return _told("has the name of a column where an id belongs")
        values[name] = ticket_id
        return None

    def _value_fault(self, values: dict[str, str], raw: str) -> _Fault | None:
        """What is wrong with one of them, by the rules in their order; dates that mean never are counted."""
        if "\0" in raw:
            return _told("has a NUL byte in it")
        if len(raw) > MAX_FIELD_CHARS and (longest := max(map(len, values.values()))) > MAX_FIELD_CHARS:
            return _told(f"has a field of {longest:,} characters, more than {MAX_FIELD_CHARS:,}")
        never = 0
        # Of a row that is no longer than a text may be, no text is too long.
        for column, rule in self._rules if _can_be_long(raw) else self._rules_of_short_rows:
            value = values.get(column)
            if value is None:
                continue
            if not rule.is_fit(value):
                return _Fault(f"{column} {value[:60]!r} is {rule.complaint}", f"{column} is {rule.complaint}")
            never += rule.is_date and not is_sane_year(value)
        self.never += never
        return None

    def _bring_to_one_form(self, values: dict[str, str]) -> None:
        for name in self._places:
            if value := values.get(name):
                values[name] = mended_place(value)
        for name, case in self._cases.items():
            if value := values.get(name):
                values[name] = value.lower() if case == "lower" else value.upper()

    def _reject(self, record: Record, fault: _Fault) -> RowReject:
        place = self.header.id_place
        raw = record.raw.rstrip("\r\n")[:_SHOWN_CHARS].replace("\0", "\u2400")
        text = record.fields[place].strip() if len(record.fields) > place else ""
        ticket_id, wrong = mended_id(text[: MAX_ID_CHARS + 1])
        is_one = ticket_id and not wrong and len(ticket_id) <= MAX_ID_CHARS and undecoded(ticket_id) is None
        return RowReject(
            record.line, fault.told, _encodable(raw), fault.group, record.lines, ticket_id if is_one else None
        )


def read_timestamp(text: str) -> datetime | None:
    """`YYYY-MM-DD[ HH:MM[:SS[.f]]]` or ISO 8601; EAT where it names no zone.

    None for anything else, and for a year that no ticket can be of.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None or not is_sane_year(text):
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


def is_sane_year(text: str) -> bool:
    """Whether a timestamp is of a year that a ticket can be of; programs write other ones for "never"."""
    return FIRST_YEAR <= text[:4] <= LAST_YEAR


@lru_cache(maxsize=4096)
def _is_timestamp(text: str) -> bool:
    # Of an export's times, many are the same: those of the export itself, and of one ticket in several columns.
    return read_timestamp(text) is not None or (_TIMESTAMP.fullmatch(text) is not None and not is_sane_year(text))


def _is_boolean(text: str) -> bool:
    return read_boolean(text) is not None


def _is_minutes(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) < _INTEGER_MAX + 0.5


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _is_short_text(text: str) -> bool:
    return len(text.encode()) <= MAX_TEXT_BYTES


def _can_be_wrapped(raw: str) -> bool:
    """Whether some value in it can be another one than the text that stands there."""
    return not raw.isascii() or "'" in raw or '="' in raw or '"""' in raw


def _can_be_long(raw: str) -> bool:
    """Whether some text in it can have more than MAX_TEXT_BYTES."""
    return len(raw) * (1 if raw.isascii() else 4) > MAX_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class _Rule:
    """Whether a value is of a form, and what one is not that is not."""

    is_fit: Callable[[str], bool]
    complaint: str
    is_date: bool = False


_TIMESTAMPS = (
    "no timestamp; those are YYYY-MM-DD[ HH:MM[:SS[.f]]], with a T for the space or a zone behind it, as in "
    "2026-06-25 14:20:00 and 2026-06-25T11:20:00Z"
)
_RULES = {
    Form.TIMESTAMP: _Rule(_is_timestamp, _TIMESTAMPS, is_date=True),
    Form.BOOLEAN: _Rule(_is_boolean, "neither true nor false; those are true, t, 1 and false, f, 0"),
    Form.NUMBER: _Rule(_is_number, "no number; those are as in 12 and -12.5"),
    Form.LATITUDE: _Rule(_is_number, "no number; those are as in -1.2921"),
    Form.LONGITUDE: _Rule(_is_number, "no number; those are as in 36.8219"),
    Form.MINUTES: _Rule(_is_minutes, "no number of minutes; those are as in 90 and 90.5"),
    Form.TEXT: _Rule(_is_short_text, f"longer than {MAX_TEXT_BYTES:,} bytes"),
}


def is_of(form: Form, value: str) -> bool:
    """Whether a value is of a form, which is not `any`."""
    return _RULES[form].is_fit(value)


def _rules(feed: Feed) -> dict[str, _Rule]:
    """Of each column that has one; the id has its own."""
    rules = {name: _RULES[column.form] for name, column in feed.columns.items() if column.form in _RULES}
    del rules[feed.id]
    return rules


def _is_sentinel(fields: list[str], id_place: int, sentinel: str) -> bool:
    return any(place < len(fields) and fields[place].lstrip().startswith(sentinel) for place in (0, id_place))


def _told(fault: str) -> _Fault:
    return _Fault(fault, without_values(fault))


def without_values(fault: str) -> str:
    """What many rows have in common whose faults differ in their numbers alone."""
    return _NUMBERS.sub("N", fault)


def _encodable(text: str) -> str:
    """With what is no UTF-8 shown as the byte that it is."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

"""What a value of a column comes to: nothing, its text in one form, or a fault. Pure.

In a column the same texts come over and over, in one file and in the next ones, and what one comes to depends on
nothing else: so each is judged once, for as long as it is remembered.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Literal, NamedTuple

from consumer.feeds.feed import MAX_TEXT_BYTES, Feed, Form
from consumer.feeds.folding import mended_place
from consumer.files.ids import MAX_ID_CHARS
from publisher.arrivals.keys import EAT

FIRST_YEAR, LAST_YEAR = "1990", "2099"
"""As tickets.eat_ts has them."""
as_json = json.encoder.encode_basestring

_REMEMBERED = 32_768
"""So many texts in all columns of a header together, each of no more than these characters."""
_REMEMBERED_CHARS = 40
_REMEMBERED_BYTES = 16 * 1024 * 1024
"""And no more than so many bytes of them, whatever the columns are called."""
_OF_ONE = 200
"""Bytes for a text that is remembered, apart from its characters, of which each may take four."""
_HEADERS = 3
"""Of so many headers, of all that a process reads."""
_INTEGER_MAX = 2**31 - 1
_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})
_NUMBERS = re.compile(r"(?<![-\w])\d[\d,]*(?![-\w])|0x[0-9A-F]{2}( 0x[0-9A-F]{2})*")
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s?(Z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row, the same without its values, and by which of a few rules."""

    told: str
    group: str
    rule: str


class Value(NamedTuple):
    """What a field comes to. `member` is what JSON text of a ticket has of it behind other ones, or "" for nothing.

    `is_never` is a date of no year that a ticket can be of, which so says that there is none; with one that `drops`,
    the feed drops the row.
    """

    member: str
    fault: Fault | None = None
    is_never: bool = False
    drops: bool = False


class FileColumn(dict[str, str | None]):
    """One of a file's. By the text of a field its member, or None where `value` has more to say of it.

    A column of the feed is null where it has no value; another one is in `raw` only where it has one. What is never
    kept is never there, and neither is the id, which is no value of many rows.
    Safe to share between threads: whoever forgets or adds a text takes nothing from who looks at another one.
    """

    def __init__(self, name: str, feed: Feed, width: int) -> None:
        super().__init__()
        declared = feed.columns.get(name)
        self._name = name
        self._key = f", {as_json(name)}: "
        self._is_left_out = name == feed.id or name in feed.never_kept
        self._form = declared.form if declared else Form.ANY
        self._rule = _RULES.get(self._form)
        self._can_be_nothing = self._form is not Form.ANY
        self._nothing = frozenset(feed.nothing)
        self._is_place = name in feed.places
        self._case = declared.case if declared else None
        self._drops = name == feed.drop_when
        bytes_each = _OF_ONE + 4 * (len(self._key) + 2 * _REMEMBERED_CHARS)
        self._most = max(1, min(_REMEMBERED, _REMEMBERED_BYTES // bytes_each) // width)
        self._null = null_member(name) if declared and not self._is_left_out else ""

    def __missing__(self, field: str) -> str | None:
        if self._is_left_out:
            return ""
        value = self.value(field)
        member = value.member if not any(value[1:]) else None
        if len(field) <= _REMEMBERED_CHARS:
            if len(self) >= self._most:
                self.clear()
            self[field] = member
        return member

    def value(self, field: str) -> Value:
        text = field.strip()
        if self._is_left_out or self.is_nothing(text):
            return Value(self._null)
        rule = self._rule
        if rule and not rule.is_fit(text):
            group = f"{self._name} is {rule.complaint}"
            fault = Fault(f"{self._name} {text[:60]!r} is {rule.complaint}", group, self._form.value)
            return Value("", fault)
        return Value(
            self._key + as_json(self._in_one_form(text)),
            is_never=rule is not None and rule.is_date and not is_sane_year(text),
            drops=self._drops and bool(read_boolean(text)),
        )

    def is_nothing(self, text: str) -> bool:
        """Whether it says that there is no value, also behind what cannot be seen or what keeps a spreadsheet off."""
        if not text or not self._can_be_nothing:
            return not text
        if text in self._nothing or len(text) > MAX_ID_CHARS:
            return text in self._nothing
        return not (meant := mended_place(text)) or meant in self._nothing

    def meant(self, text: str) -> object:
        """What any two texts that are one value have in common."""
        if self.is_nothing(text):
            return None
        match self._form:
            case Form.TIMESTAMP:
                return read_timestamp(text) or text
            case Form.BOOLEAN:
                return text if (flag := read_boolean(text)) is None else flag
        return self._in_one_form(text)

    def _in_one_form(self, text: str) -> str:
        return in_case(mended_place(text) if self._is_place else text, self._case)


def in_case(text: str, case: Literal["lower", "upper"] | None) -> str:
    match case:
        case "lower":
            return text.lower()
        case "upper":
            return text.upper()
    return text


@lru_cache(maxsize=_HEADERS)
def file_columns(names: tuple[str, ...], feed: Feed) -> tuple[FileColumn, ...]:
    """Of a header with these names, those that files of before had with all that is remembered of them."""
    return tuple(FileColumn(name, feed, len(names)) for name in names)


def null_member(name: str) -> str:
    """What `raw` has of a column without a value."""
    return f", {as_json(name)}: null"


def read_timestamp(text: str) -> datetime | None:
    """`YYYY-MM-DD[ HH:MM[:SS[.f]]]` or ISO 8601; EAT where it names no zone.

    None for anything else, and for a year that no ticket can be of.
    """
    return _timestamp(text) if len(text) <= _REMEMBERED_CHARS else None


@lru_cache(maxsize=4096)
def _timestamp(text: str) -> datetime | None:
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


def _is_timestamp(text: str) -> bool:
    return read_timestamp(text) is not None or (_TIMESTAMP.fullmatch(text) is not None and not is_sane_year(text))


def _is_boolean(text: str) -> bool:
    return read_boolean(text) is not None


def _is_minutes(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) < _INTEGER_MAX + 0.5


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _is_short_text(text: str) -> bool:
    return len(text.encode()) <= MAX_TEXT_BYTES


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


def told(fault: str, rule: str) -> Fault:
    return Fault(fault, without_values(fault), rule)


def without_values(fault: str) -> str:
    """What many rows have in common whose faults differ in their numbers alone."""
    return _NUMBERS.sub("N", fault)

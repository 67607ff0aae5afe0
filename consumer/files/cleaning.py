"""What one row goes through: dropped, rejected with a reason, or a ticket fit for its typed columns. Pure.

The rules are the batch import's: alarms and the exporter's sentinel are dropped, `region` is lower-case, `raw_status`
upper-case, empty is null, and every value that was in the file stays in `raw`.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum, auto

from consumer.files.reading import Record
from publisher.arrivals.keys import EAT
from publisher.errors import Permanent

ID = "ticket_id"
SENTINEL = "EXPORT STOPPED"
MAX_ID_CHARS = 200
MAX_TEXT_BYTES = 1000
"""Of a column that is indexed, in UTF-8: two of them share an index, whose entries end at 2,704 bytes."""
MAX_COLUMNS = 2000
MAX_HEADER_BYTES = 16 * 1024
"""Of all names together, in UTF-8: each row repeats the names of what it has."""
MAX_FIELD_CHARS = 1024 * 1024
_SHOWN_CHARS = 10_000
_INTEGER_MAX = 2**31 - 1

_FEED_COLUMNS = frozenset(
    ("ticket_id", "normalized_status", "raw_status", "bucket", "is_actionable", "cluster", "region", "location_name",
     "assigned_team", "owner", "sla_status", "mttr", "created_at_service", "scheduled_at", "closed_at", "first_seen_at",
     "last_seen_at", "source_created_at", "source_updated_at", "latitude", "longitude", "service_type", "is_alarm",
     "is_auto_created", "is_auto_closed", "week_start", "week_end", "source_s3_bucket", "source_s3_key",
     "source_snapshot_id", "department", "source_type")
)  # fmt: skip

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
    Raises: Permanent, when the header names no ticket_id, a column twice, or more than a header may.
    """

    def __init__(self, header: Record | None) -> None:
        if header is None:
            raise Permanent("no header", "the file is empty")
        if header.fault:
            raise Permanent("no header", header.fault)
        if len(header.fields) > MAX_COLUMNS:
            raise Permanent("too many columns", f"the header has {len(header.fields):,}, more than {MAX_COLUMNS:,}")
        columns = [name.strip() for name in header.fields]
        if ID not in columns:
            shown = ", ".join(columns)[:200]
            raise Permanent("no ticket_id", f"the header has no column ticket_id but: {shown!r}")
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
        self.blanks = json.dumps({name: None for name in named if name in _FEED_COLUMNS})
        self._id_place = columns.index(ID)

    def clean(self, record: Record) -> TicketRow | RowReject | Dropped:
        if _is_sentinel(record.fields, self._id_place):
            return Dropped.SENTINEL
        fault = record.fault or self._shape_fault(record.fields)
        if fault:
            return _reject(record, fault)
        fields = [field.strip() for field in record.fields]
        values = {name: field for name, field in zip(self._columns, fields, strict=True) if field}
        fault = _value_fault(values)
        if fault:
            return _reject(record, fault)
        if read_boolean(values.get("is_alarm") or ""):
            return Dropped.ALARM
        if region := values.get("region"):
            values["region"] = region.lower()
        if raw_status := values.get("raw_status"):
            values["raw_status"] = raw_status.upper()
        closed_at = values.get("closed_at")
        return TicketRow(
            record.line,
            values[ID],
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


def _is_boolean(text: str) -> bool:
    return read_boolean(text) is not None


def _is_minutes(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) < _INTEGER_MAX + 0.5


def _is_coordinate(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _is_short_text(text: str) -> bool:
    return len(text.encode()) <= MAX_TEXT_BYTES


_RULES: dict[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(
        ("created_at_service", "scheduled_at", "closed_at", "first_seen_at", "last_seen_at", "source_created_at",
         "source_updated_at"),
        (_is_timestamp, "no timestamp"),
    ),
    **dict.fromkeys(("is_actionable", "is_alarm"), (_is_boolean, "neither true nor false")),
    **dict.fromkeys(("latitude", "longitude"), (_is_coordinate, "no number")),
    "mttr": (_is_minutes, "no number of minutes"),
    **dict.fromkeys(
        ("normalized_status", "raw_status", "bucket", "cluster", "region", "location_name", "assigned_team", "owner",
         "sla_status"),
        (_is_short_text, f"longer than {MAX_TEXT_BYTES:,} bytes"),
    ),
}  # fmt: skip


def _value_fault(values: dict[str, str]) -> str | None:
    ticket_id = values.get(ID)
    if ticket_id is None:
        return "no ticket_id"
    if len(ticket_id) > MAX_ID_CHARS:
        return f"a ticket_id of {len(ticket_id):,} characters"
    for column, (is_fit, complaint) in _RULES.items():
        value = values.get(column)
        if value is not None and not is_fit(value):
            return f"{column} {value[:60]!r} is {complaint}"
    return None


def _is_sentinel(fields: list[str], id_place: int) -> bool:
    return any(place < len(fields) and fields[place].lstrip().startswith(SENTINEL) for place in (0, id_place))


def _reject(record: Record, reason: str) -> RowReject:
    return RowReject(record.line, reason, record.raw.rstrip("\r\n")[:_SHOWN_CHARS].replace("\0", "\u2400"))

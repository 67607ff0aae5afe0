"""What a feed means, worked out in memory from its bytes: the highest (time in the name, name, line) of a ticket wins.

Shares no code with the ingest (cleaning, merge, key grammar), so that the two can only agree by both being right. Pure.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from consumer.demo.feed import ChangeFile
from publisher.arrivals.keys import EAT

Raw = dict[str, str | None]

_TEXTS = (
    "normalized_status", "raw_status", "bucket", "cluster", "region", "location_name", "assigned_team", "owner",
    "sla_status",
)  # fmt: skip
_TIMES = (
    "created_at_service", "scheduled_at", "closed_at", "first_seen_at", "last_seen_at", "source_created_at",
    "source_updated_at",
)  # fmt: skip
TYPED = (*_TEXTS, *_TIMES, "is_actionable", "mttr", "latitude", "longitude", "geo_source")


@dataclass(slots=True)
class Expected:
    """The final state; files are named as in the feed, lines counted from 1 with the header as the first."""

    tickets: dict[str, Raw] = field(default_factory=dict)
    closures: set[tuple[str, datetime]] = field(default_factory=set)
    rejects: dict[tuple[str, int], str] = field(default_factory=dict)
    """Text of each row that cannot be a ticket."""
    applied: dict[str, bytes] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("read", "superseded", "rejected", "alarms", "sentinels"), 0)
    )


def expect(files: Iterable[ChangeFile]) -> Expected:
    """Work out what is to come of the files, whatever the order they arrive in."""
    expected = Expected()
    for file in sorted(files, key=lambda file: (file.time, file.name)):
        try:
            text = file.body.decode()
        except UnicodeDecodeError:
            expected.dead.add(file.name)
            continue
        expected.applied[file.name] = file.body
        _take(expected, file.name, text)
    return expected


def typed(raw: Raw) -> dict[str, object]:
    """The typed columns of a ticket, as long as no gazetteer has a place for it.

    Raises: ValueError, when a value does not fit its column.
    """
    place = _place(raw)
    minutes = raw.get("mttr")
    return {
        **{name: raw.get(name) for name in _TEXTS},
        **{name: _time(raw.get(name)) for name in _TIMES},
        "is_actionable": _flag(raw.get("is_actionable")),
        "mttr": int(_number(minutes).quantize(Decimal(1), ROUND_HALF_UP)) if minutes else None,
        "latitude": place[0] if place else None,
        "longitude": place[1] if place else None,
        "geo_source": "feed" if place else None,
    }


def _take(expected: Expected, name: str, text: str) -> None:
    tickets: dict[str, Raw] = {}
    for line, shown, fields, header in _rows(text):
        expected.rows["read"] += 1
        if fields[0].startswith("EXPORT STOPPED"):
            expected.rows["sentinels"] += 1
            continue
        raw: Raw = {column: value.strip() or None for column, value in zip(header, fields, strict=False)}
        ticket_id = raw.get("ticket_id")
        if len(fields) != len(header) or not ticket_id or not _fits(raw):
            expected.rows["rejected"] += 1
            expected.rejects[name, line] = shown
        elif _flag(raw.get("is_alarm")):
            expected.rows["alarms"] += 1
        else:
            raw["region"] = (raw.get("region") or "").lower() or None
            raw["raw_status"] = (raw.get("raw_status") or "").upper() or None
            expected.rows["superseded"] += ticket_id in tickets
            tickets[ticket_id] = raw
            if closed_at := _time(raw.get("closed_at")):
                expected.closures.add((ticket_id, closed_at))
    expected.tickets |= tickets


def _rows(text: str) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """Each row after the header: its first line, its text, its fields; and the header."""
    lines = text.splitlines()
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader)
    ended = reader.line_num
    for fields in reader:
        yield ended + 1, "\n".join(lines[ended : reader.line_num]), fields, header
        ended = reader.line_num


def _fits(raw: Raw) -> bool:
    try:
        typed(raw)
        _flag(raw.get("is_alarm"))
    except ValueError:
        return False
    return True


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=EAT)


def _flag(text: str | None) -> bool | None:
    if text is None:
        return None
    try:
        return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None


def _place(raw: Mapping[str, str | None]) -> tuple[float, float] | None:
    """Latitude and longitude if both are there and lie in Kenya."""
    texts = raw.get("latitude"), raw.get("longitude")
    latitude, longitude = (float(_number(text)) if text else None for text in texts)
    if latitude is None or longitude is None:
        return None
    return (latitude, longitude) if -5 <= latitude <= 5.5 and 33.5 <= longitude <= 42 else None  # noqa: PLR2004

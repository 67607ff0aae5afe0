"""What the database must hold after a set of change files, worked out from their text alone.

Order plays no part here: rows are collected, then sorted by (key time, key, version, line), and the last one of a
ticket is the ticket. Nothing is shared with the program, the reading of CSV included.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

EAT = timezone(timedelta(hours=3))
TEXTS = (
    "normalized_status",
    "raw_status",
    "bucket",
    "cluster",
    "region",
    "location_name",
    "assigned_team",
    "owner",
    "sla_status",
)
TIMES = (
    "created_at_service",
    "scheduled_at",
    "closed_at",
    "first_seen_at",
    "last_seen_at",
    "source_created_at",
    "source_updated_at",
)
KEPT_EMPTY = {
    *TEXTS,
    *TIMES,
    *("ticket_id", "is_actionable", "mttr", "latitude", "longitude", "service_type", "is_alarm", "is_auto_created"),
    *("is_auto_closed", "week_start", "week_end", "source_s3_bucket", "source_s3_key", "source_snapshot_id"),
    *("department", "source_type"),
}
"""The feed's own columns: what a file has of them is in a ticket's `raw` without a value, too."""
CLOSURE = (
    "cluster",
    "region",
    "location_name",
    "assigned_team",
    "owner",
    "sla_status",
    "mttr",
    "created_at_service",
)
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?")
FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}

Position = tuple[datetime, str, int, int]
Values = dict[str, Any]


class NotATicketError(ValueError):
    pass


def rows_of(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line on which it begins, from 1."""
    fields: list[str] = []
    value, quoted, line, begins, position = "", False, 1, 1, 0
    while position < len(text):
        character = text[position]
        position += 1
        line += character == "\n"
        if quoted:
            if character != '"':
                value += character
            elif text[position : position + 1] == '"':
                value += '"'
                position += 1
            else:
                quoted = False
        elif character == '"':
            quoted = True
        elif character == ",":
            fields.append(value)
            value = ""
        elif character == "\n":
            yield begins, [*fields, value.removesuffix("\r")]
            fields, value, begins = [], "", line
        else:
            value += character
    if fields or value:
        yield begins, [*fields, value]


def moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    found = TIME.fullmatch(value)
    if found is None:
        raise NotATicketError(value)
    day, minute, seconds, fraction, zone = found.groups()
    micro = ((fraction or ".0")[1:] + "000000")[:6]
    try:
        return datetime.fromisoformat(
            f"{day}T{minute}{seconds or ':00'}.{micro}{(zone or '+03:00').replace('Z', '+00:00')}"
        )
    except ValueError as impossible:
        raise NotATicketError(value) from impossible


def flag(value: str | None) -> bool | None:
    if value is None:
        return None
    if value.lower() not in FLAGS:
        raise NotATicketError(value)
    return FLAGS[value.lower()]


def number(value: str | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(value)
    except InvalidOperation as odd:
        raise NotATicketError(value) from odd


def typed(raw: dict[str, str | None]) -> Values:
    """The columns of tickets.inc for this raw; the place is left out where the feed names none in Kenya."""
    minutes = number(raw.get("mttr"))
    north, east = number(raw.get("latitude")), number(raw.get("longitude"))
    in_kenya = north is not None and east is not None and -5 <= north <= Decimal("5.5") and 33 < east <= 42
    return {
        **{name: raw.get(name) for name in TEXTS},
        **{name: moment(raw.get(name)) for name in TIMES},
        "is_actionable": flag(raw.get("is_actionable")),
        "mttr": None if minutes is None else int(minutes.quantize(Decimal(1), ROUND_HALF_UP)),
        "latitude": float(north) if in_kenya and north is not None else None,
        "longitude": float(east) if in_kenya and east is not None else None,
        "ticket_id": raw["ticket_id"],
        "raw": raw,
    }


@dataclass(frozen=True)
class Accepted:
    position: Position
    values: Values


class Reference:
    """Feed it every file once, in any order; files under one key have different versions."""

    def __init__(self) -> None:
        self.accepted: list[Accepted] = []
        self.rejects: set[tuple[str, int]] = set()
        self.counts: Counter[str] = Counter()

    def read(self, key: str, key_time: datetime, body: bytes, version: int = 0) -> None:
        rows = rows_of(body.decode("utf-8-sig"))
        _, header = next(rows)
        newest: dict[str, int] = {}
        for line, fields in rows:
            self.counts["rows_read"] += 1
            if len(fields) != len(header) or any("\x00" in value for value in fields):
                self._reject(key, line)
                continue
            named = zip(header, fields, strict=True)
            raw: dict[str, str | None] = {name: value or None for name, value in named if value or name in KEPT_EMPTY}
            ticket = raw["ticket_id"]
            if (ticket or "").startswith("EXPORT STOPPED"):
                self.counts["sentinels_dropped"] += 1
            elif (raw.get("is_alarm") or "").lower() in {"true", "t", "1"}:
                self.counts["alarms_dropped"] += 1
            elif ticket is None:
                self._reject(key, line)
            else:
                self._accept((key_time, key, version, line), raw, newest)

    def _accept(self, position: Position, raw: dict[str, str | None], newest: dict[str, int]) -> None:
        for name, change in (("region", str.lower), ("raw_status", str.upper)):
            value = raw.get(name)
            raw |= {name: change(value)} if value else {}
        try:
            values = typed(raw)
        except NotATicketError:
            self._reject(position[1], position[3])
            return
        ticket = values["ticket_id"]
        self.counts["rows_superseded"] += ticket in newest
        newest[ticket] = position[3]
        self.accepted.append(Accepted(position, values))

    def _reject(self, key: str, line: int) -> None:
        self.counts["rows_rejected"] += 1
        self.rejects.add((key, line))

    def tickets(self) -> dict[str, Values]:
        ordered = sorted(self.accepted, key=lambda row: row.position)
        return {row.values["ticket_id"]: row.values for row in ordered}

    def closures(self) -> dict[tuple[str, datetime], Values]:
        ordered = sorted(self.accepted, key=lambda row: row.position)
        return {
            (row.values["ticket_id"], row.values["closed_at"]): {name: row.values[name] for name in CLOSURE}
            for row in ordered
            if row.values["closed_at"] is not None
        }

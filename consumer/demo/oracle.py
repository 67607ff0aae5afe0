"""What the database must hold after a set of change files, worked out from their text alone. Pure.

Order plays no part here: rows are collected, then sorted by (key time, key, version, line), and the last one of a
ticket is the ticket. Nothing is shared with the program, the reading of CSV included, so that the two can only agree by
both being right.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from consumer.demo.model import INC, FeedModel

EAT = timezone(timedelta(hours=3))
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?")
FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}

Position = tuple[datetime, str, int, int]
Values = dict[str, Any]
Raw = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class ChangeFile:
    """A file of a feed: its key, the instant that the key stands for, its bytes."""

    key: str
    key_time: datetime
    body: bytes
    version: int = 0
    """Of two files under one key, the one with the greater version was put later."""


class NotATicketError(ValueError):
    """A row that cannot be a ticket."""


def rows_of(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Each row with the line on which it begins, from 1, and its own text."""
    fields: list[str] = []
    value, quoted, line, begins, position, start = "", False, 1, 1, 0, 0
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
            yield begins, text[start:position].rstrip("\r\n"), [*fields, value.removesuffix("\r")]
            fields, value, begins, start = [], "", line, position
        else:
            value += character
    if fields or value:
        yield begins, text[start:], [*fields, value]


def moment(value: str | None) -> datetime | None:
    """Raises: NotATicketError."""
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
    """Raises: NotATicketError."""
    if value is None:
        return None
    if value.lower() not in FLAGS:
        raise NotATicketError(value)
    return FLAGS[value.lower()]


def number(value: str | None) -> Decimal | None:
    """Raises: NotATicketError."""
    try:
        return None if value is None else Decimal(value)
    except InvalidOperation as odd:
        raise NotATicketError(value) from odd


def minutes(value: str | None) -> int | None:
    """Raises: NotATicketError."""
    found = number(value)
    return None if found is None else int(found.quantize(Decimal(1), ROUND_HALF_UP))


def in_one_line(name: str) -> str:
    """A place's name as it is spelt, with one space wherever there is any."""
    return " ".join(name.split())


def place(model: FeedModel, raw: Raw) -> Values:
    """Latitude and longitude if both are there and lie in Kenya. Raises: NotATicketError."""
    if model.place is None:
        return {}
    north, east = (number(raw.get(name)) for name in model.place)
    if north is None or east is None or not (-5 <= north <= Decimal("5.5") and Decimal("33.5") <= east <= 42):  # noqa: PLR2004
        return dict.fromkeys(model.place)
    return dict(zip(model.place, (float(north), float(east)), strict=True))


def typed(model: FeedModel, raw: Raw) -> Values:
    """The typed columns of a ticket, as long as no gazetteer has a place for it. Raises: NotATicketError."""
    return {
        **{name: raw.get(name) for name in model.texts},
        **{name: moment(raw.get(name)) for name in model.times},
        **{name: flag(raw.get(name)) for name in model.flags},
        **{name: minutes(raw.get(name)) for name in model.minutes},
        **place(model, raw),
    }


@dataclass(frozen=True, slots=True)
class Accepted:
    """A row that is a ticket's, whether or not another one outranks it."""

    position: Position
    ticket_id: str
    raw: Raw
    typed: Values


class Oracle:
    """Feed it every file once, in any order; files under one key have different versions."""

    def __init__(self, model: FeedModel = INC) -> None:
        self.model = model
        self.accepted: list[Accepted] = []
        self.rejects: dict[tuple[str, int], str] = {}
        """By file and line, the text of each row that cannot be a ticket."""
        self.dead: set[str] = set()
        """Files that fail whole: they lack a column."""
        self.counts = Counter(
            dict.fromkeys(("rows_read", "rows_rejected", "alarms_dropped", "sentinels_dropped", "rows_superseded"), 0)
        )

    def read(self, file: ChangeFile) -> None:
        rows = rows_of(file.body.decode("utf-8-sig"))
        _, _, header = next(rows)
        if self.model.needed is not None and self.model.needed not in header:
            self.dead.add(file.key)
            return
        id_place = header.index(self.model.id_column)
        seen: set[str] = set()
        for line, text, fields in rows:
            self.counts["rows_read"] += 1
            if self._is_sentinel(fields[:1] + fields[id_place : id_place + 1]):
                self.counts["sentinels_dropped"] += 1
                continue
            try:
                accepted = self._accept((file.key_time, file.key, file.version, line), header, fields)
            except NotATicketError:
                self.counts["rows_rejected"] += 1
                self.rejects[file.key, line] = text
                continue
            if accepted is None:
                self.counts["alarms_dropped"] += 1
                continue
            self.counts["rows_superseded"] += accepted.ticket_id in seen
            seen.add(accepted.ticket_id)
            self.accepted.append(accepted)

    def _is_sentinel(self, fields: Iterable[str]) -> bool:
        return self.model.sentinel is not None and any(field.startswith(self.model.sentinel) for field in fields)

    def _accept(self, position: Position, header: list[str], fields: list[str]) -> Accepted | None:
        """Give nothing for an alarm. Raises: NotATicketError."""
        if len(fields) != len(header) or any("\x00" in value for value in fields):
            raise NotATicketError(fields)
        named = [(name, value.strip()) for name, value in zip(header, fields, strict=True)]
        raw: Raw = {name: value or None for name, value in named if value or name in self.model.columns}
        ticket_id = raw[self.model.id_column]
        if ticket_id is None:
            raise NotATicketError(fields)
        for names, change in (
            (self.model.lower, str.lower), (self.model.upper, str.upper), (("cluster", "location_name"), in_one_line),
        ):  # fmt: skip
            raw |= {name: change(value) for name in names if (value := raw.get(name))}
        accepted = Accepted(position, ticket_id, raw, typed(self.model, raw))
        return None if self.model.alarm and flag(raw.get(self.model.alarm)) else accepted

    def _in_order(self) -> list[Accepted]:
        return sorted(self.accepted, key=lambda row: row.position)

    def tickets(self) -> dict[str, Values]:
        """By id: the id, `raw` and the typed columns."""
        return {
            row.ticket_id: {self.model.id_column: row.ticket_id, "raw": row.raw, **row.typed}
            for row in self._in_order()
        }

    def closures(self) -> dict[tuple[str, datetime], Values]:
        if (closed_at := self.model.closed_at) is None:
            return {}
        found: dict[tuple[str, datetime], Values] = {}
        for row in self._in_order():
            if row.typed[closed_at] is not None:
                held = {name: row.typed[name] for name in self.model.closure}
                closure = found.setdefault((row.ticket_id, row.typed[closed_at]), held)
                closure |= {name: row.typed[name] for name in self.model.closure_later}
        return found

    def sums(self) -> dict[str, int]:
        """What the ledger counts over all files."""
        return dict(self.counts) | {"rows_inserted": len(self.tickets()), "accepted": len(self.accepted)}


def foretell(files: Iterable[ChangeFile], model: FeedModel = INC) -> Oracle:
    """Read all files."""
    oracle = Oracle(model)
    for file in files:
        oracle.read(file)
    return oracle

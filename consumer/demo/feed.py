"""A Kenyan internet provider's feed, made up from a seed: the same arguments give the same bytes. Pure."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import ClassVar

from consumer.demo.model import CRQ, INC, FeedModel
from consumer.demo.oracle import EAT, ChangeFile

COLUMNS = (
    "ticket_id", "normalized_status", "raw_status", "bucket", "is_actionable", "cluster", "region", "location_name",
    "assigned_team", "owner", "sla_status", "mttr", "created_at_service", "scheduled_at", "closed_at", "first_seen_at",
    "last_seen_at", "source_created_at", "source_updated_at", "latitude", "longitude", "service_type", "is_alarm",
    "is_auto_created", "is_auto_closed", "week_start", "week_end", "source_s3_bucket", "source_s3_key",
    "source_snapshot_id", "department", "source_type",
)  # fmt: skip
"""As the exporter orders those of its feeds; each feed has some of them."""
FEWEST_FILES = 8
"""Of one feed."""
FEWEST_ROWS = 20

_EVERY = timedelta(minutes=20)
_CONTENT_LAG = timedelta(days=2)
_SENTINEL_EVERY, _BAD_ROWS_EVERY = 7, 5

CLUSTERS = {
    "QOA": ("Nairobi West", -1.2690, 36.7860, ("Kangemi", "Mountain View", "Quarry Road, Kariokor")),
    "PTMP": ("Nairobi East", -1.3140, 36.8990, ("Pipeline", "Tassia", "Fedha, Phase 3")),
    "ROY": ("Nairobi North", -1.2170, 36.8870, ("Roysambu", "Zimmerman", "Mirema Drive")),
    "KAS": ("Nairobi North", -1.2240, 36.9080, ("Kasarani", "Mwiki", "Clay City, Seasons")),
    "UMO": ("Nairobi East", -1.2830, 36.8930, ("Umoja 1", "Umoja Innercore", "Kayole")),
    "LAN": ("Nairobi South", -1.3490, 36.7590, ("Lang'ata", "Onyonka", "South C, Bellevue")),
    "KIL": ("Nairobi West", -1.2900, 36.7830, ("Kilimani", "Lavington", "Valley Arcade")),
    "RUA": ("Kiambu", -1.2060, 36.7760, ("Ruaka", "Ndenderu", "Two Rivers")),
}
_TEAMS = ("Fibre North", "Fibre East", "Fibre South", "Wireless PtMP", "NOC Level 1", "Rapid Response")
_OWNERS = ("W. Kamau", "A. Otieno", "M. Wanjiru", "J. Kiprotich", "F. Achieng", "P. Ng'ang'a", "H. Abdi", "")
_OPEN_STATUSES = (("open", "Assigned"), ("in_progress", "In Progress"), ("pending", "On Hold - Customer"))
_YES, _NO = ("true", "True", "t", "1"), ("false", "False", "f", "0")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class MadeFeed:
    """Files in the order in which they are put, which is not the order of their names: the last one is late."""

    model: FeedModel
    files: tuple[ChangeFile, ...]
    announced_twice: str
    """Key of the file whose event is sent once more."""
    incomplete: str
    """Key of the file that lacks a column."""
    late: str


def make_feeds(*, files: int, rows: int, seed: int, until: datetime) -> tuple[MadeFeed, ...]:
    """Make `files` files of incidents and of change requests, of which there are fewer."""
    of_changes = max(FEWEST_FILES, files // 4)
    return (
        make_feed(INC, files=files - of_changes, rows=rows, seed=seed, until=until),
        make_feed(CRQ, files=of_changes, rows=rows, seed=seed + 1, until=until),
    )


def make_feed(model: FeedModel, *, files: int, rows: int, seed: int, until: datetime) -> MadeFeed:
    """Make `files` files of `rows` rows and a few bad ones, one for every 20 minutes, the last for `until`."""
    exporter = Exporter(Random(seed), model)
    first = until.astimezone(EAT).replace(second=0, microsecond=0) - (files - 1) * _EVERY
    made = [exporter.export(number, first + number * _EVERY, rows) for number in range(files)]
    late, broken, twice = made[files // 3], made[files // 2], made[files * 3 // 4]
    made[files // 2] = replace(broken, body=without(broken.body, model.needed or model.times[0]))
    made.remove(late)
    return MadeFeed(model, (*made, late), announced_twice=twice.key, incomplete=broken.key, late=late.key)


def without(body: bytes, column: str) -> bytes:
    """The same file, had its exporter left out a column."""
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    place = rows[0].index(column)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*row[:place], *row[place + 1 :]] for row in rows)
    return text.getvalue().encode()


class Exporter:
    """The tickets as the source system has them, and its exports of what changed.

    Keys are names without a folder. With `tickets`, there are so many at the most, and changes meet on them.
    """

    shares: ClassVar[dict[str, float]] = {
        "new": 0.42, "update": 0.31, "close": 0.12, "correct": 0.02, "reopen": 0.03, "alarm": 0.05, "repeat": 0.05,
    }  # fmt: skip
    stamps: ClassVar[tuple[str, ...]] = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+03:00", "%Y-%m-%d %H:%M")

    def __init__(self, random: Random, model: FeedModel = INC, tickets: int | None = None) -> None:
        self.random = random
        self.model = model
        self._tickets = tickets
        self._known = 0
        self._last_id = 480_000
        self._open: list[Row] = []
        self._closed: list[Row] = []
        self._exported: list[Row] = []

    def export(self, number: int, time: datetime, rows: int) -> ChangeFile:
        key, key_time = self.key(number, time)
        columns = self.columns(number)
        now = time - _CONTENT_LAG
        # Exports overlap: some rows of the last one come again as they were, before what changed since.
        kinds = self.kinds(rows)
        overlap = min(kinds.count("repeat"), len(self._exported))
        written = self.random.sample(self._exported, overlap)
        for kind in [kind for kind in kinds if kind != "repeat"] + ["update"] * (kinds.count("repeat") - overlap):
            row = self.change(kind, now) | {
                "last_seen_at": self.stamp(now),
                "source_updated_at": self.stamp(now - timedelta(minutes=self.random.randrange(20))),
                "week_start": f"{now - timedelta(days=now.weekday()):%Y-%m-%d}",
                "week_end": f"{now + timedelta(days=6 - now.weekday()):%Y-%m-%d}",
                "source_s3_key": f"automations/{self.model.name}/snapshots/{key}",
                "source_snapshot_id": f"snap-{number:05}",
            }
            written.append(row)
        self._exported = list({row[self.model.id_column]: row for row in written}.values())
        lines = [[row.get(column, "") for column in columns] for row in written]
        return ChangeFile(key, key_time, self.body(number, [columns, *self.spoilt(number, columns, lines)]))

    def key(self, number: int, time: datetime) -> tuple[str, datetime]:
        """Name a file in one of the forms that exporters write; the one with an offset needs the key undamaged."""
        match number % 10:
            case 3:
                return f"{time:%Y-%m-%d %H:%M:%S}+03:00.csv", time
            case 6:
                return f"{time:%Y%m%d_%H%M%S}.csv", time
            case _:
                return f"{time:%Y-%m-%dT%H%M%S}.csv", time

    def columns(self, _number: int) -> list[str]:
        return [self.model.id_column, *(column for column in COLUMNS if column in self._others())]

    def _others(self) -> frozenset[str]:
        return self.model.columns - {self.model.id_column}

    def kinds(self, rows: int) -> list[str]:
        """Say what each row is to be."""
        counts = {kind: max(1, int(share * rows)) for kind, share in self.shares.items()}
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        kinds += ["update"] * (rows - len(kinds))
        self.random.shuffle(kinds)
        return kinds

    def spoilt(self, number: int, columns: list[str], lines: list[list[str]]) -> list[list[str]]:
        """Add a few rows that cannot be tickets, and the sentinel of an export that was cut."""
        rows, found = len(lines), list(lines)
        if number % _BAD_ROWS_EVERY == 1:
            for bad in self._bad_rows(columns, lines):
                found.insert(self.random.randrange(len(found)), bad)
        if number % _SENTINEL_EVERY == 2 and self.model.sentinel:  # noqa: PLR2004 - any but the others' will do
            found.append([f"{self.model.sentinel}: {rows} of {rows + 917} rows written", *[""] * (len(columns) - 1)])
        return found

    def body(self, _number: int, lines: Iterable[Sequence[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue().encode()

    def stamp(self, moment: datetime, form: int = 0) -> str:
        """EAT; the first forms are with seconds, ISO 8601 with the zone, to the minute."""
        return moment.strftime(self.stamps[form])

    def any_stamp(self, moment: datetime) -> str:
        return self.stamp(moment, self.random.randrange(len(self.stamps)))

    def change(self, kind: str, now: datetime) -> Row:
        if kind == "alarm" and self.model.alarm:
            return self.alarm(now) | {self.model.alarm: self.random.choice(_YES), "is_auto_created": "true"}
        if kind == "update" and self._open:
            place = self.random.randrange(len(self._open))
            self._open[place] |= self.progress(now)
            return self._open[place]
        if kind == "close" and self._open:
            ticket = self._open.pop(self.random.randrange(len(self._open)))
            ticket |= {"closed_at": self.any_stamp(self.closed_at(ticket, now))} | self.closure()
            self._closed.append(ticket)
            return ticket
        if kind == "correct" and self._closed:
            ticket = self.random.choice(self._closed)
            ticket |= self.closure() | {"owner": self.random.choice(_OWNERS)}
            return ticket
        if kind == "reopen" and self._closed:
            ticket = self._closed.pop(self.random.randrange(len(self._closed)))
            ticket |= {"closed_at": "", "mttr": "", "sla_status": "", "is_auto_closed": "false"} | self.progress(now)
            self._open.append(ticket)
            return ticket
        if self._known == self._tickets:
            return self.change("update" if self._open else "correct", now)
        self._known += 1
        ticket = self.new(now)
        self._open.append(ticket)
        return ticket

    def alarm(self, now: datetime) -> Row:
        return self.new(now)

    def new(self, now: datetime) -> Row:
        pick = self.random
        self._last_id += pick.randrange(1, 4)
        cluster = pick.choice(list(CLUSTERS))
        region, latitude, longitude, estates = CLUSTERS[cluster]
        has_place = pick.random() < 0.25  # noqa: PLR2004 - most tickets wait for the geocoder
        created = now - timedelta(minutes=pick.randrange(5, 600))
        code = f"GPON-{cluster}-OLT{pick.randrange(1, 9):02}-FAT{pick.randrange(1, 400):03}"
        return {
            self.model.id_column: f"{self.model.name.upper()}{self._last_id:07}",
            "bucket": pick.choice(("field", "noc", "customer")),
            "is_actionable": pick.choice(_YES if pick.random() < 0.8 else _NO),  # noqa: PLR2004
            "cluster": cluster,
            "region": region,
            "location_name": f"{code} {pick.choice(estates)}",
            "created_at_service": "" if pick.random() < 0.3 else self.any_stamp(created),  # noqa: PLR2004
            "first_seen_at": self.stamp(now),
            "source_created_at": self.stamp(created + timedelta(minutes=3)),
            "latitude": f"{latitude + pick.uniform(-0.02, 0.02):.6f}" if has_place else "",
            "longitude": f"{longitude + pick.uniform(-0.02, 0.02):.6f}" if has_place else "",
            "service_type": "FTTH",
            "is_alarm": pick.choice(_NO),
            "is_auto_created": "false",
            "is_auto_closed": "false",
            "source_s3_bucket": "isp-exports",
            "department": "Technical Operations",
            "source_type": self.model.name.upper(),
        } | self.progress(now)

    def progress(self, now: datetime) -> Row:
        normalized, raw = self.random.choice(_OPEN_STATUSES)
        visit = now + timedelta(hours=self.random.randrange(1, 48))
        return {
            "normalized_status": normalized,
            "raw_status": raw,
            "assigned_team": self.random.choice(_TEAMS),
            "owner": self.random.choice(_OWNERS),
            "scheduled_at": self.stamp(visit, 1) if normalized == "pending" else "",
        }

    def closed_at(self, _ticket: Row, now: datetime) -> datetime:
        return now - timedelta(seconds=self.random.randrange(1200))

    def closure(self) -> Row:
        minutes = self.random.randrange(20, 4000)
        return {
            "normalized_status": "closed",
            "raw_status": self.random.choice(("Closed - Resolved", "Closed - No Fault Found")),
            "mttr": self.random.choice((f"{minutes}", f"{minutes}.5", f"{minutes}.25")),
            "sla_status": "breached" if minutes > 2880 else "within",  # noqa: PLR2004 - 48 hours
            "is_auto_closed": self.random.choice(("true", "false")),
        }

    def _bad_rows(self, columns: list[str], lines: list[list[str]]) -> list[list[str]]:
        """Give one row with a comma too many, one with a foreign timestamp, one without an id."""
        foreign, nameless = list(self.random.choice(lines)), list(self.random.choice(lines))
        foreign[columns.index(self.model.times[-1])] = "31/06/2026 14:20"
        nameless[columns.index(self.model.id_column)] = ""
        return [[*self.random.choice(lines), "Kasarani"], foreign, nameless]

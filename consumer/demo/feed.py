"""A Kenyan internet provider's INC feed, made up from a seed: the same arguments give the same bytes. Pure."""

import csv
import io
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from publisher.arrivals.keys import EAT

COLUMNS = (
    "ticket_id", "normalized_status", "raw_status", "bucket", "is_actionable", "cluster", "region", "location_name",
    "assigned_team", "owner", "sla_status", "mttr", "created_at_service", "scheduled_at", "closed_at", "first_seen_at",
    "last_seen_at", "source_created_at", "source_updated_at", "latitude", "longitude", "service_type", "is_alarm",
    "is_auto_created", "is_auto_closed", "week_start", "week_end", "source_s3_bucket", "source_s3_key",
    "source_snapshot_id", "department", "source_type",
)  # fmt: skip
FEWEST_FILES = 8
FEWEST_ROWS = 20

_EVERY = timedelta(minutes=20)
_CONTENT_LAG = timedelta(days=2)
_SENTINEL_EVERY, _BAD_ROWS_EVERY = 7, 5
_SHARES = {"new": 0.42, "update": 0.33, "close": 0.12, "reopen": 0.03, "alarm": 0.05, "repeat": 0.05}

_CLUSTERS = {
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
class ChangeFile:
    """One file of the feed: its name below `changes/`, the instant that the name stands for, its bytes."""

    name: str
    time: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Feed:
    """Files in the order in which they are put, which is not the order of their names: the last one is late."""

    files: tuple[ChangeFile, ...]
    announced_twice: str
    """Name of the file whose event is sent once more."""
    not_utf8: str
    late: str


def make_feed(*, files: int, rows: int, seed: int, until: datetime) -> Feed:
    """Make `files` files of `rows` rows and a few bad ones, one for every 20 minutes, the last for `until`."""
    provider = _Provider(Random(seed))
    first = until.astimezone(EAT).replace(second=0, microsecond=0) - (files - 1) * _EVERY
    made = [provider.export(number, first + number * _EVERY, rows) for number in range(files)]
    late, broken, twice = made[files // 3], made[files // 2], made[files * 3 // 4]
    # An owner's name in Latin-1 amid UTF-8.
    made[files // 2] = replace(broken, body=broken.body.replace(b"Fibre", b"Fibr\xe9", 1))
    made.remove(late)
    return Feed((*made, late), announced_twice=twice.name, not_utf8=broken.name, late=late.name)


class _Provider:
    """The tickets as the source system has them, and its export of what changed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._last_id = 480_000
        self._open: list[Row] = []
        self._closed: list[Row] = []
        self._exported: list[Row] = []

    def export(self, number: int, time: datetime, rows: int) -> ChangeFile:
        name = _name(number, time)
        now = time - _CONTENT_LAG
        # Exports overlap: some rows of the last one come again as they were, before what changed since.
        kinds = self._kinds(rows)
        overlap = kinds.count("repeat") if self._exported else 0
        written = self._random.sample(self._exported, overlap)
        for kind in kinds[overlap:]:
            row = self._change(kind, now) | {
                "last_seen_at": _stamp(now),
                "source_updated_at": _stamp(now - timedelta(minutes=self._random.randrange(20))),
                "week_start": f"{now - timedelta(days=now.weekday()):%Y-%m-%d}",
                "week_end": f"{now + timedelta(days=6 - now.weekday()):%Y-%m-%d}",
                "source_s3_key": f"automations/inc/snapshots/{name}",
                "source_snapshot_id": f"snap-{number:05}",
            }
            written.append(row)
        self._exported = list({row["ticket_id"]: row for row in written}.values())
        lines = [[row.get(column, "") for column in COLUMNS] for row in written]
        if number % _BAD_ROWS_EVERY == 1:
            for bad in self._bad_rows(lines):
                lines.insert(self._random.randrange(len(lines)), bad)
        if number % _SENTINEL_EVERY == 2:  # noqa: PLR2004 - any but the others' will do
            lines.append([f"EXPORT STOPPED: {rows} of {rows + 917} rows written", *[""] * (len(COLUMNS) - 1)])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
        return ChangeFile(name, time, text.getvalue().encode())

    def _kinds(self, rows: int) -> list[str]:
        """Say what each row is to be, the repeated ones first."""
        counts = {kind: max(1, int(share * rows)) for kind, share in _SHARES.items()}
        repeats = counts.pop("repeat")
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        kinds += ["update"] * (rows - repeats - len(kinds))
        self._random.shuffle(kinds)
        return ["repeat"] * repeats + kinds

    def _change(self, kind: str, now: datetime) -> Row:
        if kind == "alarm":
            return self._new(now) | {"is_alarm": self._random.choice(_YES), "is_auto_created": "true"}
        if kind == "update" and self._open:
            place = self._random.randrange(len(self._open))
            self._open[place] |= self._progress(now)
            return self._open[place]
        if kind == "close" and self._open:
            ticket = self._open.pop(self._random.randrange(len(self._open))) | self._closure(now)
            self._closed.append(ticket)
            return ticket
        if kind == "reopen" and self._closed:
            ticket = self._closed.pop(self._random.randrange(len(self._closed)))
            ticket |= {"closed_at": "", "mttr": "", "sla_status": "", "is_auto_closed": "false"} | self._progress(now)
            self._open.append(ticket)
            return ticket
        ticket = self._new(now)
        self._open.append(ticket)
        return ticket

    def _new(self, now: datetime) -> Row:
        pick = self._random
        self._last_id += pick.randrange(1, 4)
        cluster = pick.choice(list(_CLUSTERS))
        region, latitude, longitude, estates = _CLUSTERS[cluster]
        has_place = pick.random() < 0.25  # noqa: PLR2004 - most tickets wait for the geocoder
        created = now - timedelta(minutes=pick.randrange(5, 600))
        code = f"GPON-{cluster}-OLT{pick.randrange(1, 9):02}-FAT{pick.randrange(1, 400):03}"
        return {
            "ticket_id": f"INC{self._last_id:07}",
            "bucket": pick.choice(("field", "noc", "customer")),
            "is_actionable": pick.choice(_YES if pick.random() < 0.8 else _NO),  # noqa: PLR2004
            "cluster": cluster,
            "region": region,
            "location_name": f"{code} {pick.choice(estates)}",
            "created_at_service": "" if pick.random() < 0.3 else _stamp(created, pick.randrange(3)),  # noqa: PLR2004
            "first_seen_at": _stamp(now),
            "source_created_at": _stamp(created + timedelta(minutes=3)),
            "latitude": f"{latitude + pick.uniform(-0.02, 0.02):.6f}" if has_place else "",
            "longitude": f"{longitude + pick.uniform(-0.02, 0.02):.6f}" if has_place else "",
            "service_type": "FTTH",
            "is_alarm": pick.choice(_NO),
            "is_auto_created": "false",
            "is_auto_closed": "false",
            "source_s3_bucket": "isp-exports",
            "department": "Technical Operations",
            "source_type": "INC",
        } | self._progress(now)

    def _progress(self, now: datetime) -> Row:
        normalized, raw = self._random.choice(_OPEN_STATUSES)
        visit = now + timedelta(hours=self._random.randrange(1, 48))
        return {
            "normalized_status": normalized,
            "raw_status": raw,
            "assigned_team": self._random.choice(_TEAMS),
            "owner": self._random.choice(_OWNERS),
            "scheduled_at": _stamp(visit, 1) if normalized == "pending" else "",
        }

    def _closure(self, now: datetime) -> Row:
        minutes = self._random.randrange(20, 4000)
        return {
            "normalized_status": "closed",
            "raw_status": self._random.choice(("Closed - Resolved", "Closed - No Fault Found")),
            "closed_at": _stamp(now - timedelta(seconds=self._random.randrange(1200)), self._random.randrange(3)),
            "mttr": self._random.choice((f"{minutes}", f"{minutes}.5", f"{minutes}.25")),
            "sla_status": "breached" if minutes > 2880 else "within",  # noqa: PLR2004 - 48 hours
            "is_auto_closed": self._random.choice(("true", "false")),
        }

    def _bad_rows(self, lines: list[list[str]]) -> list[list[str]]:
        """Give one row with a comma too many, one with a foreign timestamp, one without an id."""
        foreign, nameless = list(self._random.choice(lines)), list(self._random.choice(lines))
        foreign[COLUMNS.index("last_seen_at")] = "31/06/2026 14:20"
        nameless[COLUMNS.index("ticket_id")] = ""
        return [[*self._random.choice(lines), "Kasarani"], foreign, nameless]


def _name(number: int, time: datetime) -> str:
    """Name a file in one of the forms that exporters write; the one with an offset needs the key undamaged."""
    match number % 10:
        case 3:
            return f"{time:%Y-%m-%d %H:%M:%S}+03:00.csv"
        case 6:
            return f"{time:%Y%m%d_%H%M%S}.csv"
        case _:
            return f"{time:%Y-%m-%dT%H%M%S}.csv"


def _stamp(moment: datetime, form: int = 0) -> str:
    """EAT; forms 0 to 2: with seconds, ISO 8601 with the zone, to the minute."""
    return moment.strftime(("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+03:00", "%Y-%m-%d %H:%M")[form])

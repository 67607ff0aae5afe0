"""Change files: single ones written by hand, and random feeds of many files about the same tickets."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.acceptance.reference import EAT
from tests.stage.store import CHANGES

COLUMNS = (
    "ticket_id",
    "normalized_status",
    "raw_status",
    "is_actionable",
    "cluster",
    "region",
    "location_name",
    "assigned_team",
    "owner",
    "sla_status",
    "mttr",
    "created_at_service",
    "closed_at",
    "source_updated_at",
    "latitude",
    "longitude",
    "is_alarm",
)
START = datetime(2026, 6, 1, 6, tzinfo=EAT)
KEY_FORMS = ("%Y-%m-%dT%H%M%S", "%Y-%m-%dT%H-%M-%S", "%Y%m%d_%H%M%S", "%Y-%m-%d %H:%M:%S+03:00")
TIME_FORMS = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.25", "%Y-%m-%dT%H:%M:%S+03:00")
CLUSTERS = ("Westlands", "Kasarani", "Quarry Road", "Nyali", "")
PLACES = ("Gate B", 'The "Old" Mill', "Two\nlines", "Ruaka, phase 2", "Kīsumu Ndogo", "")
BAD_TIMES = ("yesterday", "2026-02-30 10:00", "25-06-2026 14:20", "2026-06-25 25:00")


@dataclass(frozen=True)
class ChangeFile:
    key: str
    key_time: datetime
    body: bytes
    version: int = 0
    """Of two files under one key, the one with the greater version was put later."""


class OddKeys:
    """Keys with everything in them that a store encodes in its own way; another set for each number below 60.

    Some are no change files by their name; they are announced all the same, and are not to be taken for others.
    """

    def __init__(self, number: int) -> None:
        second = f"{number:02}"
        self.applied = [
            f"{CHANGES}{name}.csv"
            for name in (
                f"2026-06-25T1420{second}",
                f"2026-06-25 14:21:{second}+03:00",
                f"2026-06-25 14:22:{second}+03:00",
            )
        ]
        self.ignored = [
            f"{CHANGES}{name}.csv"
            for name in (
                f"2026-06-25 14:21:{second} 03:00",
                f"2026-06-25+14:21:{second}+03:00",
                f"2026-06-25 14:22:{second}%2B03:00",
                f"{second} ü ☂ 100%",
            )
        ]
        self.all = [*self.applied, *self.ignored]


def csv(rows: Iterable[Mapping[str, str]], columns: Iterable[str] = COLUMNS) -> bytes:
    names = tuple(columns)
    return lines([names, *([row.get(name, "") for name in names] for row in rows)])


def lines(rows: Iterable[Iterable[str]]) -> bytes:
    return "".join(",".join(_quoted(value) for value in row) + "\n" for row in rows).encode()


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if set(value) & set(',"\n\r') else value


def key_at(minutes: float, form: str = KEY_FORMS[0]) -> str:
    """The key of a file that the exporter wrote so many minutes after the start."""
    return f"{CHANGES}{(START + timedelta(minutes=minutes)).strftime(form)}.csv"


def ticket(name: str, **values: str) -> dict[str, str]:
    """A row that every rule accepts."""
    return {
        "ticket_id": name,
        "normalized_status": "open",
        "raw_status": "In Progress",
        "is_actionable": "TRUE",
        "cluster": "Westlands",
        "region": "NAIROBI",
        "location_name": "Gate B",
        "created_at_service": "2026-05-30 10:15",
        "is_alarm": "false",
        **values,
    }


class RandomFeed:
    """Files about a few hundred tickets, with everything in them that a row can be."""

    def __init__(self, seed: int, tickets: int) -> None:
        self.random = random.Random(seed)
        self.names = [f"INC{number:07}" for number in range(tickets)]
        # A ticket has coordinates in all of its rows or in none: what a gap means is a question of its own.
        self.placed = set(self.random.sample(self.names, tickets // 3))

    def files(self, count: int, rows: int) -> list[ChangeFile]:
        return [self._file(index, rows) for index in range(count)]

    def _file(self, index: int, rows: int) -> ChangeFile:
        # Three files in a hundred share their instant with the one before, so the key has to decide.
        when = START + timedelta(minutes=7 * (index - (index % 33 == 1)))
        key = f"{CHANGES}{when.strftime(KEY_FORMS[index % 4])}{'.5' if index % 4 == 3 else ''}.csv"
        key_time = when
        if index % 4 == 3:
            key = f"{CHANGES}{when:%Y-%m-%d %H:%M:%S}.5+03:00.csv"
            key_time = when + timedelta(milliseconds=500)
        columns = [*COLUMNS, *(["note"] if index % 5 == 0 else [])]
        self.random.shuffle(columns)
        found = [columns, *(self._row(columns, when) for _ in range(self.random.randint(rows - 3, rows + 3)))]
        body = lines(found)
        if index % 7 == 0:
            body = body.replace(b"\n", b"\r\n")
        return ChangeFile(key, key_time, b"\xef\xbb\xbf" + body if index % 10 == 0 else body)

    def _row(self, columns: list[str], when: datetime) -> list[str]:
        row = self._ticket(when)
        kind = self.random.random()
        if kind < 0.08:
            row["is_alarm"] = self.random.choice(("true", "T", "1"))
        elif kind < 0.11:
            row = {"ticket_id": "EXPORT STOPPED: row limit reached"}
        elif kind < 0.19:
            return self._bad(row, columns)
        return [row.get(name, "") for name in columns]

    def _bad(self, row: dict[str, str], columns: list[str]) -> list[str]:
        spoilt: dict[str, str] = self.random.choice(
            [
                {"ticket_id": ""},
                {"owner": "nul\x00byte"},
                {"created_at_service": self.random.choice(BAD_TIMES)},
                {"is_actionable": "maybe"},
                {"mttr": "soon"},
                {},
            ]
        )
        values = [(row | spoilt).get(name, "") for name in columns]
        return values if spoilt else values[: self.random.choice((2, len(values) - 1))]

    def _ticket(self, when: datetime) -> dict[str, str]:
        pick = self.random.choice
        name = pick(self.names)
        closed = self.random.random() < 0.3
        row = ticket(
            name,
            normalized_status="closed" if closed else pick(("open", "pending")),
            raw_status=pick(("Closed", "Resolved")) if closed else pick(("New", "in progress", "Reopened")),
            is_actionable=pick(("true", "FALSE", "t", "0", "")),
            cluster=pick(CLUSTERS),
            region=pick(("Nairobi", "COAST", "western", "")),
            location_name=pick(PLACES),
            assigned_team=pick(("Team 1", "Team 2", "")),
            owner=pick(("Wanjikũ", "Otieno", "")),
            source_updated_at=self._time(when),
        )
        if closed:
            # Few moments, so that the same closure stands in several files with other details.
            moment = START + timedelta(days=pick((1, 2, 3)), hours=int(name[3:]) % 5)
            row |= {"closed_at": self._time(moment), "mttr": pick(("90", "90.5", "12.49", ""))}
        if name in self.placed:
            row |= {"latitude": f"{self.random.uniform(-4, 4):.5f}", "longitude": "36.82"}
        return row

    def _time(self, when: datetime) -> str:
        return when.strftime(self.random.choice(TIME_FORMS))

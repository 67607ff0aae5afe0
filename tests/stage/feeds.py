"""Change files: single ones written by hand, and random feeds of many files about the same tickets."""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from consumer.demo.feed import CLUSTERS, Exporter
from consumer.demo.model import INC, FeedModel
from consumer.demo.oracle import EAT, ChangeFile
from tests.stage.store import CHANGES

COLUMNS = (
    "ticket_id",
    "normalized_status",
    "raw_status",
    "bucket",
    "is_actionable",
    "cluster",
    "region",
    "location_name",
    "assigned_team",
    "owner",
    "sla_status",
    "mttr",
    "created_at_service",
    "scheduled_at",
    "closed_at",
    "first_seen_at",
    "last_seen_at",
    "source_created_at",
    "source_updated_at",
    "latitude",
    "longitude",
    "is_alarm",
)
LEFT_OUT = {"department", "source_type", "week_start", "week_end"}
"""Columns that a random feed does not name, as a feed need not."""
START = datetime(2026, 6, 1, 6, tzinfo=EAT)
KEY_FORMS = ("%Y-%m-%dT%H%M%S", "%Y-%m-%dT%H-%M-%S", "%Y%m%d_%H%M%S", "%Y-%m-%d %H:%M:%S+03:00")
TIME_FORMS = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.25", "%Y-%m-%dT%H:%M:%S+03:00")
PLACES = ("Gate B", 'The "Old" Mill', "Two\nlines", "Ruaka, phase 2", "Kīsumu Ndogo", "")
BAD_TIMES = ("yesterday", "2026-02-30 10:00", "25-06-2026 14:20", "2026-06-25 25:00")


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


class RandomFeed(Exporter):
    """An exporter whose files are about few tickets, in every form that a file or a row can have."""

    shares: ClassVar[dict[str, float]] = {
        "new": 0.12, "update": 0.32, "close": 0.18, "correct": 0.12, "reopen": 0.16, "alarm": 0.09, "repeat": 0.01,
    }  # fmt: skip
    stamps: ClassVar[tuple[str, ...]] = TIME_FORMS

    def __init__(self, seed: int, tickets: int, model: FeedModel = INC, folder: str = CHANGES) -> None:
        super().__init__(random.Random(seed), model, tickets)
        self._folder = folder

    def files(self, count: int, rows: int) -> list[ChangeFile]:
        return [self._file(index, rows) for index in range(count)]

    def _file(self, index: int, rows: int) -> ChangeFile:
        # Three files in a hundred share their instant with the one before, so the key has to decide.
        when = START + timedelta(minutes=7 * (index - (index % 33 == 1)))
        return self.export(index, when, self.random.randint(rows - 3, rows + 3))

    def key(self, number: int, time: datetime) -> tuple[str, datetime]:
        if number % 4 == 3:
            return f"{self._folder}{time:%Y-%m-%d %H:%M:%S}.5+03:00.csv", time + timedelta(milliseconds=500)
        return f"{self._folder}{time.strftime(KEY_FORMS[number % 4])}.csv", time

    def columns(self, number: int) -> list[str]:
        columns = [name for name in super().columns(number) if name not in LEFT_OUT]
        columns += ["note"] if number % 5 == 0 else []
        self.random.shuffle(columns)
        return columns

    def kinds(self, rows: int) -> list[str]:
        return self.random.choices(list(self.shares), list(self.shares.values()), k=rows)

    def body(self, number: int, lines_: Iterable[Sequence[str]]) -> bytes:
        body = lines(lines_)
        if number % 7 == 0:
            body = body.replace(b"\n", b"\r\n")
        return b"\xef\xbb\xbf" + body if number % 10 == 0 else body

    def spoilt(self, _number: int, columns: list[str], lines: list[list[str]]) -> list[list[str]]:
        """Some rows are bad, though never so many that the file fails for it."""
        found, bad_left = [], len(lines) // 3
        for line in lines:
            chance = self.random.random()
            if chance < 0.03 and self.model.sentinel:
                cut = {self.model.id_column: f"{self.model.sentinel}: row limit reached"}
                found.append([cut.get(name, "") for name in columns])
            elif chance < 0.11 and bad_left:
                bad_left -= 1
                found.append(self._bad(dict(zip(columns, line, strict=True)), columns))
            else:
                found.append(line)
        return found

    def _bad(self, row: dict[str, str], columns: list[str]) -> list[str]:
        spoilt: dict[str, str] = self.random.choice(
            [
                {self.model.id_column: ""},
                {"owner": "nul\x00byte"},
                {"created_at_service": self.random.choice(BAD_TIMES)},
                {"is_actionable": "maybe"},
                {"mttr": "soon"},
                {},
            ]
        )
        values = [(row | spoilt).get(name, "") for name in columns]
        # Of several lines, each would be a reject of its own.
        return values if spoilt else [*(value.replace("\n", " ") for value in values), "one too many"]

    def alarm(self, now: datetime) -> dict[str, str]:
        """Of a ticket that is there, and that it must not touch."""
        return self.change("update", now)

    def progress(self, now: datetime) -> dict[str, str]:
        pick = self.random.choice
        return super().progress(now) | {
            "normalized_status": pick(("open", "pending")),
            "raw_status": pick(("New", "in progress", "Reopened")),
            "is_actionable": pick(("true", "FALSE", "t", "0", "")),
            "cluster": pick((*CLUSTERS, "")),
            "region": pick(("Nairobi", "COAST", "western", "")),
            "location_name": pick(PLACES),
            "owner": pick(("Wanjikũ", "Otieno", "")),
        }

    def closure(self) -> dict[str, str]:
        return super().closure() | {"mttr": self.random.choice(("90", "90.5", "12.49", ""))}

    def closed_at(self, ticket: dict[str, str], _now: datetime) -> datetime:
        """Few moments, so that a closure that was undone comes again with other details."""
        number = int(ticket[self.model.id_column].removeprefix(self.model.name.upper()))
        return START + timedelta(days=self.random.choice((1, 2, 3)), hours=number % 5)

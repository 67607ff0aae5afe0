"""What the exporter writes for the bench: rows of a real log where there is one, of the demo's feed otherwise.

Every file has all columns that the exporter always writes, and no row that a plain script would have to know better
than to load: no alarms, no bad rows, and status and region in the case that a ticket has in the end.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import ClassVar

from consumer.demo.feed import Exporter
from tests.acceptance.test_real_input import NAME, ticket_row
from tests.stage.feeds import START, lines

Row = dict[str, str]
COLUMNS = tuple(Exporter(Random(0)).columns(0))


class _News(Exporter):
    """Each row a ticket of its own."""

    shares: ClassVar[dict[str, float]] = {"new": 1.0}


class _Changes(Exporter):
    """Tickets come, change, close and open again."""

    shares: ClassVar[dict[str, float]] = {
        "new": 0.44, "update": 0.33, "close": 0.13, "correct": 0.02, "reopen": 0.03, "repeat": 0.05,
    }  # fmt: skip


@dataclass(frozen=True)
class Feed:
    """Where rows come from; `log` is None for the demo's feed."""

    log: tuple[Row, ...] | None

    @property
    def name(self) -> str:
        return "the demo's feed" if self.log is None else f"a real incident log ({len(self.log)} rows, repeated)"

    def tickets(self, count: int) -> list[Row]:
        """So many rows, each of another ticket."""
        if self.log is None:
            return list(itertools.islice(self._made(_News, count), count))
        rows = itertools.islice(itertools.cycle(self.log), count)
        return [row | {"ticket_id": f"INC{number:08}"} for number, row in enumerate(rows)]

    def changes(self, rows: int) -> Iterator[list[Row]]:
        """Files of so many rows each, one after the other, in which the tickets meet again. They never end."""
        found = self._made(_Changes, rows) if self.log is None else self._of_log()
        while True:
            yield list(itertools.islice(found, rows))

    def _of_log(self) -> Iterator[Row]:
        assert self.log is not None
        for cycle in itertools.count():
            for row in self.log:
                yield row | {"ticket_id": f"{row['ticket_id']}{cycle:03}"}

    @staticmethod
    def _made(exporter_class: type[Exporter], rows: int) -> Iterator[Row]:
        exporter = exporter_class(Random(20260601))
        for number in itertools.count():
            file = exporter.export(2, START + timedelta(minutes=number), rows)
            for row in csv.DictReader(io.StringIO(file.body.decode(), newline="")):
                if not row["ticket_id"].startswith("EXPORT STOPPED"):
                    yield _in_case(row)


def feed_of(folder: Path) -> Feed:
    path = folder / NAME
    if not path.exists():
        return Feed(None)
    with path.open(encoding="utf-8-sig", newline="") as log:
        rows = [_in_case(ticket_row(row)) for row in csv.DictReader(log)]
    return Feed(tuple(sorted(rows, key=lambda row: row["source_updated_at"])))


def changed(rows: Sequence[Row]) -> list[Row]:
    """The same tickets, each with another owner and seen again since."""
    return [
        row | {"owner": f"{row.get('owner') or 'Nobody'} II", "last_seen_at": "2026-06-02 08:30:00"} for row in rows
    ]


def body(rows: Sequence[Row]) -> bytes:
    return lines([COLUMNS, *([row.get(name, "") for name in COLUMNS] for row in rows)])


def _in_case(row: Row) -> Row:
    return row | {"raw_status": row["raw_status"].upper(), "region": row["region"].lower()}

"""The comparison: what is there against what the feed implies, one check for each promise. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consumer.demo.feed import MadeFeed
from consumer.demo.model import FeedModel
from consumer.demo.observing import Tables
from consumer.demo.oracle import Oracle

_DIFFERENCES_SHOWN = 3
_COUNTED = {
    "read": "rows_read",
    "superseded": "rows_superseded",
    "rejected": "rows_rejected",
    "alarms": "alarms_dropped",
    "sentinels": "sentinels_dropped",
    "inserted": "rows_inserted",
}
"""The ledger's sums by the demo's names and the oracle's."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the services hold at the end; keys without their folder."""

    tables: Tables
    rows: dict[str, int]
    dead: list[str]
    processed: dict[str, bytes]
    waiting: list[str]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison; `differences` has the first ones in words."""

    name: str
    compared: int
    different: int
    differences: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.different == 0


def check(feed: MadeFeed, expected: Oracle, found: Holdings) -> list[Check]:
    """Compare everything that is of the feed; the order is that of the way of a file, backwards."""
    name = feed.model.name
    tables, tickets, sums = found.tables, expected.tickets(), expected.sums()
    applied = {file.key: file.body for file in feed.files if file.key not in expected.dead}
    states = {key: ["done"] for key in applied} | {key: ["failed"] for key in expected.dead}
    rows = {count: sums[counted] for count, counted in _COUNTED.items()}
    rows["updated + unchanged + stale"] = sums["accepted"] - sums["rows_superseded"] - sums["rows_inserted"]
    written = sum(found.rows[count] for count in ("updated", "unchanged", "stale"))
    rows_found = {count: found.rows.get(count, written) for count in rows}
    raw = {key: values["raw"] for key, values in tickets.items()}
    typed = {key: _typed(feed.model, values) for key, values in tickets.items()}
    closures = [compare("tickets.closure_events", expected.closures(), tables.closures)] if feed.model.closed_at else []
    decided = tables.files.get(feed.late, ([], []))[1]
    return [
        compare(f"tickets.{name}: raw", raw, tables.raw),
        compare(f"tickets.{name}: typed columns", typed, tables.typed),
        *closures,
        compare(f"{name}: rejected rows: file, line, text", expected.rejects, tables.rejects),
        compare(f"{name}: rows counted in the ledger", rows, rows_found),
        compare(
            f"{name}: each file once in the ledger, to its end",
            states,
            {key: file[0] for key, file in tables.files.items()},
        ),
        compare(f"{name}: the late file", {feed.late: ["late"]}, {feed.late: decided}),
        compare(f"{name}: dead letters", Counter(expected.dead), Counter(found.dead)),
        compare(f"{name}/processed/: every byte applied", applied, found.processed),
        compare(f"{name}/changes/: only what is dead", dict.fromkeys(expected.dead), dict.fromkeys(found.waiting)),
    ]


def check_others(files: list[str], dead: list[str]) -> Check:
    """Of what is of none of the feeds that are played, there is to be nothing: keys in the ledger and of letters."""
    return compare("nothing of another feed", {"files": [], "dead letters": []}, {"files": files, "dead letters": dead})


def _typed(model: FeedModel, values: dict[str, Any]) -> dict[str, Any]:
    """The typed columns; a place is the feed's own, as no gazetteer has any."""
    typed = {name: value for name, value in values.items() if name not in {"raw", model.id_column}}
    return typed | {"geo_source": None if typed["latitude"] is None else "feed"}


def compare(name: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> Check:
    """Compare entry by entry."""
    different = [
        key
        for key in [*expected, *(key for key in found if key not in expected)]
        if key not in expected or key not in found or expected[key] != found[key]
    ]
    shown = tuple(_difference(key, expected, found) for key in different[:_DIFFERENCES_SHOWN])
    return Check(name, len(expected), len(different), shown)


def _difference(key: object, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> str:
    name = " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
    if key not in found:
        return f"{name}: missing"
    if key not in expected:
        return f"{name}: not expected, found {_short(found[key])}"
    wanted, got = expected[key], found[key]
    if isinstance(wanted, dict) and isinstance(got, dict):
        columns = [column for column in wanted | got if wanted.get(column) != got.get(column)]
        parts = [f"{column} is {_short(got.get(column))}, not {_short(wanted.get(column))}" for column in columns[:3]]
        return f"{name}: {'; '.join(parts)}"
    return f"{name}: is {_short(got)}, not {_short(wanted)}"


def _short(value: object) -> str:
    text = f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a terminal

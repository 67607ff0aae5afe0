"""Whether a database holds what the reference says."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from tests.acceptance.feeds import ChangeFile
from tests.acceptance.reference import CLOSURE, Reference
from tests.stage.stage import Stage

NOT_OF_THE_FEED = ("geom", "geo_source", "geog", "ingested_at")
# Columns that a feed may leave out.
EMPTY = dict.fromkeys(("scheduled_at", "first_seen_at", "last_seen_at", "bucket"))


def tickets(stage: Stage) -> dict[str, dict[str, Any]]:
    rows = stage.query("SELECT * FROM tickets.inc")
    return {
        row["ticket_id"]: {name: value for name, value in row.items() if name not in NOT_OF_THE_FEED} for row in rows
    }


def closures(stage: Stage) -> dict[tuple[str, datetime], dict[str, Any]]:
    rows = stage.query("SELECT * FROM tickets.closure_events")
    return {(row["ticket_id"], row["closed_at"]): {name: row[name] for name in CLOSURE} for row in rows}


def captures(stage: Stage) -> list[dict[str, Any]]:
    rows = stage.query("SELECT * FROM tickets.inc_daily_snapshot ORDER BY 1, 2, 3")
    return [{**row, "captured_at": None} for row in rows]


def sums(stage: Stage, keys: Iterable[str] | None = None) -> dict[str, int]:
    """What the ledger counted, over all files or those of the keys."""
    among = None if keys is None else list(keys)
    (found,) = stage.query(
        """SELECT sum(rows_read)::int AS rows_read, sum(rows_rejected)::int AS rows_rejected,
                  sum(alarms_dropped)::int AS alarms_dropped, sum(sentinels_dropped)::int AS sentinels_dropped,
                  sum(rows_superseded)::int AS rows_superseded, sum(rows_inserted)::int AS rows_inserted,
                  sum(rows_inserted + rows_updated + rows_unchanged + rows_stale + rows_superseded)::int AS accepted
           FROM ingest.ledger WHERE %s::text[] IS NULL OR key = ANY(%s)""",
        among,
        among,
    )
    return found


def reference_of(files: Iterable[ChangeFile]) -> Reference:
    expected = Reference()
    for file in files:
        expected.read(file.key, file.key_time, file.body, file.version)
    return expected


def expected_tickets(expected: Reference) -> dict[str, dict[str, Any]]:
    return {name: EMPTY | row for name, row in expected.tickets().items()}


def expected_sums(expected: Reference) -> dict[str, int]:
    counts = dict.fromkeys(
        ("rows_read", "rows_rejected", "alarms_dropped", "sentinels_dropped", "rows_superseded"), 0
    ) | dict(expected.counts)
    return counts | {"rows_inserted": len(expected.tickets()), "accepted": len(expected.accepted)}


def assert_equals_reference(stage: Stage, files: Iterable[ChangeFile]) -> None:
    expected = reference_of(files)
    found, wanted = tickets(stage), expected_tickets(expected)
    assert found.keys() == wanted.keys()
    assert [(found[name], wanted[name]) for name in sorted(found) if found[name] != wanted[name]] == []
    assert closures(stage) == expected.closures()
    rejects = stage.query("SELECT key, line FROM ingest.rejects JOIN ingest.ledger USING (file_id)")
    assert {(row["key"], row["line"]) for row in rejects} == expected.rejects
    assert sums(stage) == expected_sums(expected)

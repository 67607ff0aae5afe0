"""Whether a database holds what the oracle says."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumer.demo.model import INC
from consumer.demo.oracle import ChangeFile, foretell
from tests.stage.stage import Stage

NOT_OF_THE_FEED = ("geom", "geo_source", "geog", "ingested_at")


@dataclass
class Verdict:
    """What differs from the oracle, and how bad that is."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Differences that are neither."""

    @property
    def differences(self) -> list[str]:
        return [
            f"{kind}: {what}"
            for kind, found in (("lost", self.lost), ("twice", self.twice), ("wrong", self.wrong))
            for what in found
        ]

    def compare(self, what: str, found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> None:
        """Take down whatever of the wanted is missing or has other values, and what nobody wanted."""
        self.compare_names(what, found.keys(), wanted.keys())
        for name, values in wanted.items():
            if name in found and found[name] != values:
                differ = {key: (found[name][key], want) for key, want in values.items() if found[name][key] != want}
                self.lost.append(f"{what} {name} has another content: (found, wanted) {differ}")

    def compare_names(self, what: str, found: Collection[Any], wanted: Collection[Any]) -> None:
        self.lost += [f"{what} {name}" for name in wanted if name not in found]
        self.twice += [f"{what} {name} that no file made" for name in found if name not in wanted]

    def compare_sums(self, what: str, found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
        for name, want in wanted.items():
            if found[name] != want:
                complaint = f"{name}{what} is {found[name]}, should be {want}"
                (self.lost if found[name] < want else self.twice).append(complaint)


def tickets(stage: Stage) -> dict[str, dict[str, Any]]:
    rows = stage.query("SELECT * FROM tickets.inc")
    return {
        row["ticket_id"]: {name: value for name, value in row.items() if name not in NOT_OF_THE_FEED} for row in rows
    }


def closures(stage: Stage) -> dict[tuple[str, datetime], dict[str, Any]]:
    rows, names = stage.query("SELECT * FROM tickets.closure_events"), (*INC.closure, *INC.closure_later)
    return {(row["ticket_id"], row["closed_at"]): {name: row[name] for name in names} for row in rows}


def rejects(stage: Stage) -> set[tuple[str, int]]:
    """File and line of each."""
    rows = stage.query("SELECT key, line FROM ingest.rejects JOIN ingest.ledger USING (file_id)")
    return {(row["key"], row["line"]) for row in rows}


def captures(stage: Stage) -> list[dict[str, Any]]:
    rows = stage.query("SELECT * FROM tickets.inc_daily_snapshot ORDER BY 1, 2, 3")
    return [{**row, "captured_at": None} for row in rows]


def is_captured(stage: Stage) -> bool:
    """Whether the last capture covered every file: one more finds the same."""
    captured = captures(stage)
    stage.query("SELECT tickets.capture_history()")
    return captures(stage) == captured


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


def etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def file_lines(stage: Stage) -> list[dict[str, Any]]:
    """What the consumers said of each delivery that they settled."""
    lines = (line for process in stage.processes for line in process.output().splitlines())
    # The last line of a killed process can be cut off.
    return [json.loads(line) for line in lines if '"event": "file"' in line and line.endswith("}")]


def applied_twice(stage: Stage, *decisions: str) -> list[str]:
    """The rows of each file take effect in one delivery: a consumer says so once, or was killed before it could."""
    applied = Counter(line["file_id"] for line in file_lines(stage) if line["decision"] in decisions)
    return [f"file {number} was applied {times} times" for number, times in applied.items() if times > 1]


def histories(stage: Stage) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
    """Where each content of each ticket began, and what it was: as it is kept, and as all rows that were told say."""
    kept = """
        SELECT ticket_id, telling, line, digest
        FROM (SELECT ticket.ticket_id, telling, line,
                     lead(jsonb_hash(boundary.raw), 1, jsonb_hash(ticket.raw)) OVER (
                         PARTITION BY ticket.ticket_id ORDER BY head, line) AS digest
              FROM tickets.inc AS ticket CROSS JOIN LATERAL ingest.boundaries('inc', ticket.ticket_id) AS boundary)
             AS later_ones
        UNION ALL
        SELECT ticket_id, written.telling, written.line, jsonb_hash(coalesce(first.raw, ticket.raw))
        FROM tickets.inc AS ticket
        LEFT JOIN LATERAL (SELECT * FROM ingest.boundaries('inc', ticket_id) LIMIT 1) AS first ON true
        CROSS JOIN LATERAL ingest.told_when_written(
            'inc', ticket_id, coalesce(first.written_at, ticket.ingested_at)) AS written
        WHERE first.telling IS NULL OR first.raw IS NOT NULL
    """
    said = """
        SELECT ticket_id, telling, line, digest
        FROM (SELECT row.ticket_id, telling_id AS telling, row.line, row.digest,
                     lag(row.digest) OVER (PARTITION BY row.ticket_id ORDER BY head, row.line) AS before
              FROM ingest.tellings JOIN ingest.told_rows USING (telling_id)
              CROSS JOIN LATERAL unnest(ticket_ids, lines, digests) AS row (ticket_id, line, digest)
              WHERE tellings.feed = 'inc') AS told
        WHERE digest IS DISTINCT FROM before
    """
    return {tuple(row.values()) for row in stage.query(kept)}, {tuple(row.values()) for row in stage.query(said)}


def assert_equals_oracle(stage: Stage, files: Iterable[ChangeFile]) -> None:
    expected = foretell(files)
    found, wanted = tickets(stage), expected.tickets()
    assert found.keys() == wanted.keys()
    assert [(found[name], wanted[name]) for name in sorted(found) if found[name] != wanted[name]] == []
    assert closures(stage) == expected.closures()
    assert rejects(stage) == expected.rejects.keys()
    assert sums(stage) == expected.sums()
    kept, said = histories(stage)
    assert kept == said


def of_the_run(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a dry run tells of each file and the run tells alike."""
    foreseen = {"dangers", "rejected_rows", "changed_tickets"}
    return [{name: told for name, told in file.items() if name not in foreseen} for file in files]

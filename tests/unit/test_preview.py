"""What a person reads of a preview."""

from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.commands.preview import print_preview
from consumer.commands.printing import words_of_notes
from consumer.upkeep.effects import (
    Blanked,
    Change,
    ChangedTicket,
    LinesJudged,
    Rejected,
    RejectedKind,
)
from consumer.upkeep.preview import ColumnJudged, Preview, RowCounts

NONE = dict.fromkeys(RowCounts.model_fields, 0)


def shown(capsys: pytest.CaptureFixture[str], verdict: str = "fine", **values: Any) -> str:
    told = {"file": "2026-06-25T142000.csv", "feed": "inc", "time": datetime(2026, 6, 25, 11, 20, tzinfo=UTC)}
    print_preview(Preview.model_validate(told | {"verdict": verdict, "columns": []} | values))
    return capsys.readouterr().out


def test_the_first_line_says_what_becomes_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    first = "2026-06-25T142000.csv: "
    fine = shown(capsys, decision="late")
    when = "2026-06-25 14:20:00 EAT (11:20:00 UTC)"
    assert fine == f"{first}fine; it would be applied as late, of {when}\nnothing was changed\n"
    refused = shown(capsys, "refused", reason="columns missing", detail="closed_at")
    assert refused.startswith(f"{first}refused, columns missing: closed_at\n")
    assert shown(capsys, "nothing to do", reason="it was applied before").startswith(f"{first}nothing to do, it was")


def test_columns_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [
        ColumnJudged(name="Ticket\x1b ID", column="ticket_id", kept="id", remarks=["renamed"]),
        ColumnJudged(name="[b]", column="[b]", kept="raw", remarks=["undeclared", "new"]),
        ColumnJudged(name="", column="column_3", kept="raw", remarks=[]),
        ColumnJudged(name=None, column="closed_at", kept="typed", remarks=["missing"]),
    ]
    lines = [" ".join(line.split()) for line in shown(capsys, columns=columns).splitlines()]
    assert lines[1:-1] == [
        r"Ticket\x1b ID -> ticket_id the id renamed",
        "[b] -> [b] in raw alone undeclared, new",
        "(no name) -> column_3 in raw alone",
        "(no column) -> closed_at typed missing",
    ]


def test_counts_are_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = RowCounts(**NONE | {"read": 1203, "inserted": 1200, "stale": 3, "never": 2})
    lines = LinesJudged(read=1204, blank=0, header=1, rejected=0, rows=1203)
    told = shown(capsys, rows=rows, lines=lines).splitlines()
    assert told[1:-1] == [
        "rows: 1,203 read, of which 1,200 inserted, 3 stale",
        "lines: 1,204 read, of which 1 header, 1,203 rows",
        "dates that mean never: 2",
    ]
    assert "rows: 0 read\n" in shown(capsys, rows=RowCounts(**NONE))


def test_examples_and_dangers_come_last(capsys: pytest.CaptureFixture[str]) -> None:
    first = [Rejected(line=7, reason="mttr 'soon' is no number of minutes", raw="E7,soon\x07")]
    change = Change(column="closed_at", before="2026-06-03 10:00", after=None)
    told = shown(
        capsys,
        "dangerous",
        decision="new",
        rows=RowCounts(**NONE | {"read": 9, "updated": 8, "rejected": 1}),
        rejected=[RejectedKind(reason="mttr is no number of minutes", rows=1, first=first)],
        changed=[ChangedTicket(ticket_id="E1", line=2, changes=[change])],
        dangers=["8 tickets would be reopened, such as E1"],
    ).splitlines()
    assert told[2:] == [
        "rejected, 1 x mttr is no number of minutes",
        r"    line 7 mttr 'soon' is no number of minutes: E7,soon\x07",
        "changed: E1, by line 2",
        "    closed_at: '2026-06-03 10:00' -> nothing",
        "and 7 more changed tickets",
        "DANGER: 8 tickets would be reopened, such as E1",
        "nothing was changed",
    ]


@pytest.mark.parametrize(
    ("blanked", "danger"),
    [
        (Blanked("closed_at", 12, "E1"), "12 tickets would be reopened, such as E1"),
        (Blanked("closed_at", 1, "E1"), "1 ticket would be reopened, such as E1"),
        (Blanked("cluster", 4000, "E1"), "column cluster would become empty in 4,000 rows, such as E1"),
    ],
)
def test_a_danger_is_one_line(blanked: Blanked, danger: str) -> None:
    assert blanked.danger == danger


def test_notes_of_a_header_are_a_line_each() -> None:
    notes = {"renamed": {"closed_at": "Closed At"}, "missing": ["cluster"], "undeclared": ["a", "b"], "new": ["b"]}
    assert list(words_of_notes(notes)) == [
        "column closed_at is called 'Closed At'",
        "columns missing: cluster",
        "columns not declared, in raw alone: a, b",
        "columns new in the feed: b",
    ]
    assert list(words_of_notes({})) == []

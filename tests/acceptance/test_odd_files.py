"""What status and explain tell of files that are not as the exporter should write them."""

from typing import Any

import pytest

from consumer.feeds.declared import packaged_feeds
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage

INC = packaged_feeds().named("inc")
COLUMNS = (INC.id, *INC.always)
ODD, LACKING, REFUSED = (key_at(minutes) for minutes in (0, 10, 20))
NEVER = "0001-01-01T00:00:00"


@pytest.fixture(scope="module")
def lived(shared_stage: Stage) -> Stage:
    stage = shared_stage
    odd = csv(
        [
            ticket("INC1", closed_at=NEVER, scheduled_at=NEVER, colour="blue"),
            ticket("INC10", mttr="soon"),
            ticket("INC10/A", mttr="soon", owner="INC1"),
            ticket("INC2", owner="two\nlines"),
        ],
        (*COLUMNS, "colour"),
    )
    stage.bucket.put_all({
        ODD: odd.replace(b"closed_at", b"Closed At", 1) + b"\n",
        LACKING: csv([ticket("INC3")], [name for name in COLUMNS if name not in {"cluster", "owner"}]),
        REFUSED: csv([ticket(f"BAD{number}", mttr="soon") for number in range(120)] + [ticket("", owner="x")], COLUMNS),
    })  # fmt: skip
    assert stage.run("drain", "--apply").returncode == 1
    return stage


def version(stage: Stage, key: str) -> dict[str, Any]:
    (found,) = stage.ask("explain", key)["versions"]
    return dict(found)


def of_version(version: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(version[name] for name in names)


LINES = ("lines_read", "lines_blank", "lines_header", "lines_rejected", "lines_of_rows")


def test_a_file_is_explained_with_its_lines_its_columns_and_its_dates_that_mean_never(lived: Stage) -> None:
    found = version(lived, ODD)
    assert of_version(found, *LINES) == (7, 1, 1, 2, 3)
    assert found["dates_never"] == 2
    notes = found["notes"]
    assert notes == {
        "renamed": {"closed_at": "Closed At"}, "missing": [], "undeclared": ["colour"], "new": ["colour"], "twice": [],
        "rejects": {},
    }  # fmt: skip
    (kind,) = found["reject_kinds"]
    assert found["reject_kinds"][kind] == 2
    assert "soon" not in kind
    assert [(reject["line"], reject["lines"], reject["ticket_id"]) for reject in found["rejects"]] == [
        (3, 1, "INC10"), (4, 1, "INC10/A"),
    ]  # fmt: skip
    shown = lived.run("explain", ODD).stdout
    for words in ("lines_of_rows", "dates_never", "closed_at is called 'Closed At'", "columns new in the feed: colour"):
        assert words in shown
    assert f"2 rejected: {kind}" in shown
    assert "more rejected rows" not in shown


def test_a_file_without_columns_is_explained_by_their_names(lived: Stage) -> None:
    assert version(lived, LACKING)["notes"]["missing"] == ["cluster", "owner"]
    assert "columns missing: cluster, owner" in lived.run("explain", LACKING).stdout


def test_a_refused_file_is_explained_by_all_its_rejects_and_the_first_of_them(lived: Stage) -> None:
    found = version(lived, REFUSED)
    assert list(found["reject_kinds"].values()) == [120, 1]
    assert len(found["rejects"]) == 20
    assert of_version(found, *LINES) == (None,) * 5
    assert "and 101 more rejected rows" in lived.run("explain", REFUSED).stdout


@pytest.mark.parametrize(
    ("ticket_id", "lines"), [("INC10", [3]), ("INC10/A", [4]), ("INC1", []), ("INC", []), ("soon", [])]
)
def test_a_ticket_has_the_rejects_of_its_id_and_of_no_other(lived: Stage, ticket_id: str, lines: list[int]) -> None:
    ended = lived.run("explain", "--ticket", ticket_id, "--feed", "inc", "--json")
    assert [reject["line"] for reject in lived.json(ended)["rejects"]] == lines


@pytest.mark.parametrize(
    ("raw", "is_of_it"),
    [
        ("OLD-1,NEW,soon", True),
        ('NEW, "OLD-1" ,soon', True),
        ("NEW,OLD-1\r", True),
        ("OLD-10,NEW,soon", False),
        ("NEW,see OLD-1,soon", False),
    ],
)
def test_a_reject_of_before_ids_were_kept_is_matched_by_a_whole_field(
    lived: Stage, raw: str, *, is_of_it: bool
) -> None:
    planted = lived.one(
        "INSERT INTO ingest.rejects (file_id, line, reason, raw)"
        " SELECT file_id, 900, 'then', %s FROM ingest.ledger WHERE key = %s RETURNING file_id", raw, LACKING,
    )  # fmt: skip
    try:
        ended = lived.run("explain", "--ticket", "OLD-1", "--feed", "inc", "--json")
        assert [reject["raw"] for reject in lived.json(ended)["rejects"]] == [raw] * is_of_it
    finally:
        lived.query("DELETE FROM ingest.rejects WHERE file_id = %s AND line = 900 RETURNING 1", planted)


def test_a_row_whose_id_nobody_knows_is_no_reject_of_what_stands_in_it(lived: Stage) -> None:
    planted = lived.one(
        "INSERT INTO ingest.rejects (file_id, line, reason, raw, reason_group)"
        " SELECT file_id, 901, 'now', 'OLD-2,NEW', 'now' FROM ingest.ledger WHERE key = %s RETURNING file_id", LACKING,
    )  # fmt: skip
    ended = lived.run("explain", "--ticket", "OLD-2", "--feed", "inc", "--json")
    lived.query("DELETE FROM ingest.rejects WHERE file_id = %s AND line = 901 RETURNING 1", planted)
    assert (ended.returncode, lived.json(ended)["rejects"]) == (1, [])


def test_status_totals_what_the_exporter_has_to_mend(lived: Stage) -> None:
    found = lived.ask("status")["database"]
    rejects = found["open_rejects"]
    assert (rejects["inc"]["rows"], rejects["inc"]["files"]) == (102, 2)
    assert rejects["inc"]["oldest"] == version(lived, ODD)["applied_at"]
    assert (rejects["crq"]["rows"], rejects["crq"]["oldest"]) == (0, None)
    undeclared = found["undeclared_columns"]
    (column,) = undeclared["newest"]
    assert (undeclared["count"], column["feed"], column["name"], column["key"]) == (1, "inc", "colour", ODD)
    assert found["lately"]["inc"] == {
        "files": 2, "files_without_columns": 1, "missing_columns": ["cluster", "owner"], "newest_without": LACKING,
        "dates_never": 2,
    }  # fmt: skip
    assert found["lately"]["crq"]["files"] == 0
    files = {file["key"]: file for file in found["last_files"]}
    assert of_version(files[ODD], "lines_read", "lines_rejected", "dates_never") == (7, 2, 2)
    assert files[ODD]["notes"]["renamed"] == {"closed_at": "Closed At"}
    assert (files[REFUSED]["lines_read"], files[REFUSED]["notes"]["missing"]) == (None, [])
    shown = lived.run("status").stdout
    for words in (
        "102 open rows of 2 files (100 the first ones of refused files), the oldest for ",
        f"colour: first in {ODD}, 20",
        f"1 files without cluster, owner, the last is {LACKING}; 2 dates that mean never",
        "0 rejected; 120 rejected: mttr is no ",
        "2 rejected (2 of 7 lines); 2 dates that mean never; column closed_at is called 'Closed At'",
    ):
        assert words in shown, shown


def test_status_counts_the_last_days_alone_and_no_column_that_was_declared_since(lived: Stage) -> None:
    lived.query("UPDATE ingest.ledger SET applied_at = now() - interval '8 days' WHERE key = %s RETURNING 1", LACKING)
    lived.query("INSERT INTO ingest.undeclared_columns (feed, name, file_id) VALUES ('inc', 'owner', 1) RETURNING 1")
    found = lived.ask("status")["database"]
    assert found["lately"]["inc"] == {
        "files": 1, "files_without_columns": 0, "missing_columns": [], "newest_without": None, "dates_never": 2,
    }  # fmt: skip
    assert found["undeclared_columns"]["count"] == 1

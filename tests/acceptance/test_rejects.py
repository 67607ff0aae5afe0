"""Rejected rows by their commands: looked at, and handed to whoever writes the exporter."""

import csv as csv_module
import io
import re
from pathlib import Path
from typing import Any

import pytest

from consumer.feeds.declared import packaged_feeds
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage
from tests.stage.store import CHANGES

INC = packaged_feeds().named("inc")
COLUMNS = (INC.id, *INC.always)
ODD, REFUSED, MENDED, DISCARDED, CLEAN = (key_at(minutes) for minutes in (0, 10, 20, 30, 40))
ODD_IDS = (
    "=1+1",
    "@SUM(A1)",
    "'=2",
    '"=3"',
    "P;=HYPERLINK(1)",
    "Q\t+1",
    "two\n-lines",
    "Kīsumu",
    "it's",
    "-1.5",
    "a\x1b[31mred",
)
"""As a formula begins; behind what a spreadsheet parts columns at; with what it must not touch."""


def row(ticket_id: str, **values: str) -> dict[str, str]:
    return ticket(ticket_id) | {"mttr": "soon"} | values


@pytest.fixture(scope="module")
def lived(shared_stage: Stage) -> Stage:
    """Files with rejects of each fate, the last one without any."""
    stage = shared_stage
    stage.bucket.put_all({
        ODD: csv([row(name) for name in ODD_IDS] + [ticket(f"INC{number}") for number in range(60)], COLUMNS),
        REFUSED: csv([row(f"BAD{number}") for number in range(120)], COLUMNS),
        MENDED: csv([row(f"MEND{number}") for number in range(12)], COLUMNS),
        DISCARDED: csv([row(f"GONE{number}") for number in range(12)], COLUMNS),
    })  # fmt: skip
    assert stage.run("drain", "--apply").returncode == 1
    stage.query("UPDATE ingest.ledger SET discarded_at = now() WHERE key = %s RETURNING 1", DISCARDED)
    stage.bucket.put_all({MENDED: csv([ticket("MEND1")], COLUMNS), CLEAN: csv([ticket("BAD7")], COLUMNS)})
    assert stage.run("drain", "--apply").returncode == 1
    states = stage.query("SELECT key, state FROM ingest.ledger ORDER BY file_id")
    assert [(found["key"], found["state"] == "failed") for found in states] == [
        (ODD, False), (REFUSED, True), (MENDED, True), (DISCARDED, True), (MENDED, False), (CLEAN, False),
    ]  # fmt: skip
    return stage


def test_groups_tell_how_many_since_when_and_which_are_of_refused_files(lived: Stage) -> None:
    groups = lived.ask("rejects", "list")
    assert {group["feed"] for group in groups} == {"inc"}
    by_minutes = next(group for group in groups if group["reason"].startswith("mttr"))
    assert by_minutes["of_refused_files"] == 99, "the first hundred are kept, and of one the ticket came later"
    assert by_minutes["files"] == 2
    assert by_minutes["key"] == ODD
    assert by_minutes["oldest"] <= by_minutes["newest"]
    shown = lived.run("rejects", "list")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "(99 of refused files)" in shown.stdout
    assert by_minutes["fingerprint"] in shown.stdout
    assert " ago" in shown.stdout


def test_what_was_mended_discarded_or_came_later_is_settled(lived: Stage) -> None:
    found = lived.ask("rejects", "show", "--all", "--limit", "1000")
    assert {row["key"] for row in found if not row["is_settled"]} == {ODD, REFUSED}
    settled = [(row["key"], row["ticket_id"]) for row in found if row["is_settled"]]
    assert settled == [
        (REFUSED, "BAD7"),
        *((MENDED, f"MEND{number}") for number in range(12)),
        *((DISCARDED, f"GONE{number}") for number in range(12)),
    ]
    assert {row["is_refused"] for row in found if row["key"] != ODD} == {True}
    assert sum(group["settled"] for group in lived.ask("rejects", "list", "--all")) == len(settled)
    for key in {row["key"] for row in found}:
        told = {
            (version["file_id"], reject["line"]): reject["is_settled"]
            for version in lived.json(lived.run("explain", key, "--json"))["versions"]
            for reject in version["rejects"]
        }
        shown = {(row["file_id"], row["line"]): row["is_settled"] for row in found if row["key"] == key}
        assert told.items() <= shown.items(), "explain says the same"


def test_the_rows_of_a_file_are_shown_as_they_stood(lived: Stage) -> None:
    shown = lived.run("rejects", "show", "--file", REFUSED.removeprefix(CHANGES), "--limit", "2")
    assert shown.returncode == 0
    assert f"{REFUSED}, line 2, ticket BAD0, of a refused file\n    mttr 'soon' is no" in shown.stdout
    assert "line 4" not in shown.stdout
    assert "and 97 more" in shown.stdout
    odd = lived.run("rejects", "show", "--file", ODD)
    assert "\x1b" not in odd.stdout
    (two,) = (row for row in lived.ask("rejects", "show", "--file", ODD) if row["lines"] == 2)
    assert f"lines {two['line']}-{two['line'] + 1}" in odd.stdout
    assert two["raw"].startswith('"two\n-lines",')


def test_nothing_and_the_unknown_are_said_in_a_line(lived: Stage) -> None:
    for arguments, status, words in (
        (("list", "--file", CLEAN), 0, "no open rejects that fit"),
        (("list", "--older-than", "5d"), 0, "no open rejects that fit"),
        (("show", "--file", CLEAN), 1, "no open rejects that fit"),
        (("show", "--group", "none"), 1, "no open rejects that fit"),
        (("list", "--feed", "crq"), 0, "no open rejects\n"),
        (("list", "--file", "nowhere.csv"), 1, "the ledger has no file 'nowhere.csv'"),
        (("list", "--newer-than", "yesterday"), 2, "is no age"),
        (("export",), 2, "say which"),
        (("export", "--csv", "-", "--json"), 2, "say which"),
        (("export", "--csv", "/dev/null"), 2, "is no file"),
        (("export", "--csv", "no/such/folder.csv"), 2, "No such file"),
    ):
        ended = lived.run("rejects", *arguments)
        assert (ended.returncode, words in ended.stdout + ended.stderr) == (status, True), (arguments, ended)
        assert "Traceback" not in ended.stderr
    assert lived.run("rejects", "show", "--file", CLEAN, "--json").stdout == "[]\n"


def exported(stage: Stage, *arguments: str) -> tuple[str, str]:
    """What it says, and what it wrote."""
    path = stage.folder / "rejects.csv"
    ended = stage.run("rejects", "export", "--csv", str(path), *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout, path.read_bytes().decode()


def test_an_export_has_every_row_with_its_file_line_and_reason(lived: Stage) -> None:
    told, text = exported(lived)
    rows = list(csv_module.DictReader(io.StringIO(text, newline="")))
    assert told == f"{len(rows)} rejected rows in {lived.folder / 'rejects.csv'}\n"
    shown = lived.ask("rejects", "show", "--limit", "1000")
    assert [(row["key"], int(row["line"]), original(row["reason"])) for row in rows] == [
        (row["key"], row["line"], row["reason"]) for row in shown
    ]
    assert lived.ask("rejects", "export") == shown
    printed = lived.run("rejects", "export", "--csv", "-")
    assert printed.stdout == text
    assert list(Path(lived.folder).glob("rejects.csv*")) == [lived.folder / "rejects.csv"]


def original(value: str) -> str:
    """As docs/operations.md has it, for who wants what stood there."""
    return re.sub(r"""(?:^|(?<=[;\t\r\n]))'(?=[ "']*[=+\-@])""", "", value)


def test_a_spreadsheet_executes_nothing_of_an_export_and_its_text_can_be_had_back(lived: Stage) -> None:
    _, text = exported(lived, "--file", ODD)
    shown: list[dict[str, Any]] = lived.ask("rejects", "show", "--file", ODD)
    assert any(row["raw"].startswith("=") for row in shown), "or nothing is shown by this"
    # A spreadsheet that parts at semicolons or tabs heeds quotes only where a value begins with one.
    for reading in (csv_module.reader(io.StringIO(text, newline="")), re.split(r"[;\t\r\n]", text)):
        for value in (cell for part in reading for cell in ([part] if isinstance(part, str) else part)):
            assert not value.strip(" \"'") or value.lstrip(' "')[0] not in "=+-@", value
    rows = list(csv_module.DictReader(io.StringIO(text, newline="")))
    assert [(original(row["raw"]), original(row["ticket_id"])) for row in rows] == [
        (row["raw"], row["ticket_id"] or "") for row in shown
    ]


def test_an_export_of_nothing_is_one_all_the_same(lived: Stage) -> None:
    told, text = exported(lived, "--feed", "crq")
    assert told.startswith("0 rejected rows")
    assert len(text.splitlines()) == 1
    assert lived.ask("rejects", "export", "--feed", "crq") == []

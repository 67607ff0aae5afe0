"""`preview` as an exporter's CI calls it, and what dry runs tell; beside consumers that run, and of keys."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.stage.comparing import assert_equals_oracle, of_the_run
from tests.stage.feeds import RandomFeed, key_at, lines
from tests.stage.stage import Stage
from tests.stage.store import CHANGES, PROCESSED

TABLES = ("tickets.inc", "tickets.closure_events", "tickets.import_meta", "ingest.ledger", "ingest.inc_positions",
          "ingest.rejects", "ingest.outbox", "ingest.epochs", "ingest.undeclared_columns",
          "ingest.ignored_events")  # fmt: skip
VALUES = {
    "normalized_status": "open", "raw_status": "NEW", "bucket": "b", "is_actionable": "true", "cluster": "Westlands",
    "region": "nairobi", "location_name": "Gate B", "assigned_team": "team", "owner": "Amina", "sla_status": "met",
    "mttr": "90", "created_at_service": "2026-06-01 10:00", "scheduled_at": "2026-06-02 10:00",
    "closed_at": "2026-06-03 10:00", "first_seen_at": "2026-06-01 10:00", "last_seen_at": "2026-06-03 10:00",
    "source_created_at": "2026-06-01 10:00", "source_updated_at": "2026-06-03 10:00",
}  # fmt: skip
"""Of a closed ticket, in each column that its exporter always writes."""


def row(ticket_id: str, **values: str) -> list[str]:
    return [ticket_id, *(VALUES | values).values()]


def body(*rows: list[str], header: list[str] | None = None) -> bytes:
    return lines([header or ["ticket_id", *VALUES], *rows])


def state(stage: Stage) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {
        table: stage.query(f"SELECT found::text FROM {table} AS found ORDER BY 1")  # noqa: S608
        for table in TABLES
    }
    return found | {"objects": [{"key": key} for key in stage.bucket.keys("")]}


def local(stage: Stage, content: bytes, name: str = "2026-06-01T120000.csv") -> str:
    path = stage.folder / name
    path.write_bytes(content)
    return str(path)


def tell(stage: Stage, *arguments: str, ends_with: int = 0, **environment: str) -> Any:
    """The JSON of a preview that changed nothing."""
    before = state(stage)
    refusing = {"FLEETTICKETS_MISSING_COLUMNS": "refuse"}
    ended = stage.run("preview", *arguments, "--json", **refusing | environment)
    assert ended.returncode == ends_with, ended.stderr
    assert state(stage) == before
    return stage.json(ended)


@pytest.fixture
def closed(stage: Stage) -> Stage:
    """There are two closed tickets."""
    stage.bucket.put(key_at(1), body(row("E1"), row("E2")))
    stage.ask("drain", "--apply")
    return stage


def test_a_local_file_that_is_fine_ends_with_0_and_one_that_reopens_with_1(closed: Stage) -> None:
    fine = tell(closed, local(closed, body(row("E1", owner="Dina"), row("E3"))), "--feed", "inc")
    assert (fine["verdict"], fine["rows"]["inserted"], fine["rows"]["updated"]) == ("fine", 1, 1)
    bad = local(closed, body(row("E1", closed_at=""), row("E2", cluster="")))
    told = tell(closed, bad, "--feed", "inc", ends_with=1)
    assert told["verdict"] == "dangerous"
    assert told["dangers"] == [
        "1 ticket would be reopened, such as E1", "column cluster would become empty in 1 row, such as E2",
    ]  # fmt: skip
    ended = closed.run("preview", bad, "--feed", "inc")
    assert ended.returncode == 1
    assert "DANGER: 1 ticket would be reopened, such as E1\n" in ended.stdout
    assert "    closed_at: '2026-06-03 10:00' -> nothing\n" in ended.stdout
    assert ended.stdout.endswith("nothing was changed\n")


def test_a_file_that_is_refused_ends_with_1(closed: Stage) -> None:
    told = tell(
        closed, local(closed, lines([["ticket_id", *VALUES][:-1], row("E1")[:-1]])), "--feed", "inc", ends_with=1
    )
    assert (told["verdict"], told["reason"]) == ("refused", "columns missing")
    assert (told["detail"], len(told["columns"])) == ("source_updated_at", 19)
    told = tell(closed, local(closed, b"\xd0\xcf\x11\xe0"), "--feed", "inc", ends_with=1)
    assert (told["verdict"], told["reason"]) == ("refused", "not CSV")


def test_with_allow_missing_it_tells_what_a_file_would_do_that_is_refused(closed: Stage) -> None:
    names = [name for name in VALUES if name != "closed_at"]
    content = lines([["ticket_id", *names], ["E1", *(VALUES[name] for name in names)]])
    key = key_at(2)
    closed.bucket.put(key, content)
    for file in ([local(closed, content), "--feed", "inc"], [key]):
        assert tell(closed, *file, ends_with=1)["detail"] == "closed_at"
        told = tell(closed, *file, "--allow-missing", ends_with=1)
        assert told["dangers"] == ["1 ticket would be reopened, such as E1"]
        assert [one["column"] for one in told["columns"] if "missing" in one["remarks"]] == ["closed_at"]


def test_a_key_in_changes_is_told_and_left_there(closed: Stage) -> None:
    key = key_at(2)
    closed.bucket.put(key, body(row("E1", closed_at=""), row("E3", mttr="soon"), row("E4")))
    told = tell(closed, key, ends_with=1)
    assert (told["file"], told["feed"], told["rows"]["rejected"]) == (key, "inc", 1)
    assert [(kind["rows"], kind["first"][0]["line"]) for kind in told["rejected"]] == [(1, 3)]
    assert closed.waiting() == [key]


def test_a_dead_letter_is_told_as_its_replay_would_do_it(closed: Stage) -> None:
    """One that was refused and would be taken now."""
    key = key_at(2)
    closed.bucket.put(key, body(row("E3", mttr="soon"), *(row(f"B{number}", mttr="soon") for number in range(9))))
    consumer = closed.start("consume")
    closed.announce(key)
    closed.wait_for("failed", key)
    consumer.stop()
    refused = tell(closed, key, ends_with=1)
    assert (refused["reason"], refused["rejected"][0]["rows"]) == ("too many rejects", 10)
    told = tell(closed, key, FLEETTICKETS_MAX_REJECT_SHARE="1", ends_with=1)
    assert (told["verdict"], told["rows"]["rejected"]) == ("dangerous", 10)
    assert told["dangers"] == ["none of its 10 rows can be a ticket"]


def test_a_key_in_processed_has_nothing_to_do_unless_the_database_lacks_it(closed: Stage) -> None:
    (key,) = closed.bucket.keys(PROCESSED)
    told = tell(closed, key)
    assert (told["verdict"], told["reason"], len(told["columns"])) == ("nothing to do", "it was applied before", 19)
    unrecorded = key_at(2).replace(CHANGES, PROCESSED)
    closed.bucket.put(unrecorded, body(row("E1", closed_at="")))
    told = tell(closed, unrecorded, ends_with=1)
    assert told["dangers"] == ["1 ticket would be reopened, such as E1"]


def test_what_is_not_there_is_an_argument_that_is_wrong(closed: Stage) -> None:
    for file, words in (
        ("nowhere.csv", "neither a file here nor a key"),
        (key_at(7), "has no object"),
        (f"{CHANGES}notes.csv", "has no object"),
        (os.fsencode(closed.folder).decode(), "neither a file here nor a key"),
    ):
        ended = closed.run("preview", file)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
        assert words in ended.stderr
    closed.bucket.put(f"{CHANGES}notes.csv", body(row("E1")))
    assert "its name is not a timestamp" in closed.run("preview", f"{CHANGES}notes.csv").stderr
    assert "say whose file it is" in closed.run("preview", local(closed, body(row("E1")))).stderr


def test_a_local_file_needs_no_bucket_and_no_broker(closed: Stage) -> None:
    closed.environment |= {"RABBITMQ_URL": "", "RUSTFS_ENDPOINT": "", "RUSTFS_BUCKET": "", "RUSTFS_SECRET_KEY": ""}
    assert tell(closed, local(closed, body(row("E5"))), "--feed", "inc")["verdict"] == "fine"


@pytest.mark.promise("Order-free", "Exactly once")
def test_beside_a_consumer_every_file_can_be_told_and_the_tickets_are_as_without(stage: Stage, tmp_path: Path) -> None:
    files = RandomFeed(seed=13, tickets=40).files(16, rows=12)
    allowing = {"FLEETTICKETS_MISSING_COLUMNS": "allow"}
    stage.bucket.put_all({file.key: file.body for file in files})
    consumers = [stage.start("consume", **allowing) for _ in range(2)]
    for file in files:
        stage.announce(file.key)
        path = tmp_path / Path(file.key).name
        path.write_bytes(file.body)
        told = stage.run("preview", str(path), "--feed", "inc", "--json", **allowing)
        assert stage.json(told)["verdict"] in {"fine", "dangerous"}, told.stderr
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    for consumer in consumers:
        consumer.stop()
    assert_equals_oracle(stage, files)
    assert stage.one("SELECT count(*) FROM ingest.ledger") == len(files)


def test_a_dry_run_of_an_import_tells_the_same_dangers_and_what_is_to_be_known(closed: Stage) -> None:
    header = ["ticket_id", *("Owner" if name == "owner" else name for name in VALUES)]
    file = local(closed, body(row("E1", closed_at=""), row("E2", mttr="soon"), header=header))
    before = state(closed)
    told = closed.run("import-csv", file, "--feed", "inc", "--json")
    (tried,) = closed.json(told)["files"]
    assert (told.returncode, closed.json(told)["dangerous"]) == (1, 1)
    assert (tried["dangers"], tried["notes"]) == (
        ["1 ticket would be reopened, such as E1"], {"renamed": {"owner": "Owner"}},
    )  # fmt: skip
    (changed,) = tried["changed_tickets"]
    assert (changed["ticket_id"], changed["changes"][0]["column"]) == ("E1", "closed_at")
    assert [kind["rows"] for kind in tried["rejected_rows"]] == [1]
    shown = closed.run("import-csv", file, "--feed", "inc").stdout
    assert "    changed: E1, by line 2\n" in shown
    assert "        closed_at: '2026-06-03 10:00' -> nothing\n" in shown
    assert "    rejected, 1 x mttr is no number of minutes" in shown
    assert "    column owner is called 'Owner'\n" in shown
    assert "    DANGER: 1 ticket would be reopened, such as E1\n" in shown
    assert "1 files, 0 failed, 1 dangerous; rows: " in shown
    assert state(closed) == before
    done = closed.ask("import-csv", file, "--feed", "inc", "--apply")["files"][0]
    assert [done] == of_the_run([tried])


def test_a_dry_run_without_a_danger_ends_well(closed: Stage) -> None:
    assert closed.ask("import-csv", local(closed, body(row("E5"))), "--feed", "inc")["dangerous"] == 0


def test_a_dry_run_of_a_drain_tells_of_each_file_on_top_of_those_before_it(closed: Stage) -> None:
    closed.bucket.put_all(
        {
            key_at(2): body(row("E1", closed_at=""), row("E3")),
            key_at(3): body(row("E1", closed_at=""), row("E2", owner="Dina")),
            key_at(4): body(row("E3", closed_at="", cluster="")),
        }
    )
    before = state(closed)
    told = closed.run("drain", "--json")
    tried = closed.json(told)["files"]
    assert (told.returncode, closed.json(told)["dangerous"]) == (1, 2)
    assert [file["dangers"] for file in tried] == [
        ["1 ticket would be reopened, such as E1"],
        [],
        ["1 ticket would be reopened, such as E3", "column cluster would become empty in 1 row, such as E3"],
    ]
    assert "    DANGER: 1 ticket would be reopened, such as E3\n" in closed.run("drain").stdout
    assert state(closed) == before
    done = closed.ask("drain", "--apply")["files"]
    assert done == of_the_run(tried)


@pytest.mark.parametrize(("before", "after"), [
    (("-1.28", "36.8"), ("0", "0")), (("-1.28", "36.8"), ("36.8", "-1.28")), (("-1.28", "36.8"), ("-1.28", "")),
])  # fmt: skip
def test_a_ticket_that_would_lose_its_point_is_a_danger(
    stage: Stage, before: tuple[str, str], after: tuple[str, str]
) -> None:
    header = ["ticket_id", *VALUES, "latitude", "longitude"]
    stage.bucket.put(key_at(1), body([*row("E1"), *before], header=header))
    stage.ask("drain", "--apply")
    told = tell(stage, local(stage, body([*row("E1"), *after], header=header)), "--feed", "inc", ends_with=1)
    assert told["dangers"] == [
        "column latitude would become empty in 1 row, such as E1",
        "column longitude would become empty in 1 row, such as E1",
    ]

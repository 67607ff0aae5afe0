"""A header that changed blanks no column without a word, and what a person lets go is let go for that version alone."""

import gzip
import random
import signal

import pytest

from publisher.arrivals import messages
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import COLUMNS, csv, key_at, lines, ticket
from tests.stage.stage import Process, Stage, wait_until

REFUSE = {"FLEETTICKETS_MISSING_COLUMNS": "refuse"}
CLOSED = csv([ticket("INC1", closed_at="2026-05-30 12:00", owner="first")])
LACKING = csv([ticket("INC1", owner="second")], [name for name in COLUMNS if name not in {"closed_at", "cluster"}])
TICKET = "SELECT owner, closed_at IS NOT NULL AS is_closed, cluster FROM tickets.inc"
AS_IT_WAS = {"owner": "first", "is_closed": True, "cluster": "Westlands"}


def put(stage: Stage, key: str, body: bytes) -> None:
    stage.bucket.put(key, body)
    stage.announce(key)


def applied(stage: Stage, key: str, body: bytes) -> None:
    put(stage, key, body)
    stage.wait_for("done", key)


def refused(stage: Stage, key: str, body: bytes) -> None:
    put(stage, key, body)
    wait_until(lambda: stage.query("SELECT FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"), "it is refused")
    wait_until(lambda: stage.broker.held(FILES) == 0, "the delivery is settled")


@pytest.fixture
def consumer(stage: Stage) -> Process:
    return stage.start("consume", **REFUSE)


@pytest.mark.promise("No silent decision")
def test_a_file_without_columns_is_a_dead_letter_until_a_person_lets_it_go(stage: Stage, consumer: Process) -> None:
    applied(stage, key_at(0), CLOSED)
    refused(stage, key_at(10), LACKING)
    (letter,) = stage.ask("dead-letters", "list", "--each")
    assert (letter["reason"], letter["error"]) == ("columns missing", "cluster, closed_at")
    assert stage.query(TICKET) == [AS_IT_WAS]

    # Replayed as it is, it is refused once more.
    stage.run("dead-letters", "replay", "--wait", "0", "--key", key_at(10))
    wait_until(lambda: stage.ledger(key_at(10))["attempts"] == 2, "it was tried")
    assert stage.query(TICKET) == [AS_IT_WAS]

    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the letter is back")
    assert stage.run("dead-letters", "replay", "--wait", "0", "--key", key_at(10), "--allow-missing").returncode == 0
    stage.wait_for("done", key_at(10))
    assert stage.query(TICKET) == [{"owner": "second", "is_closed": False, "cluster": None}]
    assert stage.ledger(key_at(10))["notes"]["missing"] == ["cluster", "closed_at"]
    consumer.stop()


def test_what_was_let_go_is_one_version_and_not_what_is_put_in_its_place(stage: Stage, consumer: Process) -> None:
    applied(stage, key_at(0), CLOSED)
    refused(stage, key_at(10), LACKING)
    stage.bucket.put(key_at(10), LACKING.replace(b"second", b"third"))
    assert stage.run("dead-letters", "replay", "--wait", "0", "--key", key_at(10), "--allow-missing").returncode == 0
    wait_until(lambda: len(stage.query("SELECT FROM ingest.ledger WHERE attempts > 0")) == 2, "the other was tried")
    assert stage.query(TICKET) == [AS_IT_WAS]
    consumer.stop()


@pytest.mark.promise("No silent decision")
def test_a_stranger_lets_nothing_go(stage: Stage, consumer: Process) -> None:
    applied(stage, key_at(0), CLOSED)
    refused(stage, key_at(10), LACKING)
    forged = {messages.AGAIN: "replay", messages.ALLOWED: messages.MISSING_COLUMNS}
    forged[messages.ETAG] = stage.ledger(key_at(10))["etag"]
    with stage.broker.channel() as channel:
        stage.broker.publish_with(channel, stage.bucket.event(key_at(10), LACKING), forged)
    wait_until(lambda: stage.ledger(key_at(10))["duplicates"] == 1, "it is a duplicate")
    wait_until(lambda: stage.broker.held(FILES) == 0, "the delivery is settled")
    assert stage.query(TICKET) == [AS_IT_WAS]
    consumer.stop()


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("point", ["before commit", "after commit, before archive"])
def test_what_a_person_let_go_is_let_go_after_a_crash_too(stage: Stage, consumer: Process, point: str) -> None:
    applied(stage, key_at(0), CLOSED)
    refused(stage, key_at(10), LACKING)
    consumer.stop()
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point, **REFUSE)
    assert stage.run("dead-letters", "replay", "--wait", "0", "--key", key_at(10), "--allow-missing").returncode == 0
    assert doomed.wait() == -signal.SIGKILL
    consumer = stage.start("consume", **REFUSE)
    stage.wait_for("done", key_at(10))
    assert stage.query(TICKET) == [{"owner": "second", "is_closed": False, "cluster": None}]
    assert stage.broker.messages(DEAD_FILES) == []
    consumer.stop()


@pytest.mark.promise("One transaction", "No silent decision")
@pytest.mark.parametrize("point", ["letter published, not recorded", "failure recorded, before ack"])
def test_what_is_kept_of_a_refused_file_is_kept_once_whatever_died(stage: Stage, point: str) -> None:
    body = csv([ticket(f"INC{number}", closed_at="25/06/2026") for number in range(150)])
    stage.die_at(point, key_at(0), body)
    is_recorded = point == "failure recorded, before ack"
    assert stage.one("SELECT count(*) FROM ingest.rejects") == (100 if is_recorded else 0)
    consumer = stage.start("consume")
    wait_until(lambda: "consuming" in consumer.output(), "it has begun")
    wait_until(lambda: stage.query("SELECT FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"), "it is refused")
    wait_until(lambda: stage.broker.held(FILES) == 0, "the delivery is settled")
    assert stage.one("SELECT count(*) FROM ingest.rejects") == 100
    assert list(stage.ledger(key_at(0))["notes"]["rejects"].values()) == [150]
    consumer.stop()


@pytest.mark.promise("One transaction")
@pytest.mark.parametrize(("point", "is_told"), [("before commit", False), ("after commit, before archive", True)])
def test_a_new_column_is_told_with_its_file_or_not_at_all(stage: Stage, point: str, is_told: bool) -> None:
    body = csv([ticket("INC1", note="x")], [*COLUMNS, "note"])
    stage.die_at(point, key_at(0), body)
    assert stage.one("SELECT count(*) FROM ingest.undeclared_columns") == is_told
    consumer = stage.start("consume")
    stage.wait_for("done", key_at(0))
    assert stage.ledger(key_at(0))["notes"] == {"undeclared": ["note"], "new": ["note"]}
    assert stage.one("SELECT count(*) FROM ingest.undeclared_columns") == 1
    consumer.stop()


def test_columns_may_be_missing_where_the_operator_says_so(stage: Stage) -> None:
    consumer = stage.start("consume", FLEETTICKETS_MISSING_COLUMNS="allow")
    applied(stage, key_at(0), CLOSED)
    applied(stage, key_at(10), LACKING)
    assert stage.query(TICKET) == [{"owner": "second", "is_closed": False, "cluster": None}]
    assert stage.ledger(key_at(10))["notes"]["missing"] == ["cluster", "closed_at"]
    consumer.stop()


@pytest.mark.parametrize("name", ["Closed_at", "CLOSED AT", "closed\u200b_at", "closed\u00ad_at"])
def test_a_column_by_another_spelling_closes_its_ticket(stage: Stage, consumer: Process, name: str) -> None:
    applied(stage, key_at(0), CLOSED.replace(b"closed_at", name.encode(), 1))
    assert stage.query(TICKET) == [AS_IT_WAS]
    assert stage.ledger(key_at(0))["notes"] == {"renamed": {"closed_at": name}}
    consumer.stop()


def test_a_column_that_is_not_declared_is_told_when_it_comes_first(stage: Stage, consumer: Process) -> None:
    for minutes in (0, 10):
        applied(stage, key_at(minutes), csv([ticket(f"INC{minutes}", note="x")], [*COLUMNS, "note"]))
    notes = [stage.ledger(key_at(minutes))["notes"] for minutes in (0, 10)]
    assert notes == [{"undeclared": ["note"], "new": ["note"]}, {"undeclared": ["note"]}]
    assert stage.query("SELECT feed, name FROM ingest.undeclared_columns") == [{"feed": "inc", "name": "note"}]
    consumer.stop()


@pytest.mark.promise("No silent decision")
def test_a_refused_file_keeps_its_first_rejects_and_how_many_there_are_of_each_kind(
    stage: Stage, consumer: Process
) -> None:
    bad = [ticket(f"INC{number}", closed_at="25/06/2026") for number in range(150)]
    refused(stage, key_at(0), csv([*bad, *(ticket("", owner="x") for _ in range(20)), ticket("INC999")]))
    row = stage.ledger(key_at(0))
    assert (row["reason"], sorted(row["notes"]["rejects"].values())) == ("too many rejects", [20, 150])
    kept = stage.query("SELECT line, ticket_id, raw FROM ingest.rejects ORDER BY line")
    assert [found["line"] for found in kept] == list(range(2, 102))
    assert (kept[0]["ticket_id"], kept[0]["raw"][:6]) == ("INC0", "INC0,o")
    assert "170 of 171 lines" in row["last_error"]
    assert "150 x closed_at is no timestamp" in row["last_error"]

    # Applied after all, with a share that takes it, it has all of them.
    consumer.stop()
    consumer = stage.start("consume", FLEETTICKETS_MAX_REJECT_SHARE="1", **REFUSE)
    stage.run("dead-letters", "replay", "--wait", "0", "--all")
    stage.wait_for("done", key_at(0))
    assert stage.one("SELECT count(*) FROM ingest.rejects") == 170
    consumer.stop()


def test_a_packed_file_is_archived_as_it_came(stage: Stage, consumer: Process) -> None:
    key, body = f"{key_at(0)}.gz", gzip.compress(CLOSED)
    applied(stage, key, body)
    assert stage.query(TICKET) == [AS_IT_WAS]
    assert stage.bucket.read(key.replace("changes/", "processed/")) == body
    assert stage.run("verify", "--content").returncode == 0
    consumer.stop()


def test_the_lines_of_a_file_add_up(stage: Stage, consumer: Process) -> None:
    good, again = csv([ticket("INC1"), ticket("INC2", owner="two\nlines")]), csv([ticket("INC3")])
    short = lines([["INC4", *["x"] * len(COLUMNS)]])
    applied(stage, key_at(0), good + b"\n,,,\n" + short + again)
    found = stage.ledger(key_at(0))
    assert {name: found[name] for name in found if name.startswith("lines_")} == {
        "lines_read": 9, "lines_blank": 2, "lines_header": 2, "lines_rejected": 1, "lines_of_rows": 4,
    }  # fmt: skip
    assert (found["rows_read"], found["rows_rejected"]) == (4, 1)
    consumer.stop()


@pytest.mark.promise("Nothing lost")
def test_what_a_person_let_go_is_applied_from_the_archive_too(stage: Stage, consumer: Process) -> None:
    """The database is lost with the permission; that it is archived says that there was one."""
    refused(stage, key_at(10), LACKING)
    assert "dead-letters replay --key" in stage.ask("explain", key_at(10))["next"]
    assert "--allow-missing" in stage.ask("explain", key_at(10))["next"]
    assert "columns missing: cluster, closed_at" in stage.run("status").stdout
    assert stage.run("dead-letters", "replay", "--wait", "0", "--key", key_at(10), "--allow-missing").returncode == 0
    stage.wait_for("done", key_at(10))
    consumer.stop()
    expected = stage.query(TICKET)
    stage.connection.execute(
        "TRUNCATE tickets.inc, tickets.closure_events, tickets.import_meta, ingest.inc_positions, ingest.ledger CASCADE"
    )
    done = stage.run("drain", "--from-archive", "--apply", **REFUSE)
    assert done.returncode == 0, done.stdout
    assert stage.query(TICKET) == expected
    assert stage.ledger(key_at(10))["notes"]["missing"] == ["cluster", "closed_at"]


def test_a_column_with_a_name_that_no_index_has_room_for_is_told(stage: Stage, consumer: Process) -> None:
    rng = random.Random(1)
    name = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(9000))
    applied(stage, key_at(0), csv([ticket("INC1") | {name: "x"}], (*COLUMNS, name)))
    (told,) = stage.query("SELECT name FROM ingest.undeclared_columns")
    assert told["name"] == f"{name[:199]}\u2026"
    consumer.stop()


def test_an_imported_file_is_explained_by_its_name(stage: Stage) -> None:
    file = stage.folder / "from the office.csv"
    file.write_bytes(LACKING)
    assert stage.run("import-csv", "--feed", "inc", str(file), "--apply").returncode == 0
    life = stage.ask("explain", file.name)
    (version,) = life["versions"]
    assert (version["bucket"], version["notes"]["missing"]) == ("a local file, inc", ["cluster", "closed_at"])
    assert life["next"] == "nothing: it was imported from a local file"

"""The life of a file under each decision, and of a ticket."""

from typing import Any

import pytest

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

BROKEN = b"ticket_id,M\xfc\nINC1,x\n"
NEW, LATE, CHANGED, FAILED, PASSED, GONE, WAITING = (key_at(minutes) for minutes in (50, 10, 60, 70, 80, 90, 100))
IGNORED = f"{CHANGES}notes.csv"


@pytest.fixture(scope="module")
def lived(shared_stage: Stage) -> Stage:
    """Files that went each their way."""
    stage = shared_stage
    consumer = stage.start("consume", FLEETTICKETS_FILES_IN_HAND="1")
    closed = ticket("INC1", raw_status="Closed", closed_at="2026-06-01 09:00")
    stage.bucket.put_all({
        NEW: csv([ticket("INC1"), ticket("BAD1", mttr="soon")]),
        LATE: csv([closed]),
        CHANGED: csv([ticket("INC2", owner="first")]),
        FAILED: BROKEN,
        PASSED: csv([ticket("INC3")]),
        IGNORED: b"",
    })  # fmt: skip
    stage.announce(NEW, LATE, CHANGED, FAILED, PASSED, IGNORED)
    stage.broker.publish([stage.bucket.event(GONE)])
    stage.wait_for("done", NEW, LATE, CHANGED, PASSED, IGNORED, GONE)
    stage.bucket.put(CHANGED, csv([ticket("INC2", owner="second")]))
    stage.announce(CHANGED)
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE state = 'done'") == 7, "the changed one")
    consumer.stop()
    stage.bucket.put_all({PASSED: csv([ticket("INC3", owner="second")]), WAITING: csv([ticket("INC4")])})
    stage.run("drain", "--apply", FLEETTICKETS_CHANGED_POLICY="ignore")
    stage.bucket.put(WAITING, csv([ticket("INC5")]))
    return stage


def decisions(life: dict[str, Any]) -> list[tuple[str, str]]:
    return [(version["decision"], version["state"]) for version in life["versions"]]


def test_an_applied_file(lived: Stage) -> None:
    life = lived.ask("explain", NEW)
    assert decisions(life) == [("new", "done")]
    (version,) = life["versions"]
    assert (version["rows_inserted"], version["rows_rejected"], version["tickets_last_written"]) == (1, 1, 1)
    assert [(reject["line"], reject["reason"]) for reject in version["rejects"]] == [
        (3, version["rejects"][0]["reason"])
    ]
    assert [found["key"] for found in life["processed"]] == [NEW.replace(CHANGES, PROCESSED)]
    assert (life["changes"], life["dead_letters"], life["faults"]) == (None, [], {})
    assert life["next"] == "nothing: it is done"


def test_a_late_file_by_the_name_of_its_archive(lived: Stage) -> None:
    life = lived.ask("explain", LATE.replace(CHANGES, PROCESSED))
    assert (life["key"], decisions(life)) == (LATE, [("late", "done")])


def test_a_changed_file_by_its_bare_name(lived: Stage) -> None:
    life = lived.ask("explain", CHANGED.removeprefix(CHANGES))
    assert decisions(life) == [("new", "done"), ("changed", "done")]
    assert sorted(version["archive_key"] for version in life["versions"]) == sorted(f["key"] for f in life["processed"])
    assert len(life["processed"]) == 2


def test_a_failed_file_and_its_dead_letter(lived: Stage) -> None:
    life = lived.ask("explain", FAILED)
    assert decisions(life) == [("rejected", "failed")]
    assert [letter["reason"] for letter in life["dead_letters"]] == ["not UTF-8"]
    assert "dead-letters replay" in life["next"]
    shown = lived.run("explain", FAILED)
    assert shown.returncode == 0
    assert "in changes/: 20 bytes" in shown.stdout
    assert f"dead letter {life['dead_letters'][0]['id']}: not UTF-8" in shown.stdout


@pytest.mark.parametrize(
    ("key", "decided", "following"),
    [
        (PASSED, [("new", "done"), ("changed", "done")], "nothing: a changed file, passed over by policy"),
        (GONE, [("missing", "done")], "nothing: the bucket does not have it"),
        (IGNORED, [("ignored", "done")], "nothing: it is no change file"),
        (WAITING, [("new", "archived")], "its new bytes are applied as a changed file"),
    ],
)
def test_what_comes_next(lived: Stage, key: str, decided: list[tuple[str, str]], following: str) -> None:
    life = lived.ask("explain", key)
    assert decisions(life) == decided
    assert life["next"].startswith(following)


def test_a_ticket_names_the_line_that_wrote_it_and_who_else_told_of_it(lived: Stage) -> None:
    told = lived.ask("explain", "--ticket", "INC1")
    assert (told["writer"]["key"], told["writer"]["line"], told["writer"]["decision"]) == (NEW, 2, "new")
    assert [(closure["key"], closure["line"]) for closure in told["closures"]] == [(LATE, 2)]
    rejected = lived.ask("explain", "--ticket", "BAD1")
    assert (rejected["ticket"], [reject["key"] for reject in rejected["rejects"]]) == (None, [NEW])


def test_the_history_of_a_ticket_is_in_the_order_of_the_files_names_whenever_they_came(lived: Stage) -> None:
    changes = lived.ask("explain", "--ticket", "INC1", "--history")["history"]["changes"]
    told = [(change["key"], change["line"], change["decision"], change["is_first"]) for change in changes]
    assert told == [(LATE, 2, "late", True), (NEW, 2, "new", False)]
    closed = {value["column"]: (value["old"], value["new"]) for value in changes[1]["values"]}
    assert closed["closed_at"] == ("2026-06-01 09:00", None)
    shown = lived.run("explain", "--ticket", "INC1", "--history").stdout
    assert f"by line 2 of {LATE}, which came late:" in shown
    assert "    closed_at: 2026-06-01 09:00 -> (none)" in shown


def test_both_versions_of_a_changed_file_are_in_the_history(lived: Stage) -> None:
    changes = lived.ask("explain", "--ticket", "INC2", "--history")["history"]["changes"]
    assert [(change["key"], change["values"]) for change in changes[1:]] == [
        (CHANGED, [{"column": "owner", "old": "first", "new": "second"}])
    ]


def test_what_somebody_changed_by_hand_is_told_as_that(lived: Stage) -> None:
    lived.connection.execute("UPDATE tickets.inc SET raw = raw || '{\"owner\": \"me\"}' WHERE ticket_id = 'INC3'")
    (change,) = lived.ask("explain", "--ticket", "INC3", "--history")["history"]["changes"]
    assert change["is_as_told"] is False
    assert (
        "something else than a file has changed them since"
        in lived.run("explain", "--ticket", "INC3", "--history").stdout
    )


def test_the_unknown_and_the_mistaken_are_said_in_a_line(lived: Stage) -> None:
    unknown = lived.run("explain", key_at(999))
    assert (unknown.returncode, unknown.stderr) == (1, "")
    assert "nothing is known of it" in unknown.stdout
    mistaken = lived.run("explain", "somewhere/else.csv")
    assert (mistaken.returncode, len(mistaken.stderr.splitlines())) == (2, 1)
    away = lived.run("explain", NEW, "--json", RABBITMQ_URL="amqp://guest:guest@nowhere.invalid:5672/")
    assert away.returncode == 1
    life = lived.json(away)
    assert list(life["faults"]) == ["broker"]
    assert decisions(life) == [("new", "done")]

"""What an operator does without a broker, and at the cut-over to a new bucket."""

from pathlib import Path

import pytest

from tests.acceptance.broker import GEOCODE
from tests.acceptance.comparing import assert_equals_reference, tickets
from tests.acceptance.feeds import RandomFeed, csv, key_at, ticket
from tests.acceptance.stage import Stage, wait_until
from tests.acceptance.store import CHANGES, PROCESSED

NO_BROKER = {"RABBITMQ_URL": "amqp://127.0.0.1:1/"}
TABLES = ("tickets.inc", "tickets.closure_events", "tickets.import_meta", "ingest.ledger", "ingest.positions",
          "ingest.rejects", "ingest.outbox", "ingest.epochs")  # fmt: skip


def state(stage: Stage) -> dict[str, list[dict[str, object]]]:
    return {table: stage.query(f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608


def test_drain_applies_everything_oldest_to_newest_without_a_broker(stage: Stage) -> None:
    files = RandomFeed(seed=7, tickets=60).files(25, rows=12)
    stage.bucket.put_all({file.key: file.body for file in files})

    before = state(stage)
    tried = stage.run("drain", "--json", **NO_BROKER)
    assert tried.returncode == 0, tried.stderr
    assert state(stage) == before, "a dry run changes nothing"
    assert sorted(stage.waiting()) == sorted(file.key for file in files)

    drained = stage.run("drain", "--apply", **NO_BROKER)
    assert drained.returncode == 0, drained.stderr
    assert_equals_reference(stage, files)
    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {file.key.replace(CHANGES, PROCESSED): file.body for file in files}
    rows = stage.query("SELECT decision, first_seen_by, state FROM ingest.ledger")
    assert {tuple(row.values()) for row in rows} == {("new", "drain", "archived")}
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE sent_at IS NOT NULL") == 0

    consumer = stage.start("consume")
    wait_until(lambda: {row["state"] for row in stage.query("SELECT state FROM ingest.ledger")} == {"done"}, "all done")
    stage.wait_for_history()
    assert stage.broker.ready(GEOCODE) == 1, "one request for all"
    consumer.stop()


def test_a_dry_run_says_what_the_run_then_does(stage: Stage) -> None:
    files = RandomFeed(seed=8, tickets=30).files(8, rows=10)
    stage.bucket.put_all({file.key: file.body for file in files})
    stage.bucket.put(f"{CHANGES}notes.csv", b"ticket_id\n")
    tried, done = stage.ask("drain"), stage.ask("drain", "--apply")
    assert tried["files"] == done["files"]
    assert (tried["applied"], done["applied"]) == (False, True)
    assert stage.waiting() == [f"{CHANGES}notes.csv"]


def test_a_broken_file_stops_neither_the_drain_nor_its_later_dead_letter(stage: Stage) -> None:
    broken, good = key_at(1), key_at(2)
    stage.bucket.put(broken, b"ticket_id\nM\xfc\n")
    stage.bucket.put(good, csv([ticket("GOOD")]))
    drained = stage.run("drain", "--apply", **NO_BROKER)
    assert drained.returncode == 1
    assert f"{broken}: FAILS, not UTF-8" in drained.stdout
    assert stage.waiting() == [broken]
    assert stage.ledger(good)["state"] == "archived"

    consumer = stage.start("consume")
    stage.run("poll")
    wait_until(lambda: stage.ledger(broken)["dead_lettered_at"], "the broken file is a dead letter")
    consumer.stop()
    assert [letter["key"] for letter in stage.ask("dead-letters", "list", "--each")] == [broken]


def test_a_drain_finishes_what_a_killed_consumer_left(stage: Stage) -> None:
    key, body = key_at(1), csv([ticket("HALF")])
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="after commit, before archive")
    stage.bucket.put(key, body)
    stage.announce(key)
    doomed.wait()
    drained = stage.run("drain", "--apply", **NO_BROKER)
    assert "was applied before" in drained.stdout
    assert stage.waiting() == []
    assert stage.bucket.read(key.replace(CHANGES, PROCESSED)) == body
    assert stage.one("SELECT count(*) FROM tickets.inc") == 1


def test_a_new_epoch_lets_the_older_stamped_files_of_a_new_bucket_win(stage: Stage) -> None:
    """Without it the guard would hold the whole new bucket back, as the first assertion shows."""
    stage.bucket.put(key_at(1000), csv([ticket("MOVED", owner="old bucket"), ticket("KEPT", owner="old bucket")]))
    stage.ask("drain", "--apply")
    stage.bucket.put(key_at(10), csv([ticket("MOVED", owner="too early")]))
    stage.ask("drain", "--apply")
    assert tickets(stage)["MOVED"]["owner"] == "old bucket"

    assert stage.ask("reseed", "--yes", "--reason", "cut-over") == {"epoch": 2}
    stage.bucket.put(key_at(20), csv([ticket("MOVED", owner="new bucket")]))
    stage.bucket.put(key_at(15), csv([ticket("MOVED", owner="new bucket, older")]))
    (older, newer) = stage.ask("drain", "--apply")["files"]
    assert (older["decision"], newer["decision"]) == ("new", "new")
    found = tickets(stage)
    assert (found["MOVED"]["owner"], found["KEPT"]["owner"]) == ("new bucket", "old bucket")
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") == key_at(20)


def test_drain_with_reseed_tries_and_does_the_same(stage: Stage) -> None:
    stage.bucket.put(key_at(1000), csv([ticket("MOVED", owner="old bucket")]))
    stage.ask("drain", "--apply")
    stage.bucket.put(key_at(10), csv([ticket("MOVED", owner="new bucket")]))
    (tried,) = stage.ask("drain", "--reseed")["files"]
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 1
    (done,) = stage.ask("drain", "--reseed", "--apply")["files"]
    assert tried == done
    assert done["updated"] == 1
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 2


def test_reseed_asks_first(stage: Stage) -> None:
    refused = stage.run("reseed")
    assert refused.returncode != 0
    assert "outrank all that is there?" in refused.stderr
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 1


@pytest.mark.parametrize("name", ["2026-06-01T120000.csv", "tickets from the office.csv"])
def test_a_local_file_is_imported_once(stage: Stage, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(csv([ticket("LOCAL1"), ticket("LOCAL2", mttr="soon")]))
    tried = stage.ask("import-csv", str(file))
    assert tickets(stage) == {}
    done = stage.ask("import-csv", str(file), "--apply")
    assert done["files"] == tried["files"]
    assert list(tickets(stage)) == ["LOCAL1"]
    assert [row["line"] for row in stage.query("SELECT line FROM ingest.rejects")] == [3]
    again = stage.run("import-csv", str(file), "--apply")
    assert "was applied before" in again.stdout
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") is None


def test_a_local_file_that_is_not_there_is_said_in_one_line(stage: Stage, tmp_path: Path) -> None:
    ended = stage.run("import-csv", str(tmp_path / "nowhere.csv"))
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith("nowhere.csv: No such file or directory")


def test_history_is_captured_by_hand(stage: Stage) -> None:
    stage.bucket.put(key_at(1), csv([ticket("OPEN1")]))
    stage.ask("drain", "--apply")
    assert stage.ask("capture-history") == {"requests": 1}
    assert stage.ask("capture-history") == {"requests": 0}
    assert stage.one("SELECT sum(open_total) FROM tickets.inc_daily_snapshot") == 1

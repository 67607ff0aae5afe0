"""Any order, any repetition, any number of consumers and any crash of them: the same tables in the end."""

import random

import pytest

from tests.stage.broker import DEAD_FILES, GEOCODE
from tests.stage.comparing import assert_equals_oracle, tickets
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED


def wait_for_done(stage: Stage, files: int) -> None:
    done = "SELECT count(*) FROM ingest.ledger WHERE state = 'done'"
    wait_until(lambda: stage.one(done) >= files, f"{files} files done")


@pytest.mark.promise("Order-free", "Exactly once")
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.faults)])
def test_hundreds_of_shuffled_and_repeated_files_end_as_the_reference_says(stage: Stage, count: int) -> None:
    rng = random.Random(20260625)
    stage.environment["FLEETTICKETS_HISTORY_INTERVAL"] = "1"
    files = RandomFeed(seed=1, tickets=count * 2 // 5).files(count, rows=10)
    shuffled = rng.sample(files, len(files))
    unannounced, announced = shuffled[: count * 92 // 100], shuffled[count * 92 // 100 :]
    first, second = unannounced[: count // 2], unannounced[count // 2 :]
    consumers = [stage.start("consume") for _ in range(3)]
    poller = stage.start("poll", "--every", "1")

    stage.bucket.put_all({file.key: file.body for file in first})
    stage.broker.publish(stage.bucket.event(file.key, file.body) for file in rng.sample(first, count * 15 // 100))
    stage.bucket.put_all({file.key: file.body for file in second})
    for done in (count // 5, count // 2):
        wait_for_done(stage, done)
        consumers.pop().kill()
        consumers.append(stage.start("consume"))
        again = rng.sample(unannounced, count * 7 // 100)
        stage.broker.publish(stage.bucket.event(file.key, file.body) for file in again)
    stage.bucket.notify(stage.broker)
    stage.bucket.put_all({file.key: file.body for file in announced})

    wait_for_done(stage, len(files))
    stage.wait_for_history()
    for process in [*consumers, poller]:
        process.stop()

    assert_equals_oracle(stage, files)
    ledger = stage.query("SELECT key, state, archive_key, duplicates, decision, first_seen_by FROM ingest.ledger")
    assert sorted(row["key"] for row in ledger) == sorted(file.key for file in files)
    assert {row["state"] for row in ledger} == {"done"}
    assert {row["decision"] for row in ledger} <= {"new", "late"}
    assert {row["first_seen_by"] for row in ledger} == {"poller", "notification"}
    assert sum(row["duplicates"] for row in ledger) > 0
    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {file.key.replace(CHANGES, PROCESSED): file.body for file in files}
    assert stage.broker.messages(DEAD_FILES) == []
    captures = sum(process.output().count('"event": "history"') for process in stage.processes)
    assert 0 < captures < len(files) / 2


def delivered(stage: Stage, key: str, body: bytes) -> None:
    """The object arrives and is announced, and whatever has to come of it has come."""
    if not stage.processes:
        stage.start("consume")
    before = seen(stage, key)
    stage.bucket.put(key, body)
    stage.announce(key)
    wait_until(lambda: seen(stage, key) > before and stage.bucket.keys(key) == [], f"{key} is dealt with")


def seen(stage: Stage, key: str) -> int:
    """How many deliveries of the key have been dealt with."""
    query = """SELECT coalesce(sum(1 + duplicates), 0)::int FROM ingest.ledger WHERE key = %s AND state = 'done'"""
    return int(stage.one(query, key))


@pytest.mark.promise("Late files count")
def test_a_late_file_adds_what_is_new_and_overwrites_nothing_newer(shared_stage: Stage) -> None:
    stage, late, newer = shared_stage, key_at(100), key_at(110)
    delivered(stage, newer, csv([ticket("LATE1", owner="newer")]))
    delivered(stage, late, csv([ticket("LATE1", owner="older"), ticket("LATE2", owner="older")]))
    assert tickets(stage)["LATE1"]["owner"] == "newer"
    assert tickets(stage)["LATE2"]["owner"] == "older"
    row = stage.ledger(late)
    assert (row["decision"], row["rows_stale"], row["rows_inserted"]) == ("late", 1, 1)
    assert stage.ledger(newer)["decision"] == "new"
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") == newer


@pytest.mark.promise("Order-free")
def test_a_row_that_changes_nothing_still_keeps_older_ones_out(shared_stage: Stage) -> None:
    stage = shared_stage
    delivered(stage, key_at(200), csv([ticket("SAME", owner="first")]))
    delivered(stage, key_at(220), csv([ticket("SAME", owner="first")]))
    assert stage.ledger(key_at(220))["rows_unchanged"] == 1
    delivered(stage, key_at(210), csv([ticket("SAME", owner="between")]))
    assert tickets(stage)["SAME"]["owner"] == "first"


@pytest.mark.promise("Exactly once", "No silent decision")
def test_a_duplicate_delivery_only_counts(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(300)
    body = csv([ticket("TWICE", closed_at="2026-06-01 08:00")])
    delivered(stage, key, body)
    rows, row = stage.query("SELECT * FROM tickets.inc"), stage.ledger(key)
    stage.broker.publish([stage.bucket.event(key, body)])
    wait_until(lambda: stage.ledger(key)["duplicates"] == 1, "the duplicate is counted")
    assert stage.query("SELECT * FROM tickets.inc") == rows
    assert stage.ledger(key) == row | {"duplicates": 1}
    assert stage.one("SELECT count(*) FROM tickets.closure_events WHERE ticket_id = 'TWICE'") == 1
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE file_id = %s", row["file_id"]) == 2


@pytest.mark.promise("No silent decision", "Nothing lost")
def test_other_bytes_under_a_known_key_are_applied_and_both_are_kept(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(400)
    first, second = csv([ticket("EDITED", owner="first")]), csv([ticket("EDITED", owner="second")])
    delivered(stage, key, first)
    delivered(stage, key, second)
    assert tickets(stage)["EDITED"]["owner"] == "second"
    rows = stage.query("SELECT decision, archive_key FROM ingest.ledger WHERE key = %s ORDER BY file_id", key)
    assert [row["decision"] for row in rows] == ["new", "changed"]
    archived = {row["archive_key"]: stage.bucket.read(row["archive_key"]) for row in rows}
    assert list(archived.values()) == [first, second]
    plain = key.replace(CHANGES, PROCESSED)
    assert rows[0]["archive_key"] == plain
    assert rows[1]["archive_key"].startswith(plain.removesuffix(".csv"))


@pytest.mark.promise("Exactly once")
def test_the_same_bytes_put_again_are_a_duplicate_and_leave_changes(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(500)
    body = csv([ticket("AGAIN")])
    delivered(stage, key, body)
    delivered(stage, key, body)
    assert stage.ledger(key)["duplicates"] == 1
    archived = stage.bucket.read_all(key.replace(CHANGES, PROCESSED).removesuffix(".csv"))
    assert list(archived.values()) == [body]


@pytest.mark.promise("Order-free")
def test_coordinates_do_not_depend_on_the_order_of_the_files(shared_stage: Stage) -> None:
    stage, places = shared_stage, {}
    older, newer = {"latitude": "-1.25", "longitude": "36.8"}, {"owner": "moved"}
    for name, minutes in (("INORDER", (600, 610)), ("SWAPPED", (630, 620))):
        files = zip(sorted(minutes), (older, newer), strict=True)
        rows = {when: csv([ticket(name, **values)]) for when, values in files}
        for when in minutes:
            delivered(stage, key_at(when), rows[when])
        places[name] = [tickets(stage)[name][axis] for axis in ("latitude", "longitude")]
    assert places["INORDER"] == places["SWAPPED"]


@pytest.mark.promise("No silent decision")
def test_an_event_before_its_object_is_missing_and_the_object_is_applied_when_it_is_there(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(700)
    body = csv([ticket("EARLY")])
    if not stage.processes:
        stage.start("consume")
    stage.broker.publish([stage.bucket.event(key, body)])
    missing = "SELECT count(*) FROM ingest.ledger WHERE key = %s AND decision = 'missing'"
    wait_until(lambda: stage.one(missing, key) == 1, "the key is missing")
    delivered(stage, key, body)
    assert "EARLY" in tickets(stage)
    rows = stage.query("SELECT decision FROM ingest.ledger WHERE key = %s AND state = 'done' AND rows_read = 1", key)
    assert [row["decision"] in {"new", "late"} for row in rows] == [True]
    assert stage.bucket.read(key.replace(CHANGES, PROCESSED)) == body


@pytest.mark.promise("Exactly once")
def test_bytes_that_return_under_their_key_have_their_requests_sent_and_handled_again(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(800)
    opened = csv([ticket("BACK", cluster="Returning")])
    closed = csv([ticket("BACK", cluster="Returning", normalized_status="closed", raw_status="Closed")])
    delivered(stage, key, opened)
    newest = "SELECT max(request_id) FROM ingest.outbox WHERE kind = 'geocode'"
    first = stage.one(newest)
    delivered(stage, key, closed)
    stage.wait_for_history()
    captured = "SELECT coalesce(sum(open_total), 0) FROM tickets.inc_daily_snapshot WHERE cluster = 'Returning'"
    assert stage.one(captured) == 0
    stage.bucket.put(key, opened)
    stage.announce(key)
    returned = stage.one("SELECT min(file_id) FROM ingest.ledger WHERE key = %s", key)
    state = "SELECT decision || ' ' || state FROM ingest.ledger WHERE file_id = %s"
    wait_until(lambda: stage.one(state, returned) == "changed done", "the first bytes are applied again")
    stage.wait_for_history()
    assert stage.one(captured) == 1
    # Asked anew, a request has another number: what is under way for the first one does not answer for the second.
    asked = stage.one("SELECT request_id FROM ingest.outbox WHERE file_id = %s AND kind = 'geocode'", returned)
    assert asked != first
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE kind = 'geocode' AND sent_at IS NULL") == 0
    assert stage.broker.ready(GEOCODE) == 1

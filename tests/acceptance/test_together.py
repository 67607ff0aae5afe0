"""Small files that wait are applied together; each keeps its own counts, and what is wrong with one stays its own."""

import gzip
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.doubles.faulty_store import FaultyStore
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

ALONE = {"FLEETTICKETS_FILES_IN_HAND": "1"}
"""One thread: it begins with the first delivery, and takes those that have come meanwhile together."""


@contextmanager
def consumed(stage: Stage, keys: list[str], **environment: str) -> Iterator[Process]:
    """All are announced before there is a consumer."""
    stage.announce(*keys)
    consumer = stage.start("consume", **ALONE, **environment)
    yield consumer
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
    consumer.stop()


def transactions(stage: Stage, keys: list[str]) -> int:
    """In which their rejects were kept."""
    claimed = """SELECT count(DISTINCT rejects.xmin::text) FROM ingest.rejects JOIN ingest.ledger USING (file_id)
                 WHERE key = ANY(%s)"""
    return int(stage.one(claimed, keys))


@pytest.mark.promise("One transaction", "Order-free")
def test_files_that_wait_share_a_transaction_and_keep_counts_of_their_own(stage: Stage) -> None:
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    keys = [key_at(number) for number in range(6)]
    for number, key in enumerate(keys):
        rows = [ticket("SHARED", owner=f"owner {number}"), ticket(f"OWN{number}"), ticket("")]
        stage.bucket.put(key, csv([*rows, ticket(f"OWN{number}", owner="again")]))
    with consumed(stage, keys):
        stage.wait_for("done", *keys)
    found = stage.query(
        """SELECT rows_read AS read, rows_inserted AS inserted, rows_stale AS stale, rows_superseded AS superseded,
                  rows_rejected AS rejected, (SELECT count(*) FROM ingest.rejects WHERE file_id = file.file_id) AS kept
           FROM ingest.ledger AS file ORDER BY key"""
    )
    assert {row["read"] for row in found} == {4}
    assert {row["superseded"] for row in found} == {1}
    assert {(row["rejected"], row["kept"]) for row in found} == {(1, 1)}
    assert sum(row["inserted"] for row in found) == 7
    assert found[-1]["stale"] == 0, "nothing outranks the newest"
    assert stage.one("SELECT raw->>'owner' FROM tickets.inc WHERE ticket_id = 'SHARED'") == "owner 5"
    assert transactions(stage, keys) < len(keys)
    assert stage.one("SELECT row_count FROM tickets.import_meta") == 7
    assert stage.one("SELECT metadata->>'source_max_key' FROM tickets.import_meta") == keys[-1]


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_bad_one_among_several_costs_the_others_a_second_try_and_nothing_else(stage: Stage) -> None:
    good, bad = [key_at(number) for number in range(6)], key_at(7)
    stage.bucket.put_all({key: csv([ticket(f"INC{number}")]) for number, key in enumerate(good)})
    stage.bucket.put(bad, b"ticket_id,M\xfc\nINC9,x\n")
    with consumed(stage, [*good[:3], bad, *good[3:]]) as consumer:
        stage.wait_for("done", *good)
        stage.wait_for("failed", bad)
    assert '"one by one"' in consumer.output()
    assert stage.ledger(bad)["reason"] == "not UTF-8"
    assert stage.query("SELECT key FROM ingest.ledger WHERE attempts > 0") == [{"key": bad}]
    assert stage.one("SELECT count(*) FROM tickets.inc") == 6


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_bad_one_that_comes_alone_is_one_failure_and_told_once(stage: Stage) -> None:
    bad, good = key_at(0), key_at(1)
    stage.bucket.put(bad, b"ticket_id,M\xfc\nINC9,x\n")
    with consumed(stage, [bad]) as consumer:
        stage.wait_for("failed", bad)
        stage.bucket.put(good, csv([ticket("INC1")]))
        stage.announce(good)
        stage.wait_for("done", good)
    (found,) = stage.query("SELECT attempts, duplicates, reason FROM ingest.ledger WHERE key = %s", bad)
    assert found == {"attempts": 1, "duplicates": 0, "reason": "not UTF-8"}
    assert stage.broker.ready(DEAD_FILES) == 1
    lines = [json.loads(line) for line in consumer.output().splitlines() if line.startswith("{")]
    told = [line for line in lines if line["event"] in {"tried again", "dead letter"}]
    assert [line["event"] for line in told] == ["tried again", "dead letter"]
    assert len({line["trace_id"] for line in told}) == 1


@pytest.mark.promise("Exactly once")
def test_one_key_several_times_among_several_is_applied_once(stage: Stage) -> None:
    keys = [key_at(number) for number in range(4)]
    stage.bucket.put_all({key: csv([ticket(f"INC{number}")]) for number, key in enumerate(keys)})
    with consumed(stage, [*keys, *keys, keys[2]]):
        stage.wait_for("done", *keys)
        wait_until(lambda: stage.one("SELECT sum(duplicates) FROM ingest.ledger") == 5, "each other one is counted")
    counts = stage.query("SELECT rows_inserted AS inserted FROM ingest.ledger ORDER BY key")
    assert [row["inserted"] for row in counts] == [1] * 4


@pytest.mark.promise("One bad thing stays one bad thing")
def test_one_that_is_packed_goes_its_own_way_whatever_it_unpacks_to(stage: Stage) -> None:
    keys, bomb = [key_at(number) for number in range(5)], key_at(7)
    stage.bucket.put_all({key: csv([ticket(f"INC{number}")]) for number, key in enumerate(keys)})
    stage.bucket.put(bomb, gzip.compress(b"ticket_id,owner\n" + b"INC9,x\n" * 300_000))
    with consumed(stage, [*keys[:3], bomb, *keys[3:]]) as consumer:
        stage.wait_for("done", *keys)
        stage.wait_for("failed", bomb)
    assert stage.ledger(bomb)["reason"] == "out of proportion"
    assert "one by one" not in consumer.output()


def test_one_that_is_larger_than_its_event_says_goes_its_own_way(stage: Stage) -> None:
    keys = [key_at(number) for number in range(5)]
    rows = csv(ticket(f"LARGE{number}", owner="x" * 1000) for number in range(400))
    bodies = {key: csv([ticket(f"INC{number}")]) for number, key in enumerate(keys)} | {keys[3]: rows}
    stage.bucket.put_all(bodies)
    events = [json.loads(stage.bucket.event(key, body)) for key, body in bodies.items()]
    for event in events:
        event["Records"][0]["s3"]["object"]["size"] = 100
    stage.broker.publish([json.dumps(event).encode() for event in events])
    with consumed(stage, []):
        stage.wait_for("done", *keys)
    assert stage.one("SELECT count(*) FROM tickets.inc") == 404


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize(("method", "folder"), [("GET", "changes/"), ("PUT", "processed/")])
def test_what_the_store_refuses_of_one_holds_up_none_of_several(stage: Stage, method: str, folder: str) -> None:
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    files = RandomFeed(91, tickets=40).files(12, rows=8)
    stage.bucket.put_all({file.key: file.body for file in files})
    failing, *others = [file.key for file in files]
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault(method, f"{folder}{quote(failing.rpartition('/')[2])}", 503)
        with consumed(stage, [*others[:3], failing, *others[3:]], RUSTFS_ENDPOINT=store.url) as consumer:
            stage.wait_for("done", *others)
            store.heal()
            stage.wait_for("done", failing)
    # What cannot be opened is left out; what cannot be archived sends the others their own way.
    assert ('"one by one"' in consumer.output()) == (method == "PUT")
    assert_equals_oracle(stage, files)
    assert stage.waiting() == []


def test_one_that_goes_its_own_way_is_not_the_last_of_a_backlog(stage: Stage) -> None:
    """Those that are taken together leave nobody's call to stand before it."""
    keys = [key_at(number) for number in range(240)]
    packed = keys[40]  # by then there is a backlog, also in the consumer's hand
    small = [key for key in keys if key != packed]
    stage.bucket.put_all({key: csv([ticket(f"INC{number}")]) for number, key in enumerate(small)})
    stage.bucket.put(packed, gzip.compress(csv([ticket("PACKED")])))
    stage.announce(*keys)
    consumer = stage.start("consume")
    stage.wait_for("done", *keys)
    consumer.stop()
    before = """SELECT count(*) FROM ingest.ledger AS other JOIN ingest.ledger AS packed ON packed.key = %s
                WHERE other.applied_at < packed.applied_at"""
    assert stage.one(before, packed) < len(small) / 2


@pytest.mark.promise("Exactly once", "Nothing lost")
def test_killed_between_the_archives_of_files_that_were_applied_one_by_one(stage: Stage) -> None:
    """Tails go together, however their files were applied."""
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    first, *others = files = RandomFeed(92, tickets=24).files(3, rows=8)
    stage.bucket.put_all({file.key: file.body for file in files})
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        copy = store.fault("PUT", f"processed/{quote(first.key.rpartition('/')[2])}", "late")
        there = {"RUSTFS_ENDPOINT": store.url, "FLEETTICKETS_FAIL_POINT": "between archives"}
        doomed = stage.start("consume", **ALONE, **there)
        stage.announce(first.key)
        assert copy.met.wait(60), doomed.output()
        for file in others:
            stage.announce(file.key)
            stage.wait_for("applied", file.key)
        store.heal()
        assert doomed.wait() == -signal.SIGKILL, doomed.output()
    left = [file.key for file in others]
    assert stage.one("SELECT count(DISTINCT xmin::text) FROM ingest.ledger WHERE key = ANY(%s)", left) == len(left)
    with consumed(stage, []):
        stage.wait_for("done", *(file.key for file in files))
    assert_equals_oracle(stage, files)
    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {file.key.replace(CHANGES, PROCESSED): file.body for file in files}

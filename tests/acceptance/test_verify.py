"""A system at work has no discrepancies, and what looks like one is looked at twice."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from consumer.upkeep import verify
from publisher.settings import BucketSettings, load
from publisher.store.bucket import Bucket as S3Bucket
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED
from tests.stage.verifying import findings

BROKEN = b"number,owner\nINC1,Otieno\n"
FEEDS = packaged_feeds()


def test_what_a_file_on_its_way_looks_like_is_looked_at_twice(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two looks the file arrives: the first alone would have told of it."""
    looks: list[Any] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: [look() for look in looks])
    monkeypatch.setattr(verify, "time", clock)
    for name in ("DATABASE_URL", "RUSTFS_BUCKET", "RUSTFS_ENDPOINT", "RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"):
        monkeypatch.setenv(name, stage.environment[name])

    def kinds() -> list[str]:
        progress = verify.OnProgress(lambda _listed: None, lambda _read, _of: None)
        verification = verify.verify(
            lambda: database.connect(load(DatabaseSettings), Role.READ),
            S3Bucket(load(BucketSettings), FEEDS.folders),
            FEEDS,
            None,
            progress,
            answer_seconds=30,
            old_seconds=-60,
        )
        assert not verification.faults
        return [kind.value for kind in verification.discrepancies]

    stage.bucket.put(key_at(1), csv([ticket("INC1")]))
    assert kinds() == ["waiting_too_long"]
    looks.append(lambda: stage.run("drain", "--apply"))
    assert kinds() == []
    assert stage.ledger(key_at(1))["archived_at"] is not None


def test_consumers_at_work_raise_no_alarm(stage: Stage) -> None:
    consumers = [stage.start("consume") for _ in range(2)]
    wait_until(lambda: all("consuming" in consumer.output() for consumer in consumers), "both consumers are there")
    for round_ in range(2):
        keys = [key_at(100 * round_ + number) for number in range(50)]
        files = {key: csv([ticket(f"INC{number % 40}") for number in range(20)]) for key in keys}
        files |= dict.fromkeys(keys[::9], BROKEN)
        stage.bucket.put_all(files)
        stage.announce(*keys)
        wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger") > 50 * round_ + 3, "the files are in hand")  # noqa: B023
        assert findings(stage, "--old", "30", *(["--content"] if round_ else [])) == {}
    wait_until(lambda: stage.broker.ready(FILES) == 0, "all is worked off")
    for consumer in consumers:
        consumer.stop()
    assert findings(stage) == {}


def test_a_mistake_is_one_line(shared_stage: Stage) -> None:
    ended = shared_stage.run("verify", "--limit", "5")
    assert (ended.returncode, ended.stderr) == (2, "fleettickets: --since and --limit go with --content\n")


def test_what_cannot_be_looked_at_is_told_with_a_status_of_its_own(shared_stage: Stage) -> None:
    stage = shared_stage
    for part, name, nowhere in (
        ("database", "DATABASE_URL", "postgresql://postgres@nowhere.invalid:5432/fleettickets"),
        ("bucket", "RUSTFS_ENDPOINT", "http://127.0.0.1:1"),
        ("broker", "RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:1/%2f"),
    ):
        ended = stage.run("verify", "--json", **{name: nowhere})
        found = stage.json(ended)
        assert (ended.returncode, list(found["faults"]), found["accounted_for"]) == (3, [part], None), ended.stderr
        shown = stage.run("verify", **{name: nowhere})
        assert (shown.returncode, f"{part} cannot be looked at: " in shown.stdout) == (3, True), shown.stderr
    stage.bucket.put(f"{PROCESSED}foreign.csv", b"what is this")
    ended = stage.run("verify", "--json", RABBITMQ_URL="amqp://guest:guest@127.0.0.1:1/%2f")
    found = stage.json(ended)
    assert (ended.returncode, list(found["discrepancies"]), list(found["faults"])) == (1, ["unrecorded"], ["broker"])


def test_failed_files_without_object_or_letter_are_lost_and_a_refused_object_ends_no_verification(stage: Stage) -> None:
    retrying, letterless = key_at(1), key_at(2)
    for key, column in ((retrying, "retry_at"), (letterless, "dead_lettered_at")):
        stage.query(
            f"""INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state, {column})
                VALUES (%s, 'automations/inc/', %s, 'e', 1, 'poller', 'rejected', 'failed', now() - interval '1 h')
                RETURNING file_id""",  # noqa: S608
            stage.bucket.name, key,
        )  # fmt: skip
    foreign = [f"{PROCESSED}{name}.csv" for name in ("foreign", "hidden")]
    stage.bucket.put_all(dict.fromkeys(foreign, b"what is this"))
    stage.bucket.deny("s3:GetObject", foreign[1])
    assert findings(stage) == {"lost": sorted([retrying, letterless]), "unrecorded": foreign}


def test_a_failed_version_is_history_once_a_later_one_was_applied_and_a_failure_again_when_it_comes_back(
    stage: Stage,
) -> None:
    other, key = key_at(1), key_at(2)

    def failures() -> list[Any]:
        found = stage.ask("status")["database"]
        noted = stage.json(stage.run("verify", "--json"))["notes"]
        error = found["last_error"] and found["last_error"]["key"]
        return [found["unfinished_files"].get("failed", 0), error, noted["failed"], noted["superseded"]]

    stage.bucket.put_all({other: BROKEN, key: BROKEN})
    assert stage.run("drain", "--apply").returncode == 1
    assert failures() == [2, key, 2, 0]
    stage.bucket.put(key, csv([ticket("MENDED")]))
    assert stage.run("drain", "--apply").returncode == 1
    assert failures() == [1, other, 1, 1]
    assert findings(stage) == {"failed_without_letter": [other]}
    stage.bucket.put(key, BROKEN)
    assert stage.run("drain", "--apply").returncode == 1
    assert failures() == [2, key, 2, 0]
    assert findings(stage) == {"failed_without_letter": [other, key]}


def test_what_was_let_go_of_and_what_is_another_buckets_is_no_discrepancy(stage: Stage) -> None:
    discarded, elsewhere = key_at(1), key_at(2)
    consumer = stage.start("consume")
    stage.bucket.put(discarded, BROKEN)
    stage.announce(discarded)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "a dead letter")
    stage.wait_for("failed", discarded)
    consumer.stop()
    stage.ask("dead-letters", "discard", "--all", "--reason", "a test")
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=discarded)
    body = stage.bucket.event(elsewhere).replace(stage.bucket.name.encode(), b"another-bucket")
    headers = {"fleettickets-key": elsewhere, "fleettickets-reason": "planted", "fleettickets-dead-at": "2026-06-01"}
    with stage.broker.channel() as channel:
        stage.broker.publish_to(channel, "fleettickets.dead", "files", body, headers)
    assert findings(stage, "--old", "0") == {}


def test_tickets_that_are_gone_are_counted_also_after_bytes_that_returned(stage: Stage) -> None:
    first, other = csv([ticket(name) for name in ("A", "B", "C")]), csv([ticket("A", owner="other")])
    for body in (first, other, first):
        stage.bucket.put(key_at(1), body)
        stage.ask("drain", "--apply")
    stage.bucket.put(key_at(2), csv([ticket("LAST")]))
    stage.ask("drain", "--apply")
    assert findings(stage, "--without-broker") == {}
    for table in ("tickets.inc", "ingest.positions"):
        stage.query(f"DELETE FROM {table} WHERE ticket_id = 'B' RETURNING 1")  # noqa: S608
    assert findings(stage, "--without-broker") == {"rows_missing": ["tickets of inc"]}


def test_a_failed_file_that_a_consumer_has_in_hand_needs_no_letter(stage: Stage) -> None:
    key = key_at(1)
    stage.bucket.put(key, BROKEN)
    assert stage.run("drain", "--apply").returncode == 1
    with stage.another_has(key):
        assert findings(stage) == {}
    assert findings(stage) == {"failed_without_letter": [key]}


def test_a_loss_that_is_acknowledged_is_told_apart_with_its_reason_and_a_later_one_is_a_loss_again(
    stage: Stage,
) -> None:
    key, kept = key_at(1), key_at(2)
    stage.bucket.put_all({key: csv([ticket("A")]), kept: csv([ticket("B")])})
    consumer = stage.start("consume")
    stage.announce(key, kept)
    stage.wait_for("done", key, kept)
    stage.wait_for_history()
    consumer.stop()
    gone = key.replace(CHANGES, PROCESSED)
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=gone)
    assert findings(stage) == {"lost": [gone]}
    assert (
        f"verify calls it lost; where it is gone for good: fleettickets acknowledge {key}"
        in (stage.ask("explain", key)["next"])
    )
    for named, reason, status, why in (
        (kept, "a test", 1, "is not lost: the bucket has"),
        (key_at(3), "a test", 1, "is not lost: the ledger has no version"),
        (gone, " ", 2, "--reason is empty"),
    ):
        ended = stage.run("acknowledge", gone, named, "--reason", reason)
        assert (ended.returncode, len(ended.stderr.splitlines()), why in ended.stderr) == (status, 1, True)
    assert findings(stage) == {"lost": [gone]}, "nothing is kept where one of them is none"
    bare_name = gone.rpartition("/")[2]
    told = stage.ask("acknowledge", bare_name, "--reason", "deleted by hand\x1b[2J")["acknowledged"]
    assert [(loss["key"], loss["object_key"]) for loss in told] == [(key, gone)]
    assert findings(stage) == {}
    verified = stage.ask("verify")
    assert verified["notes"]["acknowledged_losses"] == 1
    (loss,) = verified["acknowledged"]
    assert (loss["subject"], loss["reason"]) == (gone, "deleted by hand\x1b[2J")
    assert "@" in loss["acknowledged_by"]
    shown = stage.run("verify").stdout
    assert f"{gone}: deleted by hand\\x1b[2J (" in shown
    life = stage.ask("explain", key)
    known = life["versions"][0]["loss"]
    assert {name: known[name] for name in known} == {name: loss[name] for name in known}
    assert known.keys() == {"reason", "acknowledged_by", "login", "acknowledged_at"}
    assert life["next"] == "nothing; its archived object is gone: somebody has said why"
    told_of_life = stage.run("explain", key).stdout
    assert f"acknowledged: deleted by hand\\x1b[2J ({loss['acknowledged_by']}, " in told_of_life
    assert stage.ask("explain", kept)["versions"][0]["loss"] is None
    stage.bucket.put(key, csv([ticket("A", owner="later")]))
    stage.ask("drain", "--apply")
    later = stage.one("SELECT max(archive_key) FROM ingest.ledger WHERE key = %s AND decision = 'changed'", key)
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=later)
    assert findings(stage) == {"lost": [later]}


def test_what_a_rule_of_the_bucket_deletes_is_not_lost_unless_it_is_gone_too_soon(stage: Stage) -> None:
    old, young = key_at(1), key_at(2)
    stage.bucket.put_all({old: csv([ticket("A")]), young: csv([ticket("B")])})
    stage.ask("drain", "--apply")
    stage.connection.execute(
        "UPDATE ingest.ledger SET archived_at = archived_at - interval '31 days', "
        "applied_at = applied_at - interval '31 days' WHERE key = %s",
        [old],
    )
    gone = [key.replace(CHANGES, PROCESSED) for key in (old, young)]
    for key in gone:
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)
    assert findings(stage) == {"lost": gone}
    stage.environment["FLEETTICKETS_KEEP_ARCHIVE_DAYS"] = "30"
    assert findings(stage) == {"lost": gone[1:]}
    assert stage.json(stage.run("verify", "--json"))["notes"]["expired"] == 1

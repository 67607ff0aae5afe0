"""Every kind of damage is named, each on its own file, and a system at work has none."""

import hashlib
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from consumer.upkeep import verify
from publisher.settings import BucketSettings, load
from publisher.store.bucket import Bucket as S3Bucket
from tests.acceptance.broker import DEAD_FILES, FILES
from tests.acceptance.feeds import csv, key_at, ticket
from tests.acceptance.stage import Stage, wait_until
from tests.acceptance.store import CHANGES, PROCESSED

BROKEN = b"number,owner\nINC1,Otieno\n"
FEW_SECONDS = ("--old", "1")


def archived(key: str) -> str:
    return key.replace(CHANGES, PROCESSED)


def findings(stage: Stage, *options: str) -> dict[str, list[str]]:
    """Each kind with what it names."""
    ended = stage.run("verify", "--json", *options)
    assert ended.stderr == ""
    verdict = stage.json(ended)
    found = {kind: [each["subject"] for each in of["examples"]] for kind, of in verdict["discrepancies"].items()}
    assert {kind: of["count"] for kind, of in verdict["discrepancies"].items()} == {k: len(v) for k, v in found.items()}
    assert ended.returncode == (1 if found else 0)
    return found


def letter(stage: Stage, key: str) -> None:
    """A dead letter of a file that nobody knows."""
    with stage.broker.channel() as channel:
        headers = {"fleettickets-key": key, "fleettickets-reason": "planted", "fleettickets-dead-at": "2026-06-01"}
        stage.broker.publish_to(channel, "fleettickets.dead", "files", stage.bucket.event(key), headers)


def take_letter(stage: Stage, key: str) -> None:
    """Remove a dead letter, as a broker that lost it."""
    with stage.broker.channel() as channel:
        while True:
            method, properties, _ = channel.basic_get(DEAD_FILES)
            if method is None or properties is None:
                return
            if (properties.headers or {})["fleettickets-key"] == key:
                channel.basic_ack(method.delivery_tag or 0)


def with_a_broken_record(stage: Stage, key: str) -> bytes:
    """A body whose first record is the file's event and whose second is none."""
    body = json.loads(stage.bucket.event(key, stage.bucket.read(key)))
    return json.dumps({"Records": [*body["Records"], {"eventName": 7}]}).encode()


def plant(stage: Stage, key: str, state: str) -> None:
    """A ledger row of a version that was seen an hour ago, and never applied."""
    stage.connection.execute(
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, first_seen_at, decision, state)
           VALUES (%s, 'automations/inc/', %s, 'e', 1, 'poller', now() - interval '1 h', 'new', %s)""",
        [stage.bucket.name, key, state],
    )


def put_in_parts(stage: Stage, key: str, body: bytes) -> None:
    """Store an object so that its ETag is not that of its copy."""
    s3: Any = stage.bucket.s3
    upload = s3.create_multipart_upload(Bucket=stage.bucket.name, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=stage.bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket=stage.bucket.name, Key=key, UploadId=upload, MultipartUpload=parts)


def test_each_damage_is_named_by_its_kind_and_nothing_else_is(stage: Stage) -> None:  # noqa: PLR0915 - one story
    keys = {number: key_at(number) for number in range(25)}
    files = {key: csv([ticket(f"INC{number}"), ticket(f"BAD{number}", mttr="soon")]) for number, key in keys.items()}
    gone, forgotten, mended, unknown = key_at(40), key_at(41), key_at(42), key_at(43)
    waiting, overdue, newest = key_at(50), key_at(51), key_at(60)
    stood, unapplied, unarchived, unexplained = (key_at(number) for number in range(70, 74))
    consumer = stage.start("consume", FLEETTICKETS_FILES_IN_HAND="1")
    stage.bucket.put_all(files | dict.fromkeys((gone, forgotten, mended), BROKEN))
    put_in_parts(stage, keys[14], files[keys[14]])
    stage.announce(*files, gone, forgotten, mended)
    stage.wait_for("done", *files)
    stage.wait_for("failed", gone, forgotten, mended)
    changed = csv([ticket("CHANGED")])
    stage.bucket.put_all({keys[13]: changed, keys[15]: BROKEN, newest: csv([ticket("NEWEST")])})
    stage.announce(keys[13], keys[15])
    stage.broker.publish([with_a_broken_record(stage, newest)])
    stage.wait_for("done", newest)
    stage.wait_for("failed", keys[15])
    wait_until(lambda: stage.waiting() == [keys[15], gone, forgotten, mended], "all is archived")
    stage.wait_for_history()
    stage.bucket.put(f"{CHANGES}notes.txt", b"left alone")
    assert findings(stage, *FEW_SECONDS, "--content") == {}, (
        "a suffixed archive, a copy's other ETag and a letter of half a body are in order"
    )

    stage.bucket.put(mended, csv([ticket("MENDED")]))
    stage.announce(mended)
    stage.wait_for("done", mended)
    left = [keys[15], gone, forgotten, f"{CHANGES}notes.txt"]
    wait_until(lambda: stage.waiting() == left, "the mended file is archived")
    stage.wait_for_history()
    consumer.stop()

    def delete(key: str) -> None:
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)

    def tampered(number: int, change: str) -> None:
        stage.connection.execute("SET session_replication_role = replica")  # what a trigger would not let anybody do
        stage.connection.execute(f"UPDATE ingest.ledger SET {change} WHERE key = %s".encode(), [keys[number]])  # noqa: S608

    unrecorded = archived(key_at(90))
    stage.bucket.put_all({unrecorded: files[keys[0]], f"{PROCESSED}foreign.txt": b"what is this"})
    delete(archived(keys[1]))
    delete(gone)
    delete(keys[15])
    take_letter(stage, keys[15])
    stage.bucket.put(archived(keys[2]), b"cut off")
    stage.bucket.put(archived(keys[3]), files[keys[3]].replace(b"INC", b"XYZ"))
    tampered(4, "sha256 = repeat('0', 64)")
    tampered(5, "state = 'applied', archive_key = NULL, archived_at = NULL, applied_at = now() - interval '1 h'")
    stage.bucket.put(keys[6], files[keys[6]])
    stage.bucket.put_all({waiting: files[keys[0]], overdue: BROKEN})
    stage.query(
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state, retry_at)
           VALUES (%s, 'automations/inc/', %s, %s, 1, 'poller', 'rejected', 'failed', now() - interval '1 h')
           RETURNING file_id""",
        stage.bucket.name, overdue, hashlib.md5(BROKEN, usedforsecurity=False).hexdigest(),
    )  # fmt: skip
    take_letter(stage, forgotten)
    letter(stage, unknown)
    tampered(16, "state = 'archived', done_at = NULL, archived_at = now() - interval '1 h'")
    tampered(17, "archive_key = NULL")
    tampered(18, "sha256 = NULL")
    tampered(19, "state = 'seen'")
    plant(stage, stood, "seen")
    for key, state in ((unapplied, "applied"), (unarchived, "archived"), (unexplained, "done")):
        plant(stage, key, state)
    request = """SELECT request_id FROM ingest.outbox JOIN ingest.ledger USING (file_id)
                 WHERE key = %s AND kind = 'history'"""
    unsent, lost = stage.one(request, keys[7]), stage.one(request, keys[8])
    long_ago = (
        "UPDATE ingest.outbox SET created_at = '2026-06-01', handled_at = NULL, sent_at = %s WHERE request_id = %s"
    )
    stage.connection.execute(long_ago, [None, unsent])
    stage.connection.execute(long_ago, ["2026-06-01", lost])
    stage.query("DELETE FROM ingest.outbox USING ingest.ledger file WHERE file.key = %s AND kind = 'geocode'"
                " AND outbox.file_id = file.file_id RETURNING 1", keys[20])  # fmt: skip
    stage.query("DELETE FROM tickets.inc WHERE ticket_id IN ('INC9', 'INC21') RETURNING 1")
    stage.query("DELETE FROM ingest.positions WHERE ticket_id IN ('INC21', 'INC22') RETURNING 1")
    stage.query("DELETE FROM ingest.rejects USING ingest.ledger file WHERE file.key = %s"
                " AND rejects.file_id = file.file_id RETURNING 1", keys[10])  # fmt: skip
    stage.query("DELETE FROM ingest.positions WHERE ticket_id = 'NEWEST' RETURNING 1")
    time.sleep(2)

    letters = sorted(message.body for message in stage.broker.messages(DEAD_FILES))
    expected = {
        "content_differs": [archived(keys[3])],
        "failed_without_letter": [forgotten],
        "letter_of_applied_file": [mended],
        "ledger_inconsistent": [keys[18], keys[19], unapplied, unarchived, unexplained],
        "letter_without_failure": [unknown],
        "lost": [keys[15], keys[17], gone, stood, archived(keys[1])],
        "request_lost": [f"geocode request of {keys[20]}", f"history request {lost}"],
        "request_unsent": [f"history request {unsent}"],
        "rows_missing": [
            "position of ticket INC22", "position of ticket NEWEST", f"positions of {newest}", f"rejects of {keys[10]}",
            "ticket INC9", "tickets",
        ],
        "size_differs": [archived(keys[2])],
        "tail_unfinished": [keys[5], keys[6], keys[16]],
        "unrecorded": [unrecorded, f"{PROCESSED}foreign.txt"],
        "waiting_too_long": [waiting, overdue],
    }  # fmt: skip
    assert findings(stage, *FEW_SECONDS) == expected
    assert sorted(message.body for message in stage.broker.messages(DEAD_FILES)) == letters, "looking disturbs nothing"

    stage.announce(waiting)
    del expected["failed_without_letter"]  # for all that anybody knows, a replay of it is queued
    expected["content_differs"] += [archived(keys[4])]  # which no ETag shows
    assert findings(stage, *FEW_SECONDS, "--content") == expected
    shown = stage.run("verify", "--without-broker")
    assert (shown.returncode, shown.stderr) == (1, "")
    assert f"    {archived(keys[1])}: applied" in shown.stdout
    assert "letter" not in shown.stdout.replace("dead letters and queues", "")


def test_what_a_file_on_its_way_looks_like_is_looked_at_twice(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two looks the file arrives: the first alone would have told of it."""
    looks: list[Any] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: [look() for look in looks])
    monkeypatch.setattr(verify, "time", clock)
    for name in ("DATABASE_URL", "RUSTFS_BUCKET", "RUSTFS_ENDPOINT", "RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"):
        monkeypatch.setenv(name, stage.environment[name])

    def kinds() -> list[str]:
        progress = verify.OnProgress(lambda _listed: None, lambda _read, _of: None)
        with database.connect(load(DatabaseSettings), Role.READ) as connection:
            verification = verify.verify(connection, S3Bucket(load(BucketSettings)), None, progress, old_seconds=-60)
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
    nowhere = shared_stage.run("verify", DATABASE_URL="postgresql://postgres@nowhere.invalid:5432/fleettickets")
    assert nowhere.returncode == 1
    assert len(nowhere.stderr.splitlines()) == 1


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
    assert findings(stage, "--without-broker") == {"rows_missing": ["tickets"]}


def test_a_failed_file_that_a_consumer_has_in_hand_needs_no_letter(stage: Stage) -> None:
    key = key_at(1)
    stage.bucket.put(key, BROKEN)
    assert stage.run("drain", "--apply").returncode == 1
    with stage.another_has(key):
        assert findings(stage) == {}
    assert findings(stage) == {"failed_without_letter": [key]}

"""A database restored to an earlier state is brought back to where the bucket is, from the archive alone."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from consumer.demo.oracle import ChangeFile
from tests.conftest import Database
from tests.stage.comparing import closures, tickets
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedMultipartUploadTypeDef

NO_BROKER = {"RABBITMQ_URL": "amqp://127.0.0.1:1/"}
ONE_AT_A_TIME = {"FLEETTICKETS_FILES_IN_HAND": "1"}
STATES = "SELECT DISTINCT state FROM ingest.ledger"
KNOWN = "SELECT file_id, decision, object_time, applied_at, rows_inserted, rows_updated FROM ingest.ledger ORDER BY 1"
LEDGER = """
    SELECT key, etag, size, sha256, epoch, decision, state, archive_key, rows_read, rows_inserted, rows_updated,
           rows_unchanged, rows_stale, rows_superseded, rows_rejected, alarms_dropped, sentinels_dropped
    FROM ingest.ledger ORDER BY key, etag
"""


def copied(stage: Stage, url: str, name: str) -> str:
    """A copy of the database as it is now, as a dump that was restored would be."""
    stage.connection.close()
    parts = urlsplit(url)
    with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as server:
        source = sql.Identifier(parts.path.removeprefix("/"))
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
    turn_to(stage, url)
    return parts._replace(path=f"/{name}").geturl()


def turn_to(stage: Stage, url: str) -> None:
    stage.connection.close()
    stage.environment["DATABASE_URL"] = url
    stage.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)


@contextmanager
def dumped(stage: Stage) -> Iterator[str]:
    url, name = stage.environment["DATABASE_URL"], f"ft_dump_{uuid.uuid4().hex[:12]}"
    try:
        yield copied(stage, url, name)
    finally:
        turn_to(stage, url)
        stage.connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        for kind in ("ingest", "read"):
            role = sql.Identifier(f"fleettickets_{kind}_{name}")
            stage.connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))


def end_state(stage: Stage) -> dict[str, Any]:
    return {
        "tickets": tickets(stage),
        "closures": closures(stage),
        "ledger": stage.query(LEDGER),
        "watermark": stage.one("SELECT metadata FROM tickets.import_meta"),
        "row_count": stage.one("SELECT row_count FROM tickets.import_meta"),
        "rejects": stage.query("SELECT key, line, raw FROM ingest.rejects JOIN ingest.ledger USING (file_id)"
                               " ORDER BY key, etag, line"),
    }  # fmt: skip


def seen_only(stage: Stage, file: ChangeFile) -> None:
    """A ledger row that says no more than that the version was seen."""
    stage.connection.execute(
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state)
           VALUES (%s, 'automations/inc/', %s, %s, 1, 'poller', 'new', 'seen')""",
        [stage.bucket.name, file.key, hashlib.md5(file.body, usedforsecurity=False).hexdigest()],
    )


def unrecorded(stage: Stage) -> list[str]:
    ended = stage.run("verify", "--json", "--examples", "1000")
    discrepancies = stage.json(ended)["discrepancies"]
    assert discrepancies.keys() == ({"unrecorded"} if ended.returncode else set()), discrepancies
    return [found["subject"] for found in discrepancies.get("unrecorded", {"examples": []})["examples"]]


def finish(stage: Stage) -> None:
    consumer = stage.start("consume")
    wait_until(lambda: {r["state"] for r in stage.query(STATES)} == {"done"}, "all is done")
    consumer.stop()


def made_anew_from_the_archive(stage: Stage, url: str, lost: dict[str, Any]) -> None:
    """Instead of a dump there is an empty database, which has no older state and no batch import's."""
    turn_to(stage, url)
    stage.ask("migrate")
    stage.ask("reseed", "--yes")  # what is older than every epoch belongs to the first all the same
    archive = stage.bucket.keys(PROCESSED)
    assert unrecorded(stage) == sorted(archive)
    assert len(stage.ask("drain", "--from-archive", "--apply")["files"]) == len(archive)
    assert unrecorded(stage) == []
    finish(stage)
    made = end_state(stage)
    for row in [*made["ledger"], *lost["ledger"]]:
        del row["decision"]  # in the order of the instants no file is late
    for table, rows in lost.items():
        assert made[table] == rows, table


@pytest.mark.promise("One transaction", "Nothing lost")
def test_after_a_restore_the_missing_files_are_named_and_applied_from_the_archive(
    stage: Stage, empty_database: Database
) -> None:
    feed = sorted(RandomFeed(seed=21, tickets=60).files(40, rows=8), key=lambda file: (file.key_time, file.key))
    early, late = feed[:12], feed[12:]
    strict, twice, twice_late = key_at(3), key_at(2), key_at(10_000)
    again = {twice: csv([ticket("TWICE", owner="second")]), twice_late: csv([ticket("LATER", owner="second")])}

    def applied(keys: list[str]) -> None:
        # Of several that wait the newest would be taken first, and what they count would be another thing.
        for key in keys:
            stage.announce(key)
            stage.wait_for("done", key)

    stage.bucket.put_all({file.key: file.body for file in early} | {twice: csv([ticket("TWICE")])})
    stage.ask("drain", "--apply")
    stage.bucket.put(strict, csv([*[ticket("STRICT")] * 9, ticket("BAD", mttr="soon")]))
    assert stage.run("drain", "--apply", FLEETTICKETS_MAX_REJECT_SHARE="0").returncode == 1
    assert stage.ledger(strict)["state"] == "failed"

    with dumped(stage) as dump:
        stage.bucket.put_all({file.key: file.body for file in late} | {twice_late: csv([ticket("LATER")])})
        consumer = stage.start("consume", **ONE_AT_A_TIME)
        applied([*(file.key for file in late), twice_late, strict])
        stage.bucket.put_all(again)
        stage.announce(*again)
        versions = "SELECT count(*) FROM ingest.ledger WHERE key = ANY(%s) AND state = 'done'"
        wait_until(lambda: stage.one(versions, list(again)) == 4, "both versions are done")
        wait_until(lambda: {r["state"] for r in stage.query(STATES)} == {"done"}, "all is done")
        consumer.stop()
        never_restored = end_state(stage)
        archive = stage.bucket.read_all(PROCESSED)
        after = stage.query("SELECT archive_key FROM ingest.ledger")

        turn_to(stage, dump)
        seen_only(stage, late[0])
        known = {row["archive_key"] for row in stage.query("SELECT archive_key FROM ingest.ledger")}
        missing = sorted({row["archive_key"] for row in after} - known)
        assert len(missing) == len(late) + 4
        assert unrecorded(stage) == missing
        before = end_state(stage)
        tried = stage.json(stage.run("drain", "--from-archive", "--json"))
        assert end_state(stage) == before, "a dry run changes nothing"
        assert sorted(file["key"] for file in tried["files"]) == missing

        rows = stage.one("SELECT count(*) FROM ingest.ledger")
        half = stage.start("drain", "--from-archive", "--apply", **NO_BROKER)
        wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger") > rows + 5, "half of it is applied")
        half.kill()
        left = unrecorded(stage)
        assert 0 < len(left) < len(missing)
        done = stage.ask("drain", "--from-archive", "--apply")
        # The file that was in hand may have been applied and its place not recorded: that is taken up too.
        assert set(left) <= {file["key"] for file in done["files"]} <= set(missing)
        assert unrecorded(stage) == []
        finish(stage)
        restored = end_state(stage)
        for table in never_restored:
            assert restored[table] == never_restored[table], table

        made_anew_from_the_archive(stage, empty_database.url, never_restored)
        assert stage.bucket.read_all(PROCESSED) == archive, "the archive stays as it is"


@pytest.mark.promise("Order-free")
def test_each_file_goes_to_the_epoch_it_was_archived_in(stage: Stage) -> None:
    """Without it, the older-stamped file of the newer epoch would lose."""
    with dumped(stage) as dump:
        stage.bucket.put(key_at(1000), csv([ticket("MOVED", owner="first epoch")]))
        stage.ask("drain", "--apply")
        stage.ask("reseed", "--yes")
        stage.bucket.put(key_at(10), csv([ticket("MOVED", owner="second epoch")]))
        stage.ask("drain", "--apply")
        (second,) = stage.query(
            "SELECT feed, epoch, reason, began_at FROM ingest.epochs WHERE epoch = 2 AND feed = 'inc'"
        )

        turn_to(stage, dump)
        stage.connection.execute(
            "INSERT INTO ingest.epochs (feed, epoch, reason, began_at) VALUES (%s, %s, %s, %s)", list(second.values())
        )
        assert len(stage.ask("drain", "--from-archive", "--apply")["files"]) == 2
        assert tickets(stage)["MOVED"]["owner"] == "second epoch"
        assert stage.query("SELECT key, epoch FROM ingest.ledger ORDER BY epoch") == [
            {"key": key_at(1000), "epoch": 1},
            {"key": key_at(10), "epoch": 2},
        ]
        assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") == key_at(10)


def test_a_reseed_that_the_dump_lacks_is_repeated_with_the_files_of_the_new_bucket(stage: Stage) -> None:
    stage.bucket.put(key_at(1000), csv([ticket("MOVED", owner="old bucket")]))
    stage.ask("drain", "--apply")
    stage.bucket.put(f"{PROCESSED}{key_at(10).removeprefix(CHANGES)}", csv([ticket("MOVED", owner="new bucket")]))
    (done,) = stage.ask("drain", "--from-archive", "--reseed", "--apply")["files"]
    assert done["updated"] == 1
    assert tickets(stage)["MOVED"]["owner"] == "new bucket"
    assert stage.ledger(key_at(10))["epoch"] == 2


def put_in_parts(stage: Stage, key: str, body: bytes) -> None:
    """In one part; its ETag is not the hash of the bytes all the same."""
    s3, bucket = stage.bucket.s3, stage.bucket.name
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
    parts: CompletedMultipartUploadTypeDef = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts)


def archive_name(key: str, body: bytes | None = None) -> str:
    """Where a file is archived, or would be if the plain name is taken."""
    plain = key.replace(CHANGES, PROCESSED)
    return plain if body is None else f"{plain.removesuffix('.csv')}~{hashlib.sha256(body).hexdigest()[:12]}.csv"


def test_a_copy_with_another_etag_is_known_by_its_bytes_and_nothing_else(stage: Stage) -> None:
    """A store changes the ETag of an object stored in parts when it copies it. Its size alone would say too much."""
    key = key_at(1)
    applied, other = (csv([ticket("PARTS", owner=owner)]) for owner in ("first", "other"))
    assert len(applied) == len(other)
    stage.die_at("after commit, before archive", key, applied)
    put_in_parts(stage, archive_name(key), applied)
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)
    stage.bucket.put(archive_name(key, other), other)
    done = stage.ask("drain", "--from-archive", "--apply")["files"]
    assert [file["key"] for file in done] == [archive_name(key), archive_name(key, other)]
    assert done[0]["outcome"] == "was applied before"
    rows = stage.query("SELECT decision, state, archive_key, rows_read FROM ingest.ledger ORDER BY file_id")
    assert [tuple(row.values()) for row in rows] == [
        ("new", "archived", archive_name(key), 1),
        ("changed", "archived", archive_name(key, other), 1),
    ]
    assert tickets(stage)["PARTS"]["owner"] == "other"


@pytest.mark.parametrize("policy", ["quarantine", "ignore"])
def test_what_was_applied_once_is_applied_again_whatever_the_policy_for_changed_files(
    stage: Stage, policy: str
) -> None:
    key = key_at(1)
    with dumped(stage) as dump:
        for owner in ("first", "second"):
            stage.bucket.put(key, csv([ticket("TWICE", owner=owner)]))
            stage.ask("drain", "--apply")
        turn_to(stage, dump)
        restored = stage.run("drain", "--from-archive", "--apply", FLEETTICKETS_CHANGED_POLICY=policy)
        assert restored.returncode == 0, restored.stdout
        assert tickets(stage)["TWICE"]["owner"] == "second"
        rows = stage.query("SELECT decision, state FROM ingest.ledger ORDER BY file_id")
        assert [tuple(row.values()) for row in rows] == [("new", "archived"), ("changed", "archived")]
        assert stage.waiting() == []


def test_a_version_that_the_dump_knows_keeps_its_own_time(stage: Stage) -> None:
    """By the time of an archive that was copied anew, the first version would be put back after the second."""
    key, owners = key_at(1), ("first", "second")
    bodies = [csv([ticket("KNOWN", owner=owner)]) for owner in owners]
    for body in bodies:
        stage.bucket.put(key, body)
        stage.ask("drain", "--apply")
    # As in a dump that was made after the copy and before its record.
    stage.connection.execute(
        "UPDATE ingest.ledger SET state = 'applied', archived_at = NULL, archive_key = NULL WHERE decision = 'new'"
    )
    before = stage.query(KNOWN)
    stage.bucket.put(archive_name(key), bodies[0])
    (done,) = stage.ask("drain", "--from-archive", "--apply")["files"]
    assert (done["key"], done["outcome"]) == (archive_name(key), "was applied before")
    assert tickets(stage)["KNOWN"]["owner"] == "second"
    assert stage.query(KNOWN) == before
    rows = stage.query("SELECT state, archive_key FROM ingest.ledger ORDER BY file_id")
    assert [tuple(row.values()) for row in rows] == [
        ("archived", archive_name(key)),
        ("archived", archive_name(key, bodies[1])),
    ]


def test_a_version_that_the_dump_has_as_seen_is_applied_from_the_archive_though_its_message_found_nothing(
    stage: Stage,
) -> None:
    key = key_at(0)
    url = stage.environment["DATABASE_URL"]
    stage.die_at("seen, before claim", key, csv([ticket("A")]))
    with dumped(stage) as dump:
        assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
        finish(stage)
        turn_to(stage, dump)
        consumer = stage.start("consume")
        stage.broker.publish([stage.bucket.event(key, csv([ticket("A")]))])
        wait_until(lambda: stage.one("SELECT bool_and(decision = 'missing') FROM ingest.ledger"), "it finds nothing")
        consumer.stop()
        assert stage.run("drain", "--from-archive", "--apply", **NO_BROKER).returncode == 0
        assert stage.one("SELECT count(*) FROM tickets.inc") == 1
        assert unrecorded(stage) == []
        assert stage.environment["DATABASE_URL"] != url

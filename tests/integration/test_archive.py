"""Promise 6: archiving never overwrites, never deletes what it has not copied, and can be repeated at any point."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.fail_points import nowhere
from consumer.files.ledger import lock_key
from consumer.files.tail import archive_file, open_tails
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from publisher.errors import KeyInHand, ObjectChanged
from publisher.store.bucket import Bucket, Put
from tests.integration.change_files import ChangeFile

KEY = "automations/inc/changes/2026-06-25T142000.csv"
ARCHIVED = "automations/inc/processed/2026-06-25T142000.csv"


class Crash(BaseException):
    """Ends archiving in the middle, as a kill would."""


def put(bucket: Bucket, key: str, body: bytes) -> Put:
    bucket._s3.put_object(Bucket=bucket.name, Key=key, Body=body)  # noqa: SLF001 - the program never puts
    return there(bucket, key)


def there(bucket: Bucket, key: str) -> Put:
    found = bucket.head(key)
    assert found is not None
    return found.put


def put_in_parts(bucket: Bucket, key: str, body: bytes) -> Put:
    s3: Any = bucket._s3  # noqa: SLF001
    upload = s3.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload, MultipartUpload=parts)
    return there(bucket, key)


def content(bucket: Bucket, key: str) -> bytes:
    with bucket.open(key) as opened:
        return b"".join(iter(lambda: opened.read(1 << 20), b""))


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def nothing() -> None:
    pass


def crash() -> None:
    raise Crash


@pytest.mark.promise("Nothing lost")
def test_a_file_moves_to_processed_with_every_byte(bucket: Bucket) -> None:
    stored = put(bucket, KEY, b"ticket_id\n")
    assert bucket.archive(stored, sha256(b"ticket_id\n"), nothing) == ARCHIVED
    assert bucket.head(KEY) is None
    assert content(bucket, ARCHIVED) == b"ticket_id\n"


@pytest.mark.promise("Nothing lost")
def test_archiving_twice_is_archiving_once(bucket: Bucket) -> None:
    stored = put(bucket, KEY, b"a")
    for _ in range(2):
        assert bucket.archive(stored, sha256(b"a"), nothing) == ARCHIVED


def test_a_crash_between_copy_and_delete_is_taken_up_there(bucket: Bucket) -> None:
    stored = put(bucket, KEY, b"a")
    with pytest.raises(Crash):
        bucket.archive(stored, sha256(b"a"), crash)
    assert bucket.head(KEY) is not None
    assert content(bucket, ARCHIVED) == b"a"
    assert bucket.archive(stored, sha256(b"a"), nothing) == ARCHIVED
    assert bucket.head(KEY) is None
    assert [found.key for found in bucket.waiting()] == []


@pytest.mark.promise("Nothing lost")
def test_a_taken_name_with_other_bytes_is_not_overwritten(bucket: Bucket) -> None:
    put(bucket, ARCHIVED, b"older")
    stored = put(bucket, KEY, b"newer")
    archive_key = bucket.archive(stored, sha256(b"newer"), nothing)
    assert archive_key == f"automations/inc/processed/2026-06-25T142000~{sha256(b'newer')[:12]}.csv"
    assert (content(bucket, ARCHIVED), content(bucket, archive_key)) == (b"older", b"newer")
    assert bucket.head(KEY) is None


@pytest.mark.promise("Nothing lost")
def test_a_version_that_came_after_the_one_applied_is_not_deleted(bucket: Bucket) -> None:
    applied = put(bucket, KEY, b"applied")
    put(bucket, KEY, b"newer")
    with pytest.raises(ObjectChanged):
        bucket.archive(applied, sha256(b"applied"), nothing)
    assert content(bucket, KEY) == b"newer"
    assert bucket.head(ARCHIVED) is None


def test_a_version_that_came_between_copy_and_delete_is_not_deleted_by_the_next_try(bucket: Bucket) -> None:
    applied = put(bucket, KEY, b"applied")
    with pytest.raises(Crash):
        bucket.archive(applied, sha256(b"applied"), crash)
    put(bucket, KEY, b"newer")
    assert bucket.archive(applied, sha256(b"applied"), nothing) == ARCHIVED
    assert content(bucket, KEY) == b"newer"


def test_a_file_that_somebody_took_away_has_no_archive(bucket: Bucket) -> None:
    assert bucket.archive(Put(KEY, "etag", datetime.now(UTC)), sha256(b"a"), nothing) is None


@pytest.mark.parametrize("before", ["_holds", "_copy"])
def test_a_file_that_another_delivery_archives_meanwhile_has_its_archive(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    stored, request = put(bucket, KEY, b"a"), getattr(bucket, before)

    def another_is_faster(*arguments: object) -> object:
        monkeypatch.undo()
        assert bucket.archive(stored, sha256(b"a"), nothing) == ARCHIVED
        return request(*arguments)

    monkeypatch.setattr(bucket, before, another_is_faster)
    assert bucket.archive(stored, sha256(b"a"), nothing) == ARCHIVED


def test_an_object_stored_in_parts_is_known_by_its_bytes(bucket: Bucket) -> None:
    body = b"ticket_id\n" * 1000
    stored = put_in_parts(bucket, KEY, body)
    assert "-" in stored.etag
    assert bucket.archive(stored, sha256(body), nothing) == ARCHIVED
    assert content(bucket, ARCHIVED) == body
    assert bucket.head(KEY) is None


@pytest.mark.parametrize("name", ["2026-06-25 14:20:00+03:00", "2026-06-25T142000%2B", "Mūthaiga 'x' \"y\" ../z"])
def test_a_key_is_never_read_as_anything_but_itself(bucket: Bucket, name: str) -> None:
    key = f"automations/inc/changes/{name}.csv"
    stored = put(bucket, key, b"a")
    assert [found.key for found in bucket.waiting()] == [key]
    archive_key = bucket.archive(stored, sha256(b"a"), nothing)
    assert archive_key == f"automations/inc/processed/{name}.csv"
    assert content(bucket, archive_key) == b"a"
    assert bucket.head(key) is None


def test_files_that_cannot_be_archived_keep_no_others_back(pool: Pool, bucket: Bucket) -> None:
    """More of them than are read at once."""
    with postgres.transaction(pool) as connection:
        connection.execute(
            """INSERT INTO ingest.ledger
                   (bucket, prefix, key, etag, object_time, sha256, epoch, first_seen_by, decision, state, applied_at)
               SELECT %s, %s, n, 'etag', now(), 'sha256', 1, 'poller', 'new',
                      CASE WHEN mod(n, 2) = 0 THEN 'applied' ELSE 'done' END,
                      now() - make_interval(secs => 60 * mod(n, 3))
               FROM generate_series(1, 7000) AS n""",
            (bucket.name, bucket.folders[0].prefix),
        )
    found = [int(file.key) for file in open_tails(pool, bucket, 30, only_due=True)]
    assert found == [n for n in range(1, 7001) if n % 2 == 0 and n % 3 > 0]


def test_a_file_is_archived_by_nobody_while_another_has_its_key(pool: Pool, bucket: Bucket, apply: Any) -> None:
    stored = put(bucket, KEY, b"ticket_id\nINC1\n")
    applied = apply(ChangeFile("2026-06-25T142000", b"ticket_id\nINC1\n", stored.etag, stored.modified)).file
    with postgres.transaction(pool) as connection:
        connection.execute("SET LOCAL ROLE NONE")  # the consumer's may not do this
        connection.execute("UPDATE ingest.ledger SET bucket = %s", (bucket.name,))
    file = replace(applied, put=stored)
    with postgres.transaction(pool) as another:
        lock_key(another, bucket.name, KEY)
        with pytest.raises(KeyInHand):
            archive_file(pool, bucket, file, nowhere)
        assert bucket.head(KEY) is not None
    assert archive_file(pool, bucket, file, nowhere) == ARCHIVED
    assert bucket.head(KEY) is None

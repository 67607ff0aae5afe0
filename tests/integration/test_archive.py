"""Promise 6: archiving never overwrites, never deletes what it has not copied, and can be repeated at any point."""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import ClientError

from consumer.fail_points import nowhere
from consumer.feeds.declared import packaged_feeds
from consumer.files.ledger import lock_key
from consumer.files.tail import archive_file, open_tails
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from publisher.errors import KeyInHand, ObjectChanged, ObjectRefused
from publisher.settings import BucketSettings
from publisher.store.bucket import Bucket, Move, Put
from tests.doubles.conditional_store import ALL, LIKE_RUSTFS, SOURCES, ConditionalStore
from tests.integration.change_files import ChangeFile
from tests.stage import store

KEY = "automations/inc/changes/2026-06-25T142000.csv"
ARCHIVED = "automations/inc/processed/2026-06-25T142000.csv"


STORES = {
    "no conditions": frozenset[str](),
    "of sources": frozenset({SOURCES}),
    "of copies": LIKE_RUSTFS,
    "all conditions": ALL,
}


def where_kept(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("conditional", [STORES[name] for name in names], ids=names, indirect=True)


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def conditional(request: pytest.FixtureRequest, services: dict[str, str]) -> Iterator[ConditionalStore]:
    """The store as it is, which ignores conditions, and with those that others keep."""
    with ConditionalStore(services, request.param) as made:
        yield made


@pytest.fixture
def bucket(conditional: ConditionalStore, services: dict[str, str]) -> Iterator[Bucket]:
    made = store.Bucket(services, f"ft-{uuid.uuid4().hex[:12]}")
    where = {"RUSTFS_BUCKET": made.name, "RUSTFS_ENDPOINT": conditional.url}
    yield Bucket(BucketSettings.model_validate({**services, **where}), packaged_feeds().folders)
    made.remove()


@pytest.fixture
def versioned(bucket: Bucket) -> Iterator[Bucket]:
    s3: Any = bucket._s3  # noqa: SLF001
    s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    yield bucket
    listed = s3.list_object_versions(Bucket=bucket.name)
    for found in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
        s3.delete_object(Bucket=bucket.name, Key=found["Key"], VersionId=found["VersionId"])


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


def key_of(number: int, folder: str = "changes") -> str:
    return f"automations/inc/{folder}/2026-06-25T1420{number:02}.csv"


def moves(bucket: Bucket, count: int) -> list[Move]:
    bodies = [f"ticket_id\n{number}\n".encode() for number in range(count)]
    return [Move(put(bucket, key_of(number), body), sha256(body)) for number, body in enumerate(bodies)]


@pytest.mark.promise("Nothing lost")
def test_several_files_move_at_once_and_twice_is_once(bucket: Bucket) -> None:
    several = moves(bucket, 5)
    archived = [key_of(number, "processed") for number in range(5)]
    for _ in range(2):
        assert bucket.archive_all(several, nothing) == archived
    assert [content(bucket, key) for key in archived] == [f"ticket_id\n{number}\n".encode() for number in range(5)]
    assert list(bucket.waiting()) == []


@pytest.mark.promise("Nothing lost")
def test_of_several_each_that_is_not_as_it_should_be_is_treated_as_if_alone(bucket: Bucket) -> None:
    good, taken, replaced, gone, copied, kept = several = moves(bucket, 6)
    put(bucket, key_of(1, "processed"), b"older")
    newer = put(bucket, replaced.put.key, b"newer")
    bucket._s3.delete_object(Bucket=bucket.name, Key=gone.put.key)  # noqa: SLF001 - the program deletes what it copied
    with pytest.raises(Crash):
        bucket.archive(copied.put, copied.sha256, crash)
    several[5] = replace(kept, may_delete=False)
    archived = bucket.archive_all(several, nothing)
    assert isinstance(archived.pop(2), ObjectChanged)
    suffixed = f"automations/inc/processed/2026-06-25T142001~{taken.sha256[:12]}.csv"
    assert archived == [key_of(0, "processed"), suffixed, None, key_of(4, "processed"), key_of(5, "processed")]
    assert content(bucket, key_of(1, "processed")) == b"older"
    assert [found.put.etag for found in bucket.waiting()] == [newer.etag, kept.put.etag]
    assert good.put.key not in {found.key for found in bucket.waiting()}


@pytest.mark.promise("Nothing lost")
def test_what_is_put_while_several_are_copied_is_not_deleted(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    several, copy = moves(bucket, 3), bucket._copy  # noqa: SLF001
    newer: list[Put] = []

    def somebody_puts_beside(moved: Put, archive_key: str) -> str:
        etag = copy(moved, archive_key)
        if moved == several[1].put:
            newer.append(put(bucket, moved.key, b"newer"))
        return etag

    monkeypatch.setattr(bucket, "_copy", somebody_puts_beside)
    assert bucket.archive_all(several, nothing) == [key_of(number, "processed") for number in range(3)]
    assert [found.put.etag for found in bucket.waiting()] == [newer[0].etag]


@pytest.mark.promise("Nothing lost")
def test_what_is_put_while_another_one_takes_its_time_is_not_deleted(bucket: Bucket) -> None:
    """Whatever the store makes of conditions: the look of long ago is taken again."""
    several = moves(bucket, 3)
    newer: list[Put] = []

    def take_time() -> None:
        if not newer:
            newer.append(put(bucket, several[2].put.key, b"newer"))
            time.sleep(0.3)

    assert bucket.archive_all(several, take_time) == [key_of(number, "processed") for number in range(3)]
    assert [found.put.etag for found in bucket.waiting()] == [newer[0].etag]


def requests_of(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, operation: str, *answers: Any) -> list[dict[str, Any]]:
    """What is asked of the store from now on in one way; the first ones get these answers instead of its own."""
    asked: list[dict[str, Any]] = []
    left = iter(answers)
    real = getattr(bucket._s3_once, operation)  # noqa: SLF001

    def ask(**parameters: Any) -> Any:
        asked.append(parameters)
        answer = next(left, None)
        if isinstance(answer, ClientError):
            raise answer
        return answer or real(**parameters)

    monkeypatch.setattr(bucket._s3_once, operation, ask)  # noqa: SLF001
    return asked


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "an operation")  # type: ignore[typeddict-item]


@where_kept("all conditions")
def test_where_the_store_keeps_conditions_each_delete_has_its_own(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes = requests_of(bucket, monkeypatch, "delete_object")
    at_once = requests_of(bucket, monkeypatch, "delete_objects")
    for _ in range(2):
        several = moves(bucket, 3)
        assert bucket.archive_all(several, nothing) == [key_of(number, "processed") for number in range(3)]
        assert list(bucket.waiting()) == []
        for move in several:
            bucket._s3.delete_object(Bucket=bucket.name, Key=move.put.key.replace("changes", "processed"))  # noqa: SLF001
    assert at_once == []
    assert [asked["IfMatch"].strip('"') for asked in deletes[1:4]] == [move.put.etag for move in several]
    assert len(deletes) == 7


@pytest.mark.promise("Nothing lost")
@where_kept("of copies", "all conditions")
def test_where_the_store_keeps_conditions_nothing_is_looked_at(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has shown it; and what is not as it should be is found all the same."""
    first, *several = moves(bucket, 7)
    bucket.archive(first.put, first.sha256, nothing)
    looks: list[str] = []
    for name in ("head_object", "list_objects_v2"):
        monkeypatch.setattr(bucket._s3, name, told_before(looks, name, getattr(bucket._s3, name)))  # noqa: SLF001
    bucket.archive_all([replace(move, looks=False) for move in several[:3]], nothing)
    bucket.archive(several[3].put, several[3].sha256, nothing, looks=False)
    is_kept = bucket._keeps_of_deletes  # noqa: SLF001
    assert looks == ([] if is_kept else ["list_objects_v2", "head_object"])  # before several deletes, and before one
    put(bucket, key_of(5, "processed"), b"older")
    newer = put(bucket, key_of(6), b"newer")
    archived = bucket.archive_all(several[4:], nothing)
    assert isinstance(archived[1], ObjectChanged)
    assert archived[0] == f"automations/inc/processed/2026-06-25T142005~{several[4].sha256[:12]}.csv"
    assert content(bucket, key_of(5, "processed")) == b"older"
    assert [found.put.etag for found in bucket.waiting()] == [newer.etag]


@pytest.mark.promise("Nothing lost")
@where_kept("all conditions")
@pytest.mark.parametrize(("code", "status"), [("NotImplemented", 501), ("InvalidRequest", 400), ("AccessDenied", 403)])
def test_a_store_that_refuses_conditions_is_asked_without_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    """Of deletes, and that a name is free; what the source of a copy is, every store takes."""
    first, *several = moves(bucket, 4)
    unknown = refusal(code, status)
    of_copies = requests_of(bucket, monkeypatch, "copy_object", None, None, unknown)
    of_deletes = requests_of(bucket, monkeypatch, "delete_object", unknown)
    assert bucket.archive(first.put, first.sha256, nothing) == key_of(0, "processed")
    assert bucket.archive_all(several, nothing) == [key_of(number, "processed") for number in range(1, 4)]
    assert list(bucket.waiting()) == []
    assert ["IfNoneMatch" in asked for asked in of_copies] == [False, False, True, False, False, False]
    assert ["IfMatch" in asked for asked in of_deletes] == [True, False]


def told_before(told: list[str], name: str, request: Any) -> Any:
    def ask(**parameters: Any) -> Any:
        told.append(name)
        return request(**parameters)

    return ask


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("at_once", [False, True], ids=["alone", "with others"])
def test_the_same_bytes_put_again_are_left_by_whoever_does_not_know_that_they_are_no_news(
    bucket: Bucket, at_once: bool
) -> None:
    """Also where the store keeps conditions, to which both puts are one."""
    first, *several = moves(bucket, 3)
    bucket.archive(first.put, first.sha256, nothing)  # the store has shown what it makes of conditions
    before = [replace(move, put=replace(move.put, modified=move.put.modified - timedelta(hours=1))) for move in several]
    if at_once:
        bucket.archive_all(before, nothing)
    else:
        for move in before:
            bucket.archive(move.put, move.sha256, nothing)
    assert [found.key for found in bucket.waiting()] == [move.put.key for move in several]


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_request_whose_answer_is_lost_is_not_made_again_without_looking(
    bucket: Bucket, conditional: ConditionalStore, method: str
) -> None:
    first, second = moves(bucket, 2)
    bucket.archive(first.put, first.sha256, nothing)
    fault = conditional.fault(method, second.put.key.rpartition("/")[2], "lost")
    times, newer = count(), list[Put]()

    def copied() -> None:
        if method == "PUT" or next(times):
            conditional.heal()
            newer.append(put(bucket, second.put.key, b"newer"))

    assert bucket.archive(second.put, second.sha256, copied, looks=False) == key_of(1, "processed")
    assert fault.met.is_set()
    assert content(bucket, key_of(1, "processed")) == b"ticket_id\n1\n"
    assert [there.put for there in map(bucket.head, [second.put.key]) if there] == newer


@pytest.mark.promise("Nothing lost")
@where_kept("of sources")
def test_that_a_name_is_free_is_not_taken_from_a_store_that_only_looks_at_the_source(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes come between the requests by which it shows what it keeps."""
    first, second = moves(bucket, 2)
    copy, times = bucket._copy_under, count()  # noqa: SLF001

    def somebody_puts_before_the_third(moved: Put, archive_key: str, **conditions: Any) -> str:
        if next(times) == 2:
            put(bucket, moved.key, b"newer")
        return copy(moved, archive_key, **conditions)

    monkeypatch.setattr(bucket, "_copy_under", somebody_puts_before_the_third)
    assert bucket.archive(first.put, first.sha256, nothing) == key_of(0, "processed")
    monkeypatch.undo()
    assert content(bucket, first.put.key) == b"newer"
    put(bucket, key_of(1, "processed"), b"older")
    assert bucket.archive(second.put, second.sha256, nothing) != key_of(1, "processed")
    assert content(bucket, key_of(1, "processed")) == b"older"


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("loses_answer", [False, True], ids=["crashed", "answer lost"])
def test_a_version_that_is_deleted_is_found_in_the_archive(
    versioned: Bucket, conditional: ConditionalStore, monkeypatch: pytest.MonkeyPatch, loses_answer: bool
) -> None:
    bucket = versioned
    first, second = moves(bucket, 2)
    assert second.put.version_id
    assert bucket.archive(first.put, first.sha256, nothing) == key_of(0, "processed")
    delete = bucket._s3_once.delete_object  # noqa: SLF001

    def crash_behind(**asked: Any) -> None:
        delete(**asked)
        raise Crash

    if loses_answer:
        conditional.fault("DELETE", second.put.key.rpartition("/")[2], "lost")
        times = count()
        copied = lambda: conditional.heal() if next(times) else None  # noqa: E731
        assert bucket.archive(second.put, second.sha256, copied) == key_of(1, "processed")
    else:
        with monkeypatch.context() as crashing:
            crashing.setattr(bucket._s3_once, "delete_object", crash_behind)  # noqa: SLF001
            with pytest.raises(Crash):
                bucket.archive(second.put, second.sha256, nothing)
    for put_again in (False, True):
        if put_again:
            put(bucket, second.put.key, b"newer")
        assert bucket.archive(second.put, second.sha256, nothing) == key_of(1, "processed")
    assert content(bucket, second.put.key) == b"newer"


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("looks", [False, True])
def test_what_is_put_after_the_copy_is_not_deleted(bucket: Bucket, looks: bool) -> None:
    first, second = moves(bucket, 2)
    bucket.archive(first.put, first.sha256, nothing)  # the store has shown what it makes of conditions
    newer: list[Put] = []
    copied = replaced(bucket, second.put.key, newer)
    assert bucket.archive(second.put, second.sha256, copied, looks=looks) == key_of(1, "processed")
    assert content(bucket, key_of(1, "processed")) == b"ticket_id\n1\n"
    assert there(bucket, second.put.key) == newer[0]


@pytest.mark.promise("Nothing lost")
@where_kept("all conditions")
def test_a_right_that_is_missing_for_a_while_says_nothing_of_conditions(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = moves(bucket, 2)
    denied = refusal("AccessDenied", 403)
    of_deletes = requests_of(bucket, monkeypatch, "delete_object", denied, denied)
    with pytest.raises(ObjectRefused):
        bucket.archive(first.put, first.sha256, nothing)
    for move in (first, second):
        bucket.archive(move.put, move.sha256, nothing, looks=False)
    assert list(bucket.waiting()) == []
    assert ["IfMatch" in asked for asked in of_deletes] == [True, False, True, True, True]


@where_kept("of copies", "all conditions")
def test_while_one_shows_what_the_store_keeps_others_wait_for_no_answer(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = moves(bucket, 2)
    copy, shows, goes_on = bucket._copy_under, Event(), Event()  # noqa: SLF001

    def slow_for_one(moved: Put, archive_key: str, **conditions: Any) -> str:
        if moved == first.put:
            shows.set()
            assert goes_on.wait(30)
        return copy(moved, archive_key, **conditions)

    monkeypatch.setattr(bucket, "_copy_under", slow_for_one)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(bucket.archive, first.put, first.sha256, nothing)
        assert shows.wait(30)
        assert bucket.archive(second.put, second.sha256, nothing) == key_of(1, "processed")
        assert not slow.done()
        goes_on.set()
        assert slow.result() == key_of(0, "processed")
    assert bucket._keeps_of_copies is True  # noqa: SLF001


def replaced(bucket: Bucket, key: str, newer: list[Put]) -> Callable[[], None]:
    return lambda: newer.append(put(bucket, key, b"newer"))


@where_kept("no conditions", "of sources", "of copies")
def test_where_it_does_not_one_request_deletes_all_that_are_as_they_should_be(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes = requests_of(bucket, monkeypatch, "delete_object")
    at_once = requests_of(bucket, monkeypatch, "delete_objects", None, {"Errors": [{"Key": key_of(4)}]})
    several = moves(bucket, 6)
    bucket.archive_all(several[:2], nothing)
    bucket.archive_all(several[2:], nothing)
    assert [[each["Key"] for each in asked["Delete"]["Objects"]] for asked in at_once] == [
        [key_of(1)],
        [key_of(number) for number in range(2, 6)],
    ]
    assert [asked["Key"] for asked in deletes] == [key_of(0), key_of(4)]


@where_kept("no conditions", "of sources", "of copies")
@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("is_done", [False, True], ids=["right before it", "right after it"])
def test_a_crash_beside_a_delete_of_several_is_taken_up_there(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    bucket.archive_all(moves(bucket, 2), nothing)  # the store has shown what it makes of conditions
    for number in range(2):
        bucket._s3.delete_object(Bucket=bucket.name, Key=key_of(number, "processed"))  # noqa: SLF001 - as it was
    several, real = moves(bucket, 4), bucket._s3_once.delete_objects  # noqa: SLF001

    def crash_beside(**asked: Any) -> None:
        if is_done:
            real(**asked)
        raise Crash

    with monkeypatch.context() as crashing:
        crashing.setattr(bucket._s3_once, "delete_objects", crash_beside)  # noqa: SLF001
        with pytest.raises(Crash):
            bucket.archive_all(several, nothing)
    assert len(list(bucket.waiting())) == (0 if is_done else 4)
    archived = [key_of(number, "processed") for number in range(4)]
    assert bucket.archive_all(several, nothing) == archived
    assert list(bucket.waiting()) == []
    assert [content(bucket, key) for key in archived] == [f"ticket_id\n{number}\n".encode() for number in range(4)]


@where_kept("no conditions", "of sources", "of copies")
@pytest.mark.parametrize(
    ("code", "status", "times"), [("NotImplemented", 501, 1), ("MissingContentMD5", 400, 1), ("SlowDown", 503, 3)]
)
def test_a_store_that_deletes_no_several_at_once_is_asked_once(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str, status: int, times: int
) -> None:
    at_once = requests_of(bucket, monkeypatch, "delete_objects", refusal(code, status))
    several = moves(bucket, 6)
    for some in (several[:2], several[2:4], several[4:]):
        bucket.archive_all(some, nothing)
    assert list(bucket.waiting()) == []
    assert len(at_once) == times


def test_nothing_to_archive_is_nothing_to_do(bucket: Bucket) -> None:
    assert bucket.archive_all([], crash) == []


def test_a_tail_whose_file_was_applied_once_more_since_is_left_to_that(pool: Pool, bucket: Bucket, apply: Any) -> None:
    file = apply(ChangeFile("2026-06-25T142000", "ticket_id\nINC1\n")).file
    long_ago = replace(file, decided_at=file.decided_at - timedelta(hours=1))
    assert archive_file(pool, bucket, long_ago, nowhere) is None
    assert list(bucket.archived()) == []


def test_a_crash_among_several_is_taken_up_there(bucket: Bucket) -> None:
    several = moves(bucket, 3)
    left = iter(range(1))

    def crash_at_the_second() -> None:
        if next(left, None) is None:
            raise Crash

    with pytest.raises(Crash):
        bucket.archive_all(several, crash_at_the_second)
    assert [found.key for found in bucket.waiting()] == [key_of(1), key_of(2)]
    assert bucket.archive_all(several, nothing) == [key_of(number, "processed") for number in range(3)]
    assert list(bucket.waiting()) == []


def test_of_several_that_a_listing_does_not_reach_each_is_looked_at(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.store.bucket._BESIDE", 0)
    several = moves(bucket, 10)
    assert bucket.archive_all(several[::2], nothing) == [key_of(number, "processed") for number in range(0, 10, 2)]
    assert [found.key for found in bucket.waiting()] == [key_of(number) for number in range(1, 10, 2)]


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

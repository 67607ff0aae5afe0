"""Promise 6 and 3 for a key that is overwritten: what is archived is the put that was read, and the last put counts."""

import hashlib
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.doubles.conditional_store import ALL, LIKE_RUSTFS, ConditionalStore
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import PROCESSED

KEY = key_at(0)
COLUMNS = ("ticket_id", "owner")
A = csv([ticket("T", owner="a")], COLUMNS)
B = csv([ticket("T", owner="b")], COLUMNS)
LONGER = csv([ticket("T", owner="a"), ticket("ONLY-A", owner="a")], COLUMNS)
NO_BROKER = {"RABBITMQ_URL": ""}


@pytest.fixture(params=["no conditions", "conditions of copies", "all conditions"], autouse=True)
def kept(request: pytest.FixtureRequest) -> Iterator[str]:
    """By the store, which itself ignores all."""
    stage = request.getfixturevalue("versioned" if "versioned" in request.fixturenames else "stage")
    keeps = {"no conditions": frozenset[str](), "conditions of copies": LIKE_RUSTFS, "all conditions": ALL}
    with ConditionalStore(stage.environment, keeps[request.param]) as store:
        stage.environment |= {"RUSTFS_ENDPOINT": store.url}
        yield request.param


def owner(stage: Stage) -> str:
    return str(stage.one("SELECT owner FROM tickets.inc"))


def assert_accounted_for(stage: Stage) -> None:
    ended = stage.run("verify", "--old", "0")
    assert ended.returncode == 0, ended.stdout


def half_finished(stage: Stage) -> None:
    """The first version is applied, its consumer dead before it was archived, and its delivery forgotten."""
    stage.die_at("after commit, before archive", KEY, A)
    stage.broker.purge()
    stage.query("UPDATE ingest.ledger SET applied_at = applied_at - interval '2 minutes' RETURNING 1")


def overwritten(stage: Stage) -> None:
    """The other version is put over it, applied and archived, without a sweep of the first one's tail."""
    stage.bucket.put(KEY, B)
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    assert (owner(stage), stage.waiting()) == ("b", [])
    # The drain has found the first one replaced. The row is again as its consumer's death has left it.
    stage.query(
        """UPDATE ingest.ledger
           SET state = 'applied', archived_at = NULL, done_at = NULL, archive_key = NULL, reason = NULL
           WHERE file_id = (SELECT min(file_id) FROM ingest.ledger) RETURNING 1"""
    )


def put_at_once(stage: Stage, key: str, body: bytes) -> None:
    """Without the second that the stage leaves between two puts of one key."""
    stage.bucket.s3.put_object(Bucket=stage.bucket.name, Key=key, Body=body)


def apply_at_once(stage: Stage, key: str, body: bytes) -> None:
    """Put it and wait until it is applied and archived: on Ceph a put beside a delete can be lost."""
    put_at_once(stage, key, body)
    stage.announce(key)
    there = "SELECT count(*) = 1 FROM tickets.inc WHERE owner = %s"
    wait_until(lambda: stage.one(there, owner_of(body)) and key not in stage.waiting(), "it is applied and archived")


def owner_of(body: bytes) -> str:
    return body.decode().split()[1].split(",")[1]


def modified(stage: Stage, key: str) -> datetime:
    return stage.bucket.s3.head_object(Bucket=stage.bucket.name, Key=key)["LastModified"]


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("by", ["sweep", "drain"])
def test_bytes_that_return_are_not_taken_for_those_that_a_dead_process_left(stage: Stage, by: str) -> None:
    half_finished(stage)
    overwritten(stage)
    stage.bucket.put(KEY, A)  # and its event is late
    if by == "sweep":
        consumer = stage.start("consume")
        wait_until(lambda: stage.one("SELECT min(state) <> 'applied' FROM ingest.ledger"), "the tail is finished")
        assert stage.waiting() == [KEY]
        assert owner(stage) == "b"
        stage.announce(KEY)
        wait_until(lambda: owner(stage) == "a", "what was put last is applied")
        wait_until(lambda: stage.waiting() == [], "and archived")
    else:
        assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
        assert (owner(stage), stage.waiting()) == ("a", [])
        consumer = stage.start("consume")  # which relays the requests
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE state <> 'done'") == 0, "every tail ends")
    consumer.stop()
    assert sorted(stage.bucket.read(key) for key in stage.bucket.keys(PROCESSED)) == sorted([A, B])
    assert_accounted_for(stage)


@pytest.mark.promise("Nothing lost")
def test_bytes_that_return_within_the_second_of_those_before_are_not_deleted_unapplied(stage: Stage) -> None:
    """The store's clock tells the first put and the last one apart by nothing; the ledger knows what came between."""
    half_finished(stage)
    overwritten(stage)
    stage.bucket.put(KEY, A)
    moment = modified(stage, KEY)
    stage.query("UPDATE ingest.ledger SET object_time = %s RETURNING 1", moment)  # as if all were of one second
    consumer = stage.start("consume")
    wait_until(lambda: stage.one("SELECT min(state) <> 'applied' FROM ingest.ledger"), "the tail is finished")
    assert stage.waiting() == [KEY]
    stage.announce(KEY)
    wait_until(lambda: owner(stage) == "a", "what was put last is applied")
    wait_until(lambda: stage.waiting() == [], "and archived")
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert_accounted_for(stage)


def test_the_archive_applied_once_more_leaves_what_lies_in_changes_to_its_own_delivery(stage: Stage) -> None:
    """A database restored to nothing; the bytes of the first archived version lie in changes/ again, as news."""
    for body in (A, B):
        stage.bucket.put(KEY, body)
        assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    stage.connection.execute(
        "TRUNCATE tickets.inc, tickets.closure_events, tickets.import_meta, ingest.inc_positions, ingest.crq_positions,"
        " ingest.rejects,"
        " ingest.outbox, ingest.ledger"
    )
    stage.bucket.put(KEY, A)
    assert stage.run("drain", "--from-archive", "--apply", **NO_BROKER).returncode == 0
    assert stage.waiting() == [KEY]
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    assert (owner(stage), stage.waiting()) == ("a", [])


@pytest.mark.promise("Exactly once")
def test_the_same_bytes_stored_twice_are_one_version_and_both_puts_end(stage: Stage) -> None:
    half_finished(stage)
    stage.bucket.put(KEY, A)
    consumer = stage.start("consume")
    wait_until(lambda: stage.one("SELECT state <> 'applied' FROM ingest.ledger"), "the tail is finished")
    assert stage.waiting() == [KEY]  # it was another put, which its own delivery ends
    stage.announce(KEY)
    wait_until(lambda: stage.waiting() == [], "the second put is archived as well")
    consumer.stop()
    assert [stage.bucket.read(key) for key in stage.bucket.keys(PROCESSED)] == [A]
    assert_accounted_for(stage)


@pytest.mark.promise("Order-free")
def test_a_b_a_with_the_first_two_within_one_second_ends_with_a(stage: Stage) -> None:
    consumer = stage.start("consume")
    for minute in range(20):
        key = key_at(minute)

        time.sleep(1 - time.time() % 1 + 0.02)
        apply_at_once(stage, key, A)
        apply_at_once(stage, key, B)
        times = stage.query("SELECT date_trunc('second', object_time) AS at FROM ingest.ledger WHERE key = %s", key)
        if times[0] == times[1]:
            break
    else:
        pytest.fail("no two puts within a second")
    time.sleep(1.1)
    put_at_once(stage, key, A)
    stage.announce(key)
    wait_until(lambda: owner(stage) == "a", "what was put last counts")
    wait_until(lambda: stage.waiting() == [], "and is archived")
    consumer.stop()
    assert_accounted_for(stage)


def test_a_version_that_was_passed_over_is_taken_up_once_the_policy_is_another(stage: Stage) -> None:
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="ignore")
    stage.bucket.put(KEY, A)
    stage.announce(KEY)
    stage.wait_for("done", KEY)
    stage.bucket.put(KEY, B)
    stage.announce(KEY)
    passed_over = "SELECT count(*) = 2 FROM ingest.ledger WHERE state = 'done'"
    wait_until(lambda: stage.one(passed_over), "the other bytes are passed over")
    consumer.stop()
    assert (owner(stage), stage.waiting()) == ("a", [KEY])
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="reapply")
    assert stage.run("poll").returncode == 0
    wait_until(lambda: owner(stage) == "b", "the policy of today holds")
    wait_until(lambda: stage.waiting() == [], "and it is archived")
    consumer.stop()
    assert_accounted_for(stage)


def test_bytes_that_return_are_passed_over_where_they_are_and_taken_up_once_the_policy_is_another(stage: Stage) -> None:
    consumer = stage.start("consume")
    for body in (A, B):
        apply_at_once(stage, KEY, body)
    settled(stage)
    consumer.stop()
    stage.bucket.put(KEY, A)
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="ignore")
    stage.announce(KEY)
    passed_over = "SELECT count(*) = 1 FROM ingest.ledger WHERE passed_over_time IS NOT NULL"
    wait_until(lambda: stage.one(passed_over), "they are passed over")
    repeated = "SELECT sum(duplicates) FROM ingest.ledger"
    before = stage.one(repeated)
    stage.announce(KEY)
    wait_until(lambda: stage.one(repeated) > before, "they come once more")
    settled(stage)
    consumer.stop()
    assert (owner(stage), stage.waiting()) == ("b", [KEY]), "and nothing has touched them"
    poll = stage.run("poll", FLEETTICKETS_CHANGED_POLICY="ignore")
    assert (poll.returncode, stage.broker.ready(FILES)) == (0, 0), "who passes them over does not ask again"
    assert stage.ask("status")["database"]["backlog"]["set_aside"] == {"ignored": 1}
    assert "passed over by policy" in stage.ask("explain", KEY)["next"]
    assert_accounted_for(stage)

    consumer = stage.start("consume")
    assert stage.run("poll").returncode == 0
    wait_until(lambda: owner(stage) == "a", "the policy of today holds")
    wait_until(lambda: stage.waiting() == [], "and they are archived")
    settled(stage)
    consumer.stop()
    assert stage.one(passed_over) is False
    assert_accounted_for(stage)


@pytest.mark.parametrize(("point", "decided"), [("before claim", 1), ("after commit, before archive", 2)])
def test_bytes_that_return_are_passed_over_whatever_dies(stage: Stage, point: str, decided: int) -> None:
    consumer = stage.start("consume")
    for body in (A, B):
        apply_at_once(stage, KEY, body)
    settled(stage)
    consumer.stop()
    stage.environment["FLEETTICKETS_CHANGED_POLICY"] = "ignore"
    stage.die_at(point, KEY, A)
    consumer = stage.start("consume")
    again = "SELECT sum(duplicates) >= %s FROM ingest.ledger"
    wait_until(lambda: stage.one(again, decided), "it is delivered again")
    settled(stage)
    consumer.stop()
    assert stage.one("SELECT count(*) = 1 FROM ingest.ledger WHERE passed_over_time IS NOT NULL")
    assert (owner(stage), stage.waiting()) == ("b", [KEY])
    assert_accounted_for(stage)


@pytest.fixture
def versioned(stage: Stage) -> Iterator[Stage]:
    s3, name = stage.bucket.s3, stage.bucket.name
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    yield stage
    stage.end()
    listed = s3.list_object_versions(Bucket=name)
    for found in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
        s3.delete_object(Bucket=name, Key=found["Key"], VersionId=found["VersionId"])


def settled(stage: Stage) -> None:
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")


def test_a_version_that_was_seen_and_gone_is_applied_once_it_is_back(stage: Stage) -> None:
    """Its consumer dies after the first sight; the object is moved aside, and put there again."""
    stage.die_at("seen, before claim", KEY, A)
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=KEY)
    consumer = stage.start("consume")
    wait_until(lambda: stage.one("SELECT bool_and(state = 'done') FROM ingest.ledger"), "it is missing")
    settled(stage)
    consumer.stop()
    stage.bucket.put(KEY, A)
    assert stage.run("verify", "--old", "0").returncode == 1, "nobody has it"
    assert "it is applied with the next delivery" in stage.run("explain", KEY).stdout
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="ignore")  # no changed one, so of no concern to that
    assert stage.run("poll", FLEETTICKETS_CHANGED_POLICY="ignore").returncode == 0
    wait_until(lambda: stage.query("SELECT 1 FROM tickets.inc"), "it is applied")
    wait_until(lambda: stage.waiting() == [], "and archived")
    settled(stage)
    consumer.stop()
    assert stage.one("SELECT decision FROM ingest.ledger WHERE applied_at IS NOT NULL") == "new"
    assert_accounted_for(stage)


def test_what_was_seen_before_a_bad_version_took_its_place_is_decided(stage: Stage) -> None:
    stage.die_at("seen, before claim", KEY, A)
    stage.bucket.put(KEY, b"no id\nx\n")
    consumer = stage.start("consume")
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "it is a dead letter")
    assert stage.ask("status")["database"]["unfinished_files"] == {"failed": 1}
    assert_accounted_for(stage)
    stage.bucket.put(KEY, A)
    stage.announce(KEY)
    wait_until(lambda: stage.query("SELECT 1 FROM tickets.inc"), "and applied once it is back")
    wait_until(lambda: stage.waiting() == [], "and archived")
    consumer.stop()


def test_what_was_seen_before_an_applied_version_came_back_is_decided(stage: Stage) -> None:
    stage.bucket.put(KEY, A)
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    stage.die_at("seen, before claim", KEY, B)
    stage.bucket.put(KEY, A)
    consumer = stage.start("consume")
    wait_until(lambda: stage.waiting() == [], "they are archived")
    wait_until(lambda: stage.ask("status")["database"]["unfinished_files"] == {}, "nothing is left undecided")
    consumer.stop()
    assert owner(stage) == "a"
    assert stage.query("SELECT decision, reason FROM ingest.ledger WHERE applied_at IS NULL") == [
        {"decision": "missing", "reason": "replaced in the bucket before it could be read"}
    ]


def test_what_waits_is_not_gone_because_the_archive_is_applied_once_more(stage: Stage) -> None:
    stage.bucket.put(KEY, A)
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    stage.connection.execute(
        "TRUNCATE tickets.inc, tickets.closure_events, tickets.import_meta, ingest.rejects, ingest.outbox,"
        " ingest.ledger CASCADE"
    )
    stage.die_at("seen, before claim", KEY, B)
    assert stage.run("drain", "--from-archive", "--apply", **NO_BROKER).returncode == 0
    consumer = stage.start("consume")
    wait_until(lambda: owner(stage) == "b", "what waited is applied")
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE state <> 'done'") == 0, "every tail ends")
    consumer.stop()
    assert_accounted_for(stage)


def test_in_a_bucket_that_keeps_versions_exactly_the_one_that_was_read_is_archived(versioned: Stage) -> None:
    stage = versioned
    stage.die_at("after commit, before archive", KEY, A)
    read = stage.one("SELECT version_id FROM ingest.ledger")
    assert read
    put_at_once(stage, KEY, A)
    newest = stage.bucket.s3.head_object(Bucket=stage.bucket.name, Key=KEY)
    assert newest["VersionId"] != read
    stage.broker.purge()
    stage.query("UPDATE ingest.ledger SET applied_at = applied_at - interval '2 minutes' RETURNING 1")
    consumer = stage.start("consume")
    wait_until(lambda: stage.one("SELECT state <> 'applied' FROM ingest.ledger"), "the tail is finished")
    there = stage.bucket.s3.head_object(Bucket=stage.bucket.name, Key=KEY)
    assert there["VersionId"] == newest["VersionId"]
    stage.announce(KEY)
    wait_until(lambda: stage.waiting() == [], "the newest is archived by its own delivery")
    consumer.stop()
    assert [stage.bucket.read(key) for key in stage.bucket.keys(PROCESSED)] == [A]


def test_a_discarded_letter_lets_go_of_its_own_version_only(stage: Stage) -> None:
    """Two versions of one key are dead, each with a letter of its own."""
    consumer = stage.start("consume")
    for body in (b"ticket_id,M\xfc\nINC1,x\n", b"ticket_id,M\xfc\xfc\nINC1,x\n"):
        before = stage.broker.ready(DEAD_FILES)
        stage.bucket.put(KEY, body)
        stage.announce(KEY)
        wait_until(lambda before=before: stage.broker.ready(DEAD_FILES) == before + 1, "it is a dead letter")  # type: ignore[misc]
    consumer.stop()
    first, second = sorted(stage.ask("dead-letters", "list", "--each"), key=lambda letter: letter["dead_at"])
    assert (
        len(stage.ask("dead-letters", "discard", "--id", second["id"], "--reason", "nobody needs it")["discarded"]) == 1
    )
    rows = stage.query("SELECT discarded_at IS NOT NULL AS gone FROM ingest.ledger ORDER BY file_id")
    assert [row["gone"] for row in rows] == [False, True]
    (left,) = stage.ask("dead-letters", "list", "--each")
    assert left["id"] == first["id"]


def test_of_two_versions_stored_within_a_second_the_last_one_counts(stage: Stage) -> None:
    """Also where its ETag is the lower one."""
    low, high = sorted((A, B), key=etag)
    consumer = stage.start("consume")
    for minute in range(20):
        key = key_at(minute)
        time.sleep(1 - time.time() % 1 + 0.02)
        put_at_once(stage, key, high)
        stage.announce(key)
        wait_until(lambda key=key: key not in stage.waiting(), "the first is archived")  # type: ignore[misc]
        put_at_once(stage, key, low)
        stage.announce(key)
        wait_until(lambda key=key: key not in stage.waiting(), "the second is archived")  # type: ignore[misc]
        times = stage.query("SELECT date_trunc('second', object_time) AS at FROM ingest.ledger WHERE key = %s", key)
        if times[0] == times[1]:
            break
    else:
        pytest.fail("no two puts within a second")
    consumer.stop()
    assert owner(stage) == owner_of(low)
    assert_accounted_for(stage)


def test_a_put_that_comes_to_light_again_from_under_a_later_one_is_no_news(versioned: Stage) -> None:
    stage = versioned
    stage.die_at("after commit, before archive", KEY, A)
    stage.broker.purge()
    put_at_once(stage, KEY, B)
    stage.query("UPDATE ingest.ledger SET object_time = %s RETURNING 1", modified(stage, KEY))  # all of one second
    consumer = stage.start("consume")
    stage.announce(KEY)
    wait_until(lambda: stage.one("SELECT count(*) = 2 FROM ingest.ledger WHERE applied_at IS NOT NULL"), "B is applied")
    # While Ceph deletes the newest version it answers for a moment that nothing is there.
    wait_until(lambda: stage.bucket.etag(KEY) == etag(A), "B is archived, and A there again")
    stage.announce(KEY)
    wait_until(lambda: stage.waiting() == [], "A is archived too")
    consumer.stop()
    assert owner(stage) == "b"


def test_a_version_that_was_seen_comes_to_light_from_under_a_later_one_and_is_applied(versioned: Stage) -> None:
    stage = versioned
    stage.die_at("seen, before claim", KEY, LONGER)
    stage.bucket.put(KEY, B)
    consumer = stage.start("consume")
    done = "SELECT count(*) = 1 FROM ingest.ledger WHERE state = 'done' AND applied_at IS NOT NULL"
    wait_until(lambda: stage.one(done), "B is done")
    settled(stage)
    assert stage.waiting() == [KEY]
    stage.announce(KEY)
    wait_until(lambda: stage.waiting() == [], "the one from under it is archived too")
    consumer.stop()
    found = stage.query("SELECT ticket_id, owner FROM tickets.inc ORDER BY 1")
    assert [tuple(row.values()) for row in found] == [("ONLY-A", "a"), ("T", "b")]


@pytest.mark.parametrize("policy", ["reapply", "quarantine"])
def test_a_version_that_was_passed_over_and_is_not_to_be_applied_is_a_dead_letter(stage: Stage, policy: str) -> None:
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="ignore")
    stage.bucket.put(KEY, A)
    stage.announce(KEY)
    stage.wait_for("done", KEY)
    stage.bucket.put(KEY, B if policy == "quarantine" else b"no,such\n1,2\n")
    stage.announce(KEY)
    wait_until(lambda: stage.one("SELECT count(*) = 2 FROM ingest.ledger WHERE state = 'done'"), "it is passed over")
    consumer.stop()
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY=policy)
    stage.announce(KEY, KEY)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "it is a dead letter")
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 1
    assert stage.ask("status")["database"]["unfinished_files"] == {"failed": 1}


def test_bytes_that_return_within_a_second_and_fail_are_one_dead_letter(stage: Stage) -> None:
    for body in (A, B):
        stage.bucket.put(KEY, body)
        assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    stage.bucket.put(KEY, A)
    stage.query("UPDATE ingest.ledger SET object_time = %s RETURNING 1", modified(stage, KEY))  # all of one second
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="quarantine")
    stage.announce(KEY)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "it is a dead letter")
    stage.announce(KEY, KEY)
    wait_until(lambda: stage.one("SELECT sum(duplicates) >= 2 FROM ingest.ledger"), "repetitions are duplicates")
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 1


def etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()

"""When everything fails, for a reason in none of the files, they wait instead of becoming dead letters."""

import json
import time

import pytest

from tests.stage.broker import DEAD_FILES
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

SAYS = "everything fails"
DENY = """
CREATE FUNCTION public.deny() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'a migration went wrong'; END $$;
CREATE TRIGGER deny BEFORE INSERT OR UPDATE ON tickets.inc FOR EACH STATEMENT EXECUTE FUNCTION public.deny()"""
ALLOW = "DROP TRIGGER deny ON tickets.inc"


def execute(stage: Stage, statements: str) -> None:
    stage.connection.execute(statements.encode())


@pytest.mark.promise("One bad thing stays one bad thing")
def test_sixty_good_files_outlive_a_broken_schema(stage: Stage) -> None:
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    files = RandomFeed(seed=5, tickets=60).files(60, rows=8)
    stage.bucket.put_all({file.key: file.body for file in files})
    execute(stage, DENY)
    stage.announce(*(file.key for file in files))
    consumer = stage.start("consume")
    wait_until(lambda: SAYS in consumer.output(), "the consumer says that everything fails")
    time.sleep(6)  # the first retries are due after five seconds
    (spent,) = stage.query("SELECT count(*) AS files, max(attempts) AS attempts FROM ingest.ledger WHERE attempts > 0")
    assert spent["files"] <= 19, "one less than the limit"
    assert spent["attempts"] == 1
    assert consumer.running
    assert consumer.output().count(SAYS) == 1
    execute(stage, ALLOW)
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.one("SELECT max(attempts) FROM ingest.ledger") == 1
    assert_equals_oracle(stage, files)


def refuse(stage: Stage, keys: list[str]) -> None:
    """Let the store give these to nobody, and all others."""
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": [f"arn:aws:s3:::{stage.bucket.name}/{key}" for key in keys],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    stage.bucket.s3.put_bucket_policy(Bucket=stage.bucket.name, Policy=policy)


@pytest.mark.promise("One bad thing stays one bad thing")
def test_many_bad_files_among_good_ones_stop_nothing(stage: Stage) -> None:
    """Thirty bad ones in a row, and 27 that fail for no reason of their own, nine at most without a good one between.

    Nine, since on a busy machine each may be tried a second time before the store gives it again.
    """
    keys = [key_at(number) for number in range(60)]
    bad, groups, good = keys[:30], [keys[first : first + 9] for first in (30, 39, 48)], keys[57:]
    stage.bucket.put_all(dict.fromkeys(bad, b"ticket_id,M\xfc\nINC1,x\n"))
    bodies = {key: csv([ticket(key[-10:-4])]) for key in keys[30:]}
    stage.bucket.put_all(bodies)
    consumer = stage.start("consume")
    stage.broker.publish(stage.bucket.event(key, b"") for key in bad)
    stage.wait_for("failed", *bad)
    for refused, between in zip(groups, good, strict=True):
        refuse(stage, refused)
        stage.broker.publish(stage.bucket.event(key, bodies[key]) for key in refused)
        stage.wait_for("failed", *refused)
        stage.bucket.s3.delete_bucket_policy(Bucket=stage.bucket.name)
        stage.broker.publish([stage.bucket.event(between, bodies[between])])
        stage.wait_for("done", between)
    stage.wait_for("done", *keys[30:])
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == len(bad), "the bad ones are dead letters")
    consumer.stop()
    assert SAYS not in consumer.output()


def test_a_replay_in_the_meantime_is_not_forgotten(stage: Stage) -> None:
    key = key_at(1)
    stage.bucket.put(key, b"ticket_id,M\xfc\nINC1,x\n")
    consumer = stage.start("consume", FLEETTICKETS_MAX_FAILURES_IN_A_ROW="1")
    stage.announce(key)
    wait_until(lambda: stage.query("SELECT 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"), "a dead letter")
    # The same version, now for another reason: that an object cannot be read is no property of its bytes.
    execute(stage, DENY.replace("tickets.inc", "ingest.ledger").replace("BEFORE INSERT OR UPDATE", "BEFORE UPDATE"))
    stage.ask("dead-letters", "replay", "--wait", "0", "--all")
    wait_until(lambda: SAYS in consumer.output(), "the consumer says that everything fails")
    wait_until(lambda: "not now" in consumer.output(), "the message is put aside")
    execute(stage, "DROP TRIGGER deny ON ingest.ledger")
    wait_until(lambda: stage.ledger(key)["attempts"] == 2, "it is tried as a replay")
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "and is a dead letter again, no less")
    consumer.stop()


def test_a_capture_that_always_fails_makes_no_dead_letters_either(stage: Stage) -> None:
    execute(stage, "ALTER FUNCTION tickets.capture_history() RENAME TO capture_history_away")
    consumer = stage.start("consume", FLEETTICKETS_MAX_FAILURES_IN_A_ROW="2")
    keys = [key_at(number) for number in range(6)]
    for key in keys:
        stage.bucket.put(key, csv([ticket(key[-10:-4])]))
        stage.announce(key)
        stage.wait_for("done", key)
    wait_until(lambda: SAYS in consumer.output(), "the consumer says that everything fails")
    execute(stage, "ALTER FUNCTION tickets.capture_history_away() RENAME TO capture_history")
    stage.wait_for_history()
    consumer.stop()
    assert stage.broker.ready("fleettickets.history.dead") == 0
    assert stage.one("SELECT sum(open_total) FROM tickets.inc_daily_snapshot") == len(keys)


@pytest.mark.promise("One bad thing stays one bad thing")
def test_few_files_and_restarts_do_not_spend_all_attempts_either(stage: Stage) -> None:
    """Fewer files than the limit, duplicates of an applied one among them, and a supervisor that starts it again."""
    limit = {"FLEETTICKETS_MAX_FAILURES_IN_A_ROW": "9"}
    applied, keys = key_at(0), [key_at(number) for number in range(1, 7)]
    consumer = stage.start("consume", **limit)
    stage.bucket.put_all({key: csv([ticket(f"INC {key}")]) for key in (applied, *keys)})
    stage.announce(applied)
    stage.wait_for("done", applied)
    execute(stage, DENY)
    stage.announce(*keys)
    stage.wait_for("failed", *keys)
    stage.bucket.put(applied, csv([ticket(f"INC {applied}")]))
    stage.announce(applied)  # the same bytes again: nothing is tried, and nothing proven
    wait_until(lambda: SAYS in consumer.output(), "the second tries open it")
    for _ in range(3):
        consumer.kill()
        consumer = stage.start("consume", **limit)
        wait_until(lambda consumer=consumer: SAYS in consumer.output(), "it is open from the start")  # type: ignore[misc]
    time.sleep(6)
    assert stage.one("SELECT max(attempts) FROM ingest.ledger") == 2
    execute(stage, ALLOW)
    stage.wait_for("done", *keys)
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.one("SELECT count(*) FROM tickets.inc") == 7

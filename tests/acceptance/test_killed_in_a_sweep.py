"""What a consumer does beside its deliveries, and a person by a command, is whole or done again: killed, and twice."""

import signal
import time

import pytest

from tests.stage.broker import DEAD_FILES, HISTORY
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED


@pytest.mark.promise("Nothing lost", "No silent decision")
@pytest.mark.parametrize("point", ["mended letter recorded, not settled", "mended letter settled, not marked"])
def test_a_mended_letter_is_let_go_once_whoever_is_killed_at_it(stage: Stage, point: str) -> None:
    key, other = key_at(0), key_at(1)
    first = stage.start("consume")
    stage.bucket.put_all(dict.fromkeys((key, other), b"nothing that is a ticket\n"))
    stage.announce(key, other)
    stage.wait_for("failed", key, other)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 2, "two dead letters")
    first.kill()  # before it sweeps again
    stage.bucket.put(key, csv([ticket("INC1")]))
    assert stage.run("drain", "--apply").returncode == 1, "the other one fails once more"
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point)
    assert doomed.wait() == -signal.SIGKILL
    is_settled = point == "mended letter settled, not marked"
    let_go = "SELECT count(*) FROM ingest.ledger WHERE discarded_at IS NOT NULL"
    records = "SELECT count(*) FROM ingest.discards WHERE key = %s AND reason LIKE 'mended: %%'"
    assert (stage.one(let_go), stage.one(records, key)) == (0, 1)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == (1 if is_settled else 2), "the letters of the dead are back")
    for _ in range(2):
        next_one = stage.start("consume")
        wait_until(lambda: "consuming" in next_one.output(), "it is at work")  # noqa: B023 - used at once
        time.sleep(2)  # and has swept
        wait_until(lambda: stage.one(let_go) == 1, "the ledger is told")
        wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the letter of the other stays")
        next_one.stop()
    assert stage.one(records, key) == 1
    (letter,) = stage.ask("dead-letters", "list", "--each")
    assert letter["key"] == other
    assert "letter_of_applied_file" not in stage.json(stage.run("verify", "--json"))["discrepancies"]


@pytest.mark.parametrize("point", ["between acknowledgements", "acknowledged, not told"])
def test_losses_are_acknowledged_all_or_none_and_once_more_does_no_harm(stage: Stage, point: str) -> None:
    keys = [key_at(0), key_at(1)]
    stage.bucket.put_all({key: csv([ticket(f"INC{number}")]) for number, key in enumerate(keys)})
    stage.ask("drain", "--apply")
    gone = [key.replace(CHANGES, PROCESSED) for key in keys]
    for key in gone:
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)
    killed = stage.run("acknowledge", *gone, "--reason", "first", FLEETTICKETS_FAIL_POINT=point)
    assert killed.returncode == -signal.SIGKILL
    assert stage.one("SELECT count(*) FROM ingest.losses") == (0 if point == "between acknowledgements" else 2)
    for reason in ("once more", "the last word"):
        assert len(stage.ask("acknowledge", *gone, "--reason", reason)["acknowledged"]) == 2
    assert [row["reason"] for row in stage.query("SELECT reason FROM ingest.losses")] == ["the last word"] * 2
    assert stage.json(stage.run("verify", "--json", "--without-broker"))["discrepancies"] == {}


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize("point", ["asked again, not published", "relay published, not marked"])
def test_a_request_that_is_asked_for_once_more_is_sent_whoever_is_killed_at_it(stage: Stage, point: str) -> None:
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    stage.ask("drain", "--apply")
    long_ago = "UPDATE ingest.outbox SET created_at = now() - interval '2 hours', sent_at = now() - interval '2 hours'"
    stage.connection.execute(f"{long_ago} WHERE kind = 'history'".encode())
    stage.connection.execute("UPDATE ingest.outbox SET handled_at = now(), sent_at = now() WHERE kind = 'geocode'")
    doomed = stage.start("consume", "--queue", "files", FLEETTICKETS_FAIL_POINT=point)
    assert doomed.wait() == -signal.SIGKILL
    unsent = "SELECT count(*) FROM ingest.outbox WHERE sent_at IS NULL"
    assert (stage.one(unsent), stage.broker.ready(HISTORY)) == (1, 0 if point == "asked again, not published" else 1)
    sender = stage.start("consume", "--queue", "files")
    wait_until(lambda: stage.one(unsent) == 0, "it is sent")
    assert stage.broker.ready(HISTORY) == 1, "one message, also where there was one already"
    sender.stop()
    worker = stage.start("consume")
    stage.wait_for_history()
    worker.stop()
    assert stage.broker.ready(HISTORY) == 0

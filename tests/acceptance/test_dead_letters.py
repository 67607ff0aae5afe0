"""Broken files in the dead letters: looking at them, and sending them back."""

from typing import Any

from tests.acceptance.broker import DEAD_FILES, FILES
from tests.acceptance.feeds import csv, key_at, ticket
from tests.acceptance.stage import Process, Stage, wait_until
from tests.acceptance.store import CHANGES, PROCESSED

BROKEN = b"number,owner\nINC1,Otieno\n"


def running_consumer(stage: Stage) -> Process:
    running = [process for process in stage.processes if process.running]
    return running[0] if running else stage.start("consume")


def broken(stage: Stage, *keys: str) -> None:
    """Each key fails and lies in the dead letters."""
    running_consumer(stage)
    stage.bucket.put_all(dict.fromkeys(keys, BROKEN))
    stage.announce(*keys)
    stage.wait_for("failed", *keys)
    wait_until(lambda: set(keys) <= {key for key, _ in dead(stage)}, f"dead letters: {keys}")


def dead(stage: Stage) -> list[tuple[str, str]]:
    """Key and attempts of each dead letter."""
    found = [message.headers for message in stage.broker.messages(DEAD_FILES)]
    return [(headers["fleettickets-key"], str(headers["fleettickets-attempts"])) for headers in found]


def listed(stage: Stage, key: str) -> dict[str, Any]:
    (letter,) = stage.ask("dead-letters", "list", "--key", key)
    return dict(letter)


def test_list_and_show_tell_key_and_reason_and_leave_the_queue_as_it_is(shared_stage: Stage) -> None:
    stage, keys = shared_stage, (key_at(0), key_at(10))
    broken(stage, *keys)
    before = sorted(message.body for message in stage.broker.messages(DEAD_FILES))
    letters = stage.ask("dead-letters", "list")
    assert sorted(letter["key"] for letter in letters) == sorted(keys)
    assert all("ticket_id" in letter["reason"] for letter in letters)
    shown = stage.ask("dead-letters", "show", str(letters[0]["number"]))
    assert shown["key"] == letters[0]["key"]
    assert shown["headers"]["fleettickets-reason"] == letters[0]["reason"]
    assert letters[0]["key"] in shown["body"]
    assert sorted(message.body for message in stage.broker.messages(DEAD_FILES)) == before


def test_replay_of_a_key_sends_only_that_one_and_applies_it_once_the_file_is_good(shared_stage: Stage) -> None:
    stage, mended, other = shared_stage, key_at(20), key_at(30)
    broken(stage, mended, other)
    good = csv([ticket("MENDED")])
    stage.bucket.put(mended, good)
    stage.ask("dead-letters", "replay", "--key", mended)
    stage.wait_for("done", mended)
    assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = 'MENDED'") == 1
    assert stage.bucket.read(mended.replace(CHANGES, PROCESSED)) == good
    wait_until(lambda: stage.bucket.keys(mended) == [], "the mended file has left changes/")
    keys = [key for key, _ in dead(stage)]
    assert mended not in keys
    assert (other, "1") in dead(stage)


def test_replay_of_a_file_that_is_still_broken_comes_back_with_one_more_attempt(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(40)
    broken(stage, key)
    assert listed(stage, key)["attempts"] == 1
    stage.ask("dead-letters", "replay", "--key", key)
    wait_until(lambda: (key, "2") in dead(stage), "the second attempt is a dead letter")
    assert [attempts for found, attempts in dead(stage) if found == key] == ["2"]
    assert stage.ledger(key)["attempts"] == 2
    assert stage.bucket.read(key) == BROKEN


def test_a_broken_file_delivered_several_times_at_once_is_one_dead_letter(shared_stage: Stage) -> None:
    stage, key, good = shared_stage, key_at(50), key_at(60)
    running_consumer(stage).stop()
    stage.bucket.put_all({key: BROKEN, good: csv([ticket("BEHIND")])})
    stage.announce(*[key] * 8, good)
    consumer = running_consumer(stage)  # which so takes several of the same at once
    stage.wait_for("failed", key)
    stage.wait_for("done", good)
    consumer.stop()  # with the files in hand finished, every delivery is settled
    assert stage.broker.ready(FILES) == 0
    assert [found for found, _ in dead(stage)].count(key) == 1

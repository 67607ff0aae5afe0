"""Broken files in the dead letters: looking at them, and sending them back."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.doubles.proxy import Proxy
from tests.stage.broker import DEAD, DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

BROKEN = b"number,owner\nINC1,Otieno\n"


def running_consumer(stage: Stage) -> Process:
    running = [process for process in stage.processes if process.running]
    return running[0] if running else stage.start("consume")


def stop_consumers(stage: Stage) -> None:
    for process in stage.processes:
        if process.running:
            process.stop()


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
    (letter,) = stage.ask("dead-letters", "list", "--each", "--key", key)
    return dict(letter)


def test_list_and_show_tell_key_and_reason_and_leave_the_queue_as_it_is(shared_stage: Stage) -> None:
    stage, keys = shared_stage, (key_at(0), key_at(10))
    broken(stage, *keys)
    before = sorted(message.body for message in stage.broker.messages(DEAD_FILES))
    letters = stage.ask("dead-letters", "list", "--each")
    assert sorted(letter["key"] for letter in letters) == sorted(keys)
    assert all("ticket_id" in letter["reason"] for letter in letters)
    shown = stage.ask("dead-letters", "show", letters[0]["id"])
    assert shown["key"] == letters[0]["key"]
    assert shown["headers"]["fleettickets-reason"] == letters[0]["reason"]
    assert letters[0]["key"] in shown["body"]
    (tried,) = shown["history"]
    assert "try 1 failed" in tried
    assert sorted(message.body for message in stage.broker.messages(DEAD_FILES)) == before


def test_replay_of_a_key_sends_only_that_one_and_applies_it_once_the_file_is_good(shared_stage: Stage) -> None:
    stage, mended, other = shared_stage, key_at(20), key_at(30)
    broken(stage, mended, other)
    good = csv([ticket("MENDED")])
    stage.bucket.put(mended, good)
    stage.ask("dead-letters", "replay", "--wait", "0", "--key", mended)
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
    first = listed(stage, key)
    assert first["attempts"] == 1
    stage.ask("dead-letters", "replay", "--wait", "0", "--key", key)
    wait_until(lambda: (key, "2") in dead(stage), "the second attempt is a dead letter")
    assert [attempts for found, attempts in dead(stage) if found == key] == ["2"]
    assert stage.ledger(key)["attempts"] == 2
    second = listed(stage, key)
    assert second["id"] != first["id"]
    shown = stage.ask("dead-letters", "show", second["id"])
    assert [line.split(" ", 1)[1].split(":")[0] for line in shown["history"]] == [
        "try 1 failed",
        "replayed by hand",
        "try 2 failed",
    ]
    assert stage.bucket.read(key) == BROKEN


def outcome(stage: Stage, status: int, *arguments: str) -> dict[str, Any]:
    """Of the only letter that is replayed, by a command that ends with the status."""
    ended = stage.run("dead-letters", "replay", *arguments, "--json")
    assert ended.returncode == status, (ended.stdout, ended.stderr)
    (told,) = stage.json(ended)["replayed"]
    return dict(told)


def test_a_replay_waits_and_tells_what_became_of_the_file(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(45)
    broken(stage, key)
    told = outcome(stage, 1, "--key", key)
    assert (told["outcome"], told["replays"]) == ("failed again", 0)
    assert told["detail"].startswith("no ticket_id: ")
    assert listed(stage, key)["replays"] == 1
    with stage.another_has(key):
        assert outcome(stage, 3, "--key", key, "--wait", "1")["outcome"] == "undecided"
    wait_until(lambda: (key, "3") in dead(stage), "it has failed again meanwhile")
    assert listed(stage, key)["replays"] == 2
    (letter,) = stage.json(stage.run("explain", key, "--json"))["dead_letters"]
    assert letter["replays"] == 2
    assert "replayed 2 times" in stage.run("dead-letters", "list", "--each", "--key", key).stdout
    stop_consumers(stage)
    lonely = stage.run("dead-letters", "replay", "--key", key)
    assert (lonely.returncode, "no consumer runs" in lonely.stderr) == (3, True)
    running_consumer(stage)
    wait_until(lambda: (key, "4") in dead(stage), "it has failed once more")
    stage.bucket.put(key, csv([ticket("TOLD")]))
    shown = stage.run("dead-letters", "replay", "--key", key)
    assert shown.returncode == 0, shown.stderr
    assert ": new, 1 new, 0 updated, 0 rejected" in shown.stdout.splitlines()[1]
    assert shown.stdout.splitlines()[1].startswith("applied ")


@pytest.mark.promise("No silent decision")
def test_a_file_that_is_mended_under_its_key_settles_its_letter(shared_stage: Stage) -> None:
    stage, mended, other = shared_stage, key_at(46), key_at(47)
    broken(stage, mended, other)
    stage.bucket.put(mended, csv([ticket("SETTLED")]))
    stage.announce(mended)
    stage.wait_for("done", mended)
    assert "letter_of_applied_file" not in stage.json(stage.run("verify", "--json"))["discrepancies"]
    # Not by a look at the queue, which would have the letters in hand.
    kept_ones = "SELECT reason, died_of, body FROM ingest.discards WHERE key = %s"
    wait_until(lambda: stage.query(kept_ones, mended), "the letter is settled")
    wait_until(lambda: mended not in {key for key, _ in dead(stage)}, "and gone")
    assert other in {key for key, _ in dead(stage)}
    (kept,) = stage.query(kept_ones, mended)
    assert (kept["reason"][:8], kept["died_of"]) == ("mended: ", "no ticket_id")
    assert mended.encode() in kept["body"]


def test_a_broken_file_delivered_several_times_at_once_is_one_dead_letter(shared_stage: Stage) -> None:
    stage, key, good = shared_stage, key_at(50), key_at(60)
    stop_consumers(stage)
    stage.bucket.put_all({key: BROKEN, good: csv([ticket("BEHIND")])})
    stage.announce(*[key] * 8, good)
    consumer = running_consumer(stage)  # which so takes several of the same at once
    stage.wait_for("failed", key)
    stage.wait_for("done", good)
    wait_until(lambda: stage.ledger(key)["duplicates"] == 7, "every delivery has been looked at")
    consumer.stop()  # with the files in hand finished, every delivery is settled
    assert stage.broker.ready(FILES) == 0
    assert [found for found, _ in dead(stage)].count(key) == 1


NOT_TEXT = b"ticket_id,M\xfc\nINC1,x\n"
PUBLISH, ACK = bytes.fromhex("003c0028"), bytes.fromhex("003c0050")
"""How AMQP begins a basic.publish, and a basic.ack, which settles a delivery."""


def empty(stage: Stage) -> None:
    """Have no consumer and no letters."""
    stop_consumers(stage)
    stage.broker.purge()


def lay(stage: Stage, *ages: float) -> list[str]:
    """Letters that died so many hours ago, in the order of the queue; the key of each. No consumer is there."""
    empty(stage)
    now = datetime.now(UTC)
    keys = [key_at(3000 + number) for number in range(len(ages))]
    with stage.broker.channel() as channel:
        for key, age in zip(keys, ages, strict=True):
            headers = {
                "fleettickets-key": key,
                "fleettickets-reason": "laid by a test",
                "fleettickets-attempts": 1,
                "fleettickets-dead-at": (now - timedelta(hours=age)).isoformat(timespec="milliseconds"),
            }
            stage.broker.publish_to(channel, DEAD, "files", stage.bucket.event(key, BROKEN), headers)
    return keys


def ids(letters: list[dict[str, Any]]) -> list[str]:
    return [letter["id"] for letter in letters]


def test_letters_are_listed_in_groups_of_one_cause_with_counts_and_ages(shared_stage: Stage) -> None:
    stage = shared_stage
    empty(stage)
    began = datetime.now(UTC)
    broken(stage, *(key_at(number) for number in range(100, 103)))
    stage.bucket.put(key_at(110), NOT_TEXT)
    stage.announce(key_at(110))
    stage.wait_for("failed", key_at(110))
    wait_until(lambda: len(dead(stage)) == 4, "four letters")
    first, second = stage.ask("dead-letters", "list")
    assert (first["letters"], second["letters"]) == (3, 1)
    # Several fail at once, so which of them is the oldest may differ by how it is asked.
    assert first["key"] in {key_at(number) for number in range(100, 103)}
    assert (second["key"], second["reason"]) == (key_at(110), "not UTF-8")
    assert began <= datetime.fromisoformat(first["oldest"]) <= datetime.fromisoformat(first["newest"])
    only = stage.ask("dead-letters", "list", "--each", "--group", second["fingerprint"])
    assert [letter["key"] for letter in only] == [key_at(110)]
    shown = stage.run("dead-letters", "list").stdout
    assert first["fingerprint"] in shown
    assert " s ago" in shown


def test_a_dry_run_an_age_and_a_limit_choose_and_leave_the_rest(shared_stage: Stage) -> None:
    stage = shared_stage
    empty(stage)
    keys = [key_at(number) for number in range(120, 124)]
    broken(stage, *keys)
    running_consumer(stage).stop()
    order = [key for key, _ in dead(stage)]
    dry = stage.ask("dead-letters", "replay", "--all", "--dry-run")["would_replay"]
    assert [letter["key"] for letter in dry] == order
    assert stage.ask("dead-letters", "replay", "--wait", "0", "--older-than", "1h")["replayed"] == []
    assert len(dead(stage)) == 4
    oldest_first = [letter["key"] for letter in stage.ask("dead-letters", "list", "--each")]
    replayed = stage.ask("dead-letters", "replay", "--wait", "0", "--newer-than", "1h", "--limit", "3")["replayed"]
    assert [letter["key"] for letter in replayed] == oldest_first[:3]
    assert [key for key, _ in dead(stage)] == oldest_first[3:]
    assert stage.broker.ready(FILES) == 3
    for arguments, words in (
        (("replay",), "say which"),
        (("replay", "--older-than", "yesterday"), "is no age"),
        (("discard", "--all", "--reason", " "), "--reason is empty"),
        (("replay", "--key", "", "--id", ""), "say which"),
    ):
        ended = stage.run("dead-letters", *arguments)
        assert ended.returncode == 2
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


def test_each_look_finds_a_letter_by_its_id_and_the_oldest_are_the_oldest(shared_stage: Stage) -> None:
    """A look that stops early puts what it took back behind the others, so the queue has no order to count in."""
    stage = shared_stage
    keys = lay(stage, 2, 5, 1, 4, 3)
    oldest_first = [keys[place] for place in (1, 3, 4, 0, 2)]
    listed = stage.ask("dead-letters", "list", "--each")
    assert [letter["key"] for letter in listed] == oldest_first
    for letter in listed[::2]:
        assert stage.ask("dead-letters", "show", letter["id"])["key"] == letter["key"]
    assert [key for key, _ in dead(stage)] != keys  # or the looks would prove nothing
    assert stage.ask("dead-letters", "list", "--each") == listed
    (group,) = stage.ask("dead-letters", "list")
    assert [group["key"], group["oldest"], group["newest"]] == [
        listed[0]["key"],
        listed[0]["dead_at"],
        listed[-1]["dead_at"],
    ]
    arguments = ("dead-letters", "replay", "--wait", "0", "--limit", "2")
    for _ in range(2):
        assert stage.ask(*arguments, "--dry-run")["would_replay"] == listed[:2]
    assert stage.ask(*arguments)["replayed"] == listed[:2]
    assert stage.ask("dead-letters", "list", "--each") == listed[2:]
    discarded = stage.ask("dead-letters", "discard", "--limit", "1", "--reason", "a test")["discarded"]
    assert discarded == listed[2:3]
    assert stage.ask("dead-letters", "list", "--each") == listed[3:]


def test_an_id_chooses_one_letter_for_replay_and_for_discard(shared_stage: Stage) -> None:
    stage = shared_stage
    lay(stage, 1, 2, 2, 4)  # two of them died in the same millisecond
    listed = stage.ask("dead-letters", "list", "--each")
    assert len(set(ids(listed))) == 4
    assert stage.run("dead-letters", "replay", "--wait", "0", "--id", listed[2]["id"]).stdout.splitlines() == [
        f"replayed {listed[2]['id']} {listed[2]['key']}",
        "replayed: 1",
    ]
    arguments = ("dead-letters", "discard", "--id", listed[1]["id"], "--reason", "a test")
    assert ids(stage.ask(*arguments, "--dry-run")["would_discard"]) == [listed[1]["id"]]
    assert ids(stage.ask(*arguments)["discarded"]) == [listed[1]["id"]]
    assert ids(stage.ask("dead-letters", "list", "--each")) == [listed[0]["id"], listed[3]["id"]]
    assert stage.broker.ready(FILES) == 1


def test_a_letter_that_is_named_and_not_there_is_said_and_no_other_choice_has_to_find_one(shared_stage: Stage) -> None:
    stage = shared_stage
    (key,) = lay(stage, 1)
    replay, discard = ("dead-letters", "replay", "--wait", "0"), ("dead-letters", "discard", "--reason", "a test")
    for arguments, words in (
        (("dead-letters", "show", "abc"), "id 'abc'"),
        ((*replay, "--id", "abc"), "id 'abc'"),
        ((*replay, "--key", "nowhere"), "key 'nowhere'"),
        ((*replay, "--key", key, "--older-than", "2h"), f"key '{key}' and the age asked for"),
        ((*replay, "--key", "nowhere", "--dry-run"), "key 'nowhere'"),
        ((*discard, "--id", "abc", "--limit", "1"), "id 'abc'"),
        ((*discard, "--key", "nowhere"), "key 'nowhere'"),
    ):
        ended = stage.run(*arguments)
        assert ended.returncode == 1
        assert f"no dead letter in {DEAD_FILES} has {words};" in ended.stderr
        assert ("a key begins with its folder" in ended.stderr) == ("nowhere" in words)
    told = stage.run(*replay, "--key", "nowhere", "--json")
    assert (told.returncode, stage.json(told)) == (1, {"replayed": []})
    for command in (replay, discard):
        for choice in (("--group", "abc"), ("--older-than", "2h"), ("--newer-than", "0s")):
            assert list(stage.ask(*command, *choice).values()) == [[]]
    assert len(dead(stage)) == 1
    assert [letter["key"] for letter in stage.ask(*replay, "--older-than", "0s")["replayed"]] == [key]
    for command in (replay, discard):
        assert list(stage.ask(*command, "--all").values()) == [[]]


def test_a_rate_is_kept(shared_stage: Stage) -> None:
    stage = shared_stage
    lay(stage, *range(6))
    began = time.monotonic()
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--all", "--rate", "4")["replayed"]) == 6
    assert time.monotonic() - began >= 5 / 4


def test_one_process_has_the_letters_at_a_time_and_the_others_are_told(shared_stage: Stage) -> None:
    """They would find too few: what one has in hand, the broker shows to nobody."""
    stage = shared_stage
    first, _ = lay(stage, 1, 2)
    slow = stage.start("dead-letters", "replay", "--wait", "0", "--all", "--rate", "0.01")
    wait_until(lambda: "replayed " in slow.output(), "it waits before the second")
    commands = [("replay", "--all"), ("discard", "--all", "--reason", "a test"), ("list",), ("show", "0" * 12)]
    with ThreadPoolExecutor(3) as threads:
        for refused in threads.map(lambda command: stage.run("dead-letters", *command), commands):
            assert (refused.returncode, "another process is at it" in refused.stderr) == (1, True), refused.stderr
    life = stage.json(stage.run("explain", first, "--json"))
    assert "another process is at it" in life["faults"]["broker"]
    assert life["next"] == ""
    slow.stop()
    assert "replayed: 1" in slow.output()
    assert (stage.broker.ready(FILES), len(dead(stage))) == (1, 1)
    assert len(stage.ask("dead-letters", "discard", "--all", "--reason", "a test")["discarded"]) == 1


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize(("lost", "published"), [(PUBLISH, 0), (ACK, 1)], ids=["publish", "settlement"])
def test_a_replay_killed_before_it_settles_leaves_the_letter(shared_stage: Stage, lost: bytes, published: int) -> None:
    """Published first and settled second: dead in between, the letter is in both places, and never in none."""
    stage = shared_stage
    (key,) = lay(stage, 1)
    with Proxy(stage.broker.url, losing=lost) as proxy:
        doomed = stage.start("dead-letters", "replay", "--wait", "0", "--all", RABBITMQ_URL=proxy.url)
        assert proxy.lost.wait(30)
        doomed.kill()
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the letter is back")
    assert stage.broker.ready(FILES) == published
    stage.bucket.put(key, csv([ticket(f"INC {published}")]))
    assert stage.run("dead-letters", "replay", "--wait", "0", "--all").returncode == 0
    assert stage.broker.ready(FILES) == published + 1
    consumer = running_consumer(stage)
    there = "SELECT count(*) FROM tickets.inc WHERE ticket_id = %s"
    wait_until(lambda: stage.one(there, f"INC {published}") == 1, "the replayed file is applied")
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is taken")
    consumer.stop()  # with the files in hand finished
    inserted = "SELECT rows_inserted FROM ingest.ledger WHERE key = %s ORDER BY file_id DESC LIMIT 1"
    assert (stage.one(inserted, key), dead(stage)) == (1, [])


def test_a_replay_that_an_error_ends_tells_what_it_sent(shared_stage: Stage) -> None:
    stage = shared_stage
    keys = lay(stage, 4, 3, 2, 1)
    with Proxy(stage.broker.url, losing=keys[2].encode(), after=True) as proxy:
        ended = stage.run("dead-letters", "replay", "--wait", "0", "--all", "--json", RABBITMQ_URL=proxy.url)
    assert ended.returncode == 1
    assert "rabbitmq is not available" in ended.stderr
    assert [letter["key"] for letter in stage.json(ended)["replayed"]] == keys[:2]
    # The third was sent as well, and nobody knew of it: it is in both places.
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 2, "the others are back")
    assert {key for key, _ in dead(stage)} == set(keys[2:])
    assert stage.broker.ready(FILES) == 3


def test_a_discard_that_an_error_ends_tells_what_it_let_go(shared_stage: Stage) -> None:
    stage = shared_stage
    keys = lay(stage, 4, 3, 2, 1)
    arguments = ("dead-letters", "discard", "--all", "--reason", "a test")
    for as_json in (("--json",), ()):
        with Proxy(stage.database, losing=keys[2].encode(), after=True) as proxy:
            ended = stage.run(*arguments, *as_json, DATABASE_URL=proxy.url)
        assert ended.returncode == 1
        assert "postgres is not available" in ended.stderr
        if as_json:
            assert [letter["key"] for letter in stage.json(ended)["discarded"]] == keys[:2]
        else:
            assert ended.stdout.splitlines()[-1] == "discarded: 0"
        assert {key for key, _ in dead(stage)} == set(keys[2:])


def test_a_replay_beside_consumers_ends_although_every_letter_comes_back(shared_stage: Stage) -> None:
    stage = shared_stage
    empty(stage)
    keys = [key_at(number) for number in range(130, 140)]
    broken(stage, *keys)
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--all", "--rate", "20")["replayed"]) == len(keys)
    wait_until(lambda: sorted(dead(stage)) == sorted((key, "2") for key in keys), "each is back once")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_replay_is_taken_up_by_the_next(shared_stage: Stage, number: signal.Signals) -> None:
    stage = shared_stage
    empty(stage)
    keys = [key_at(1000 + 100 * number + minutes) for minutes in range(8)]
    broken(stage, *keys)
    stage.bucket.put_all({key: csv([ticket(f"INC {key}")]) for key in keys})
    replay = stage.start("dead-letters", "replay", "--wait", "0", "--all", "--rate", "4")
    wait_until(lambda: replay.output().count("replayed ") >= 3, "some are replayed")
    replay.signal(number)
    assert replay.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) > 0, "the others are back among the dead letters")
    assert stage.run("dead-letters", "replay", "--wait", "0", "--all").returncode == 0
    stage.wait_for("done", *keys)
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = ANY(%s)", [f"INC {key}" for key in keys]) == 8
    assert stage.one("SELECT sum(rows_inserted) FROM ingest.ledger WHERE key = ANY(%s)", keys) == len(keys)
    assert dead(stage) == []


@pytest.mark.promise("No silent decision")
def test_a_discarded_letter_is_on_record_and_its_file_stays(shared_stage: Stage) -> None:
    stage = shared_stage
    empty(stage)
    gone, kept_key = key_at(200), key_at(210)
    broken(stage, gone, kept_key)
    before = len(stage.query("SELECT 1 FROM ingest.discards"))
    dry = stage.ask("dead-letters", "discard", "--key", gone, "--reason", "a test export", "--dry-run")
    assert [letter["key"] for letter in dry["would_discard"]] == [gone]
    assert len(stage.query("SELECT 1 FROM ingest.discards")) == before
    discarded = stage.ask("dead-letters", "discard", "--key", gone, "--reason", "a test export")["discarded"]
    assert [letter["key"] for letter in discarded] == [gone]
    assert [key for key, _ in dead(stage)] == [kept_key]
    (record,) = stage.query("SELECT * FROM ingest.discards WHERE key = %s", gone)
    assert (record["reason"], record["queue"], record["attempts"]) == ("a test export", "files", 1)
    assert gone.encode() in bytes(record["body"])
    assert "fleettickets-error" in record["headers"]
    assert stage.ledger(gone)["discarded_at"] is not None
    assert stage.bucket.read(gone) == BROKEN

    # Announced again and again it stays discarded. Other bytes are another version.
    stage.announce(gone)
    wait_until(lambda: stage.ledger(gone)["duplicates"] >= 1, "the consumer has looked at it")
    assert [key for key, _ in dead(stage)] == [kept_key]
    assert stage.ask("status")["database"]["backlog"]["set_aside"]["discarded"] == 1
    stage.bucket.put(gone, csv([ticket("MENDED LATER")]))
    stage.announce(gone)
    stage.wait_for("done", gone)
    assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = 'MENDED LATER'") == 1


def test_a_discard_killed_between_record_and_settlement_leaves_the_letter_and_one_record(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(220)
    empty(stage)
    broken(stage, key)
    running_consumer(stage).stop()
    arguments = ("dead-letters", "discard", "--all", "--reason", "a test")
    with Proxy(stage.broker.url, losing=ACK) as proxy:
        doomed = stage.start(*arguments, RABBITMQ_URL=proxy.url)
        assert proxy.lost.wait(30)
        doomed.kill()
    wait_until(lambda: len(dead(stage)) == 1, "the letter is back")
    assert stage.one("SELECT count(*) FROM ingest.discards WHERE key = %s", key) == 1
    assert stage.run(*arguments).returncode == 0
    assert dead(stage) == []
    assert stage.one("SELECT count(*) FROM ingest.discards WHERE key = %s", key) == 1


def test_a_discard_is_of_one_bucket(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(230)
    empty(stage)
    broken(stage, key)
    stage.query(
        """INSERT INTO ingest.ledger
               (bucket, prefix, key, etag, epoch, first_seen_by, decision, state, dead_lettered_at)
           VALUES ('another-bucket', 'automations/inc/', %s, 'e', 1, 'poller', 'rejected', 'failed', now())
           RETURNING file_id""",
        key,
    )
    assert len(stage.ask("dead-letters", "discard", "--key", key, "--reason", "a test")["discarded"]) == 1
    marked = stage.query("SELECT bucket FROM ingest.ledger WHERE key = %s AND discarded_at IS NOT NULL", key)
    assert [row["bucket"] for row in marked] == [stage.bucket.name]

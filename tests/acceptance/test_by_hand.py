"""What an operator does without a broker, and at the cut-over to a new bucket."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tests.stage.broker import GEOCODE
from tests.stage.comparing import assert_equals_oracle, of_the_run, tickets
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

NO_BROKER = {"RABBITMQ_URL": "amqp://127.0.0.1:1/"}
TABLES = ("tickets.inc", "tickets.closure_events", "tickets.import_meta", "ingest.ledger", "ingest.positions",
          "ingest.rejects", "ingest.outbox", "ingest.epochs")  # fmt: skip


def state(stage: Stage) -> dict[str, list[dict[str, object]]]:
    return {table: stage.query(f"SELECT * FROM {table}") for table in TABLES}  # noqa: S608


@pytest.mark.promise("Order-free", "Late files count")
def test_drain_applies_everything_oldest_to_newest_without_a_broker(stage: Stage) -> None:
    files = RandomFeed(seed=7, tickets=60).files(25, rows=12)
    stage.bucket.put_all({file.key: file.body for file in files})

    before = state(stage)
    tried = stage.run("drain", "--json", **NO_BROKER)
    assert (tried.returncode, stage.json(tried)["failed"]) == (1, 0), "some tickets would be reopened"
    assert state(stage) == before, "a dry run changes nothing"
    assert sorted(stage.waiting()) == sorted(file.key for file in files)

    drained = stage.run("drain", "--apply", **NO_BROKER)
    assert drained.returncode == 0, drained.stderr
    assert_equals_oracle(stage, files)
    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {file.key.replace(CHANGES, PROCESSED): file.body for file in files}
    rows = stage.query("SELECT decision, first_seen_by, state FROM ingest.ledger")
    assert {tuple(row.values()) for row in rows} == {("new", "drain", "archived")}
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE sent_at IS NOT NULL") == 0

    consumer = stage.start("consume")
    wait_until(lambda: {row["state"] for row in stage.query("SELECT state FROM ingest.ledger")} == {"done"}, "all done")
    stage.wait_for_history()
    assert stage.broker.ready(GEOCODE) == 1, "one request for all"
    consumer.stop()


def test_a_dry_run_says_what_the_run_then_does(stage: Stage) -> None:
    files = RandomFeed(seed=8, tickets=30).files(8, rows=10)
    stage.bucket.put_all({file.key: file.body for file in files})
    stage.bucket.put(f"{CHANGES}notes.csv", b"ticket_id\n")
    tried, done = stage.json(stage.run("drain", "--json")), stage.ask("drain", "--apply")
    assert of_the_run(tried["files"]) == done["files"]
    assert (tried["applied"], done["applied"]) == (False, True)
    assert stage.waiting() == [f"{CHANGES}notes.csv"]


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_broken_file_stops_neither_the_drain_nor_its_later_dead_letter(stage: Stage) -> None:
    broken, good = key_at(1), key_at(2)
    stage.bucket.put(broken, b"ticket_id,M\xfc\nINC1,x\n")
    stage.bucket.put(good, csv([ticket("GOOD")]))
    drained = stage.run("drain", "--apply", **NO_BROKER)
    assert drained.returncode == 1
    assert f"{broken}: FAILS, not UTF-8" in drained.stdout
    assert stage.waiting() == [broken]
    assert stage.ledger(good)["state"] == "archived"

    consumer = stage.start("consume")
    stage.run("poll")
    wait_until(lambda: stage.ledger(broken)["dead_lettered_at"], "the broken file is a dead letter")
    consumer.stop()
    assert [letter["key"] for letter in stage.ask("dead-letters", "list", "--each")] == [broken]


@pytest.mark.promise("Exactly once")
@pytest.mark.parametrize("point", ["after commit, before archive", "after delete, before state"])
def test_a_drain_finishes_what_a_killed_consumer_left(stage: Stage, point: str) -> None:
    key, body = key_at(1), csv([ticket("HALF")])
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point)
    stage.bucket.put(key, body)
    stage.announce(key)
    doomed.wait()
    drained = stage.run("drain", "--apply", **NO_BROKER)
    assert "was applied before" in drained.stdout
    assert stage.waiting() == []
    assert stage.bucket.read(key.replace(CHANGES, PROCESSED)) == body
    assert stage.ledger(key)["state"] == "archived"
    assert stage.one("SELECT count(*) FROM tickets.inc") == 1


def test_a_new_epoch_lets_the_older_stamped_files_of_a_new_bucket_win(stage: Stage) -> None:
    """Without it the guard would hold the whole new bucket back, as the first assertion shows."""
    stage.bucket.put(key_at(1000), csv([ticket("MOVED", owner="old bucket"), ticket("KEPT", owner="old bucket")]))
    stage.ask("drain", "--apply")
    stage.bucket.put(key_at(10), csv([ticket("MOVED", owner="too early")]))
    stage.ask("drain", "--apply")
    assert tickets(stage)["MOVED"]["owner"] == "old bucket"

    assert stage.ask("reseed", "--yes", "--reason", "cut-over") == {"epochs": {"crq": 2, "inc": 2}}
    stage.bucket.put(key_at(20), csv([ticket("MOVED", owner="new bucket")]))
    stage.bucket.put(key_at(15), csv([ticket("MOVED", owner="new bucket, older")]))
    (older, newer) = stage.ask("drain", "--apply")["files"]
    assert (older["decision"], newer["decision"]) == ("new", "new")
    found = tickets(stage)
    assert (found["MOVED"]["owner"], found["KEPT"]["owner"]) == ("new bucket", "old bucket")
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") == key_at(20)


def test_drain_with_reseed_tries_and_does_the_same(stage: Stage) -> None:
    stage.bucket.put(key_at(1000), csv([ticket("MOVED", owner="old bucket")]))
    stage.ask("drain", "--apply")
    stage.bucket.put(key_at(10), csv([ticket("MOVED", owner="new bucket")]))
    (tried,) = stage.ask("drain", "--reseed")["files"]
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 1
    (done,) = stage.ask("drain", "--reseed", "--apply")["files"]
    assert of_the_run([tried]) == [done]
    assert done["updated"] == 1
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 2


def test_a_drain_with_reseed_that_is_repeated_goes_on_in_its_epoch(stage: Stage) -> None:
    """In one more, the older file that failed at first would outrank the newer one."""
    bad, good = [ticket("BAD", mttr="soon")] * 9, csv([ticket("MOVED", owner="newer")])
    stage.bucket.put_all({key_at(1): csv([ticket("MOVED", owner="older"), *bad]), key_at(2): good})
    assert stage.run("drain", "--reseed", "--apply").returncode == 1
    repeated = stage.run("drain", "--reseed", "--apply", FLEETTICKETS_MAX_REJECT_SHARE="1")
    assert (repeated.returncode, "goes on in epoch 2" in repeated.stderr) == (0, True)
    assert tickets(stage)["MOVED"]["owner"] == "newer"
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 2
    assert stage.ask("reseed", "--yes") == {"epochs": {"crq": 3, "inc": 3}}
    stage.ask("drain", "--reseed", "--apply")
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 4, "after another one it begins its own"


def test_reseed_asks_first(stage: Stage) -> None:
    refused = stage.run("reseed")
    assert refused.returncode != 0
    assert "outrank all that is there?" in refused.stderr
    assert stage.one("SELECT max(epoch) FROM ingest.epochs") == 1


@pytest.mark.parametrize("name", ["2026-06-01T120000.csv", "tickets from the office.csv"])
def test_a_local_file_is_imported_once(stage: Stage, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(csv([ticket("LOCAL1"), ticket("LOCAL2", mttr="soon")]))
    tried = stage.ask("import-csv", "--feed", "inc", str(file))
    assert tickets(stage) == {}
    done = stage.ask("import-csv", "--feed", "inc", str(file), "--apply")
    assert done["files"] == of_the_run(tried["files"])
    assert list(tickets(stage)) == ["LOCAL1"]
    assert [row["line"] for row in stage.query("SELECT line FROM ingest.rejects")] == [3]
    again = stage.run("import-csv", "--feed", "inc", str(file), "--apply")
    assert "was applied before" in again.stdout
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") is None


def test_a_local_file_that_is_not_there_is_said_in_one_line(stage: Stage, tmp_path: Path) -> None:
    ended = stage.run("import-csv", "--feed", "inc", str(tmp_path / "nowhere.csv"))
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith("nowhere.csv: No such file or directory")


def test_history_is_captured_by_hand(stage: Stage) -> None:
    stage.bucket.put(key_at(1), csv([ticket("OPEN1")]))
    stage.ask("drain", "--apply")
    assert stage.ask("capture-history") == {"requests": 1}
    assert stage.ask("capture-history") == {"requests": 0}
    assert stage.one("SELECT sum(open_total) FROM tickets.inc_daily_snapshot") == 1


def test_objects_that_the_store_refuses_stop_no_drain(stage: Stage) -> None:
    unreadable, kept_back, good = key_at(1), key_at(2), key_at(3)
    stage.bucket.put_all({key: csv([ticket(f"INC {key}")]) for key in (unreadable, kept_back, good)})
    stage.bucket.deny("s3:GetObject", unreadable)
    stage.bucket.deny("s3:PutObject", kept_back.replace(CHANGES, PROCESSED))
    drained = stage.run("drain", "--apply", "--json", **NO_BROKER)
    assert (drained.returncode, drained.stderr) == (1, "")
    outcomes = [(file["key"], file.get("decision") or file["reason"]) for file in json.loads(drained.stdout)["files"]]
    assert outcomes == [(unreadable, "unexpected"), (kept_back, "new"), (kept_back, "not archived"), (good, "new")]
    assert stage.ledger(unreadable)["state"] == "failed"
    assert (stage.ledger(kept_back)["state"], stage.ledger(good)["state"]) == ("applied", "archived")
    stage.bucket.allow_all()
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    assert stage.waiting() == []
    assert stage.one("SELECT count(*) FROM tickets.inc") == 3


def test_a_drain_keeps_to_the_policy_for_changed_files(stage: Stage) -> None:
    key, quarantine = key_at(1), {**NO_BROKER, "FLEETTICKETS_CHANGED_POLICY": "quarantine"}
    for owner in ("first", "other"):
        stage.bucket.put(key, csv([ticket("A", owner=owner)]))
        drained = stage.run("drain", "--apply", **quarantine)
    assert drained.returncode == 1
    assert "changed: the key was applied before with other bytes" in drained.stdout
    assert stage.run("drain", "--apply", **quarantine).returncode == 1, "it is not let in by asking twice"
    assert stage.one("SELECT owner FROM tickets.inc") == "first"
    assert stage.waiting() == [key]
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    assert stage.one("SELECT owner FROM tickets.inc") == "other"


def test_a_drain_that_fails_again_makes_no_second_dead_letter(stage: Stage) -> None:
    broken = key_at(1)
    consumer = stage.start("consume")
    stage.bucket.put(broken, b"ticket_id,M\xfc\nINC1,x\n")
    stage.announce(broken)
    stage.wait_for("failed", broken)
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 1
    stage.announce(broken)
    wait_until(lambda: stage.ledger(broken)["duplicates"] == 1, "the consumer has looked at it")
    consumer.stop()
    assert len(stage.ask("dead-letters", "list", "--each")) == 1
    assert stage.ask("status")["database"]["backlog"]["set_aside"] == {"dead letters": 1}


@pytest.mark.promise("No silent decision")
def test_a_drain_names_what_it_leaves_alone_and_the_ledger_knows(stage: Stage) -> None:
    stray = f"{CHANGES}read me.txt"
    stage.bucket.put(stray, b"hello")
    assert f"{stray}: left alone: not a .csv or .csv.gz file" in stage.run("drain", **NO_BROKER).stdout
    assert stage.query("SELECT 1 FROM ingest.ledger") == []
    assert stage.run("drain", "--apply", **NO_BROKER).returncode == 0
    row = stage.ledger(stray)
    assert (row["decision"], row["reason"], row["first_seen_by"]) == ("ignored", "not a .csv or .csv.gz file", "drain")


WAITS = """SELECT count(*) FROM pg_locks WHERE relation = 'ingest.key_slots'::regclass AND NOT granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@pytest.mark.parametrize("doing", ["file", "history", "geocoding by hand"])
def test_a_dry_run_and_the_others_wait_for_each_other_and_not_half_way(stage: Stage, doing: str) -> None:
    """Each holds many rows, in an order of its own: where both had begun, they would end in a deadlock."""
    stage.bucket.put(key_at(1), csv([ticket("INC1")]))
    with stage.connection.transaction():
        stage.connection.execute("LOCK TABLE ingest.key_slots IN EXCLUSIVE MODE")  # as a dry run does
        match doing:
            case "file":
                waiting = stage.start("drain", "--apply")
            case "history":
                waiting = stage.start("capture-history")
            case _:
                waiting = stage.start("geocode", "set", "--cluster", "Westlands", "--", "-1.26", "36.81")
        wait_until(lambda: stage.one(WAITS) == 1, "it waits")
    assert waiting.wait() == 0, waiting.output()
    with stage.connection.transaction():
        stage.connection.execute("LOCK TABLE ingest.key_slots IN ROW SHARE MODE")  # as a file does
        trying = stage.start("drain")
        wait_until(lambda: stage.one(WAITS) == 1, "the dry run waits")
    assert trying.wait() == 0, trying.output()


def test_what_is_applied_waits_for_whoever_has_the_key_in_hand(stage: Stage) -> None:
    key, local = key_at(1), stage.folder / "2026-06-25T142000.csv"
    stage.bucket.put(key, csv([ticket("INC1")]))
    local.write_bytes(csv([ticket("INC2")]))
    commands = (["drain"], ["import-csv", "--feed", "inc", str(local)])
    with stage.another_has(key), stage.another_has(local.name, bucket="a local file, inc"):
        applying = [stage.start(*command, "--apply") for command in commands]
        for process in applying:
            wait_until(lambda process=process: "waiting" in process.output(), "it waits")  # type: ignore[misc]
    for process in applying:
        assert process.wait() == 0, process.output()
    assert sorted(tickets(stage)) == ["INC1", "INC2"]


def test_a_second_interrupt_does_not_wait_for_the_file_in_hand(stage: Stage) -> None:
    stage.bucket.put(key_at(1), csv([ticket("INC1")]))
    with stage.connection.transaction():
        stage.connection.execute("LOCK TABLE tickets.inc IN ACCESS EXCLUSIVE MODE")
        draining = stage.start("drain", "--apply")
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'tickets.inc'::regclass"
        wait_until(lambda: stage.one(blocked) == 1, "it waits for the table")

        def ends() -> bool:
            draining.signal(signal.SIGINT)  # two at once would be one
            return draining.ends_within(0.2)

        wait_until(ends, "it has ended", timeout=30)
    assert draining.wait() != 0
    assert "Traceback" not in draining.output()
    assert stage.ask("drain", "--apply")["failed"] == 0


def test_a_signal_ends_a_drain_from_the_archive_too(stage: Stage) -> None:
    keys = [key_at(number) for number in range(60)]
    stage.bucket.put_all({key.replace(CHANGES, PROCESSED): csv([ticket(f"INC {key}")]) for key in keys})
    draining = stage.start("drain", "--from-archive", "--apply")
    applied = "SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL"
    wait_until(lambda: stage.one(applied) > 2, "it applies")
    draining.terminate()
    assert draining.wait() == 1
    assert stage.one(applied) < len(keys)
    assert stage.ask("drain", "--from-archive", "--apply")["stopped"] is False
    assert stage.one(applied) == len(keys)


def test_a_signal_ends_a_drain_after_the_file_in_hand_and_the_next_one_goes_on(stage: Stage) -> None:
    keys = [key_at(number) for number in range(60)]
    stage.bucket.put_all({key: csv([ticket(f"INC {key}")]) for key in keys})
    draining = stage.start("drain", "--apply", **NO_BROKER)
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL") > 2, "it applies")
    draining.terminate()
    assert draining.wait() == 1
    assert "stopped by a signal" in draining.output()
    assert "Traceback" not in draining.output()
    assert len(stage.waiting()) + len(stage.query("SELECT 1 FROM ingest.ledger WHERE state = 'archived'")) == len(keys)
    assert stage.waiting()
    assert stage.ask("drain", "--apply")["stopped"] is False
    assert stage.waiting() == []


def on_a_terminal(stage: Stage, *arguments: str) -> bytes:
    """What the command shows a person until it ends, which has to be well."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen(
        [PROGRAM, *arguments], cwd=stage.folder, env=stage.environment | NO_BROKER | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    ) as running:  # fmt: skip
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(ours, 65536):
                shown += chunk
        os.close(ours)
        assert running.wait(60) == 0
    return shown


def test_on_a_terminal_an_import_shows_how_far_it_is(stage: Stage) -> None:
    local = stage.folder / "2026-06-25T142000.csv"
    local.write_bytes(csv([ticket(f"INC{number}", owner="x" * 200) for number in range(30_000)]))
    shown = on_a_terminal(stage, "import-csv", "--feed", "inc", str(local), "--apply")
    assert len(set(re.findall(rb"importing.*?([\d.]+)/[\d.]+ MB", shown))) > 2, shown[-2000:]


def test_on_a_terminal_a_drain_shows_how_far_it_is(stage: Stage) -> None:
    keys = [key_at(number) for number in range(12)]
    stage.bucket.put_all({key: csv([ticket(f"INC {key}")]) for key in keys})
    shown = on_a_terminal(stage, "drain", "--apply")
    progress = re.findall(rb"draining.*?(\d+)/12", shown)
    assert progress, shown[-2000:]
    assert list(map(int, progress)) == sorted(map(int, progress))
    assert int(progress[-1]) == 12
    assert len(set(progress)) > 2, "it moves"


def test_local_files_that_cannot_be_imported_are_one_line_and_leave_nothing(stage: Stage) -> None:
    broken = stage.folder / "2026-06-25T142000.csv"
    broken.write_bytes(b"ticket_id,M\xfc\nINC1,x\n")
    ended = stage.run("import-csv", "--feed", "inc", str(broken), "--apply")
    assert (ended.returncode, "FAILS, not UTF-8" in ended.stdout) == (1, True)
    assert stage.query("SELECT 1 FROM ingest.ledger") == []
    odd = os.fsencode(stage.folder) + b"/\xff\xfe.csv"
    Path(os.fsdecode(odd)).write_bytes(b"ticket_id\nA\n")
    for name, words in ((os.fsdecode(odd), "is not UTF-8"), (str(stage.folder), "Is a directory")):
        ended = stage.run("import-csv", "--feed", "inc", name, "--apply")
        assert ended.returncode == 2
        assert words in ended.stderr
        assert "None" not in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_what_another_feed_left_half_way_is_left_to_who_serves_it(stage: Stage) -> None:
    key = "automations/crq/changes/2026-06-01T060000.csv"
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="after commit, before archive", FLEETTICKETS_FEEDS="crq")
    stage.bucket.put(key, csv([ticket("THEIRS")]))
    stage.announce(key)
    doomed.wait()
    assert stage.run("drain", "--apply", FLEETTICKETS_FEEDS="inc", **NO_BROKER).returncode == 0
    assert stage.bucket.keys() == [key]
    assert stage.run("drain", "--apply", FLEETTICKETS_FEEDS="crq", **NO_BROKER).returncode == 0
    assert stage.bucket.keys() == [key.replace("changes", "processed")]


def test_a_dry_run_whose_reader_does_not_read_on_holds_up_nobody(stage: Stage) -> None:
    """As `drain | less`: what it tells is told when its transaction is over."""
    waiting = [key_at(minute) for minute in range(60)]
    stage.bucket.put_all({key: csv([ticket(f"INC{number}")]) for number, key in enumerate(waiting)})
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    trying = subprocess.Popen([PROGRAM, "drain"], env=stage.environment, cwd=stage.folder, stdout=writer)
    os.close(writer)
    try:
        full = struct.pack("i", 0)

        def is_full() -> bool:
            (there,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, full))
            return bool(there >= 3000)

        wait_until(is_full, "it waits for its reader")
        consumer = stage.start("consume")
        stage.announce(waiting[0])
        stage.wait_for("done", waiting[0])
        consumer.stop()
        assert trying.poll() is None
    finally:
        os.close(reader)
        trying.wait(60)


@pytest.mark.promise("No silent decision")
def test_in_a_bucket_with_years_in_it_what_is_older_is_ignored_by_everybody_until_it_is_taken_up(stage: Stage) -> None:
    old, older, young = (
        f"{CHANGES}{name}.csv" for name in ("2024-06-01T060000", "2023-12-31T235959", "2026-06-01T060000")
    )
    stage.bucket.put_all({key: csv([ticket(key[-21:-4])]) for key in (old, older, young)})
    tried = stage.ask("drain", "--since", "2026-01-01")
    assert ([file["key"] for file in tried["files"]], tried["older"], tried["applied"]) == ([young], 2, False)
    assert stage.one("SELECT count(*) FROM ingest.ledger") == 0
    shown = stage.run("drain", "--since", "2026-01-01", "--apply")
    assert (shown.returncode, "2 older files are left alone" in shown.stdout) == (0, True)
    assert stage.waiting() == sorted([old, older])
    assert stage.ask("poll") == {"waiting": 0, "set_aside": 2, "queued": 0, "published": 0}
    stage.announce(old)
    consumer = stage.start("consume")
    wait_until(lambda: stage.ledger(old)["duplicates"] == 1, "a consumer has looked at it")
    consumer.stop()
    assert stage.ledger(old)["decision"] == "ignored"
    assert stage.ask("status")["database"]["backlog"]["set_aside"] == {"ignored": 2}
    verified = stage.json(stage.run("verify", "--old", "0", "--json"))
    assert set(verified["discrepancies"]) == {"request_unsent"}, "of the young one, which no consumer has relayed for"
    # In EAT: the year of 2024 begins three hours before that of UTC.
    assert stage.ask("drain", "--since", "2024-01-01", "--apply")["older"] == 1
    assert [stage.ledger(key)["decision"] for key in (old, older)] == ["late", "ignored"]
    assert stage.ask("drain", "--since", "2023-12-31T23:59:59", "--apply")["older"] == 0
    assert stage.waiting() == []
    assert stage.one("SELECT count(*) FROM tickets.inc") == 3
    ended = stage.run("drain", "--since", "2026-01-01", "--from-archive")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)

"""`status` begins with a verdict that is so, in bounded time, whoever stands still."""

import contextlib
import json
import signal
from typing import Any

import psycopg
import requests

from tests.doubles.receiver import Receiver, free_port
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.silence import silent_server
from tests.stage.stage import Stage, wait_until

SOON = {"FLEETTICKETS_STUCK_SECONDS": "1"}
BEATS = {"FLEETTICKETS_HEARTBEAT_SECONDS": "0.2"}
DENY = """
CREATE FUNCTION public.deny() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'a migration went wrong'; END $$;
CREATE TRIGGER deny BEFORE INSERT OR UPDATE ON tickets.inc FOR EACH STATEMENT EXECUTE FUNCTION public.deny()"""


def put(stage: Stage, number: int) -> str:
    key = key_at(number)
    stage.bucket.put(key, csv([ticket(f"INC{number}")]))
    stage.announce(key)
    return key


def verdict(stage: Stage, **environment: str) -> dict[str, Any]:
    ended = stage.run("status", "--json", **environment)
    found: dict[str, Any] = stage.json(ended)["verdict"]
    assert ended.returncode == found["exit"], ended.stderr
    return found


def wait_for_verdict(stage: Stage, word: str, *told: str, **environment: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_told() -> bool:
        found.update(verdict(stage, **environment))
        return found["word"] == word and all(text in found["line"] for text in told)

    wait_until(is_told, f"{word}: {told}")
    return found


def processes(stage: Stage) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in stage.json(stage.run("status", "--json"))["processes"]}


def test_what_flows_is_said_to_flow_and_each_process_to_live(stage: Stage) -> None:
    stage.environment |= BEATS
    workers = [stage.start("consume"), stage.start("poll", "--every", "0.5")]
    receiver = Receiver(stage)
    receiver.wait()
    port = free_port()
    workers += [receiver.process, stage.start("serve", "--port", str(port))]
    key = put(stage, 0)
    stage.wait_for("done", key)
    stage.wait_for_history()

    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10).ok
        return False

    wait_until(answers, "the API is up")
    wait_until(lambda: {"consumer", "poller", "webhook", "serve"} == set(processes(stage)), "all have given a sign")
    wait_until(lambda: processes(stage)["poller"]["settled_seconds"] is not None, "a poll was told of")
    wait_until(lambda: processes(stage)["consumer"]["settled_seconds"] is not None, "a file was told of")
    found = processes(stage)["consumer"]
    assert (found["pid"], found["feeds"], found["in_hand"]) == (workers[0].pid, ["crq", "inc"], None)
    shown = stage.run("status")
    lines = shown.stdout.splitlines()
    assert (shown.returncode, lines[0].partition(",")[0]) == (0, "FLOWING: nothing waits")
    assert lines[1] == "nothing to do"
    assert "backlog" in lines[3]
    at_work = [line for line in lines if line.startswith(("consumer ", "poller ", "webhook ", "serve "))]
    assert len(at_work) == len(workers)
    assert f"(pid {workers[0].pid}), version {found['version']}, of crq and inc, begun " in at_work[0]
    assert "done with something" in at_work[0]
    for worker in workers:
        worker.stop()
    assert stage.one("SELECT count(*) FROM ingest.heartbeats") == 0


def test_files_that_wait_for_a_consumer_are_stuck(stage: Stage) -> None:
    assert verdict(stage)["word"] == "FLOWING"
    key = put(stage, 0)
    found = wait_for_verdict(stage, "STUCK", "no consumer", "1 file waits", **SOON)
    assert "fleettickets consume" in found["advice"]
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    assert wait_for_verdict(stage, "FLOWING", **SOON)["exit"] == 0
    consumer.stop()


def test_a_consumer_that_stands_still_is_named(stage: Stage) -> None:
    consumer = stage.start("consume", **BEATS)
    stage.wait_for("done", put(stage, 0))
    wait_until(lambda: "consumer" in processes(stage), "it has given a sign")
    consumer.signal(signal.SIGSTOP)
    try:
        waiting = put(stage, 1)
        wait_for_verdict(stage, "STUCK", f"pid {consumer.pid}", "has given no sign", FLEETTICKETS_MISSING_SECONDS="2")
    finally:
        consumer.signal(signal.SIGCONT)
    stage.wait_for("done", waiting)
    wait_for_verdict(stage, "FLOWING")
    consumer.stop()


def test_behind_a_locked_table_it_names_who_has_the_lock(stage: Stage) -> None:
    consumer = stage.start("consume", **BEATS)
    stage.wait_for("done", put(stage, 0))
    stage.environment["FLEETTICKETS_STATUS_SECONDS"] = "3"
    with psycopg.connect(stage.database, application_name="an admin's") as admin, admin.transaction():
        admin.execute("LOCK TABLE tickets.inc IN ACCESS EXCLUSIVE MODE")
        holder = f"pid {admin.info.backend_pid}"
        found = verdict(stage)
        assert (found["word"], found["exit"]) == ("COULD NOT LOOK", 1)
        assert holder in found["line"]
        waiting = put(stage, 1)
        found = wait_for_verdict(stage, "STUCK", holder, f"pid {consumer.pid}", **SOON)
        assert found["exit"] == 3
    stage.wait_for("done", waiting)
    consumer.stop()


def test_everything_that_fails_pauses(stage: Stage) -> None:
    consumer = stage.start("consume", FLEETTICKETS_MAX_FAILURES_IN_A_ROW="1", **BEATS)
    stage.connection.execute(DENY.encode())
    key = put(stage, 0)
    found = wait_for_verdict(stage, "PAUSED", "everything fails", "a migration went wrong", f"pid {consumer.pid}")
    assert found["exit"] == 3
    stage.connection.execute("DROP TRIGGER deny ON tickets.inc")
    stage.wait_for("done", key)
    wait_for_verdict(stage, "FLOWING")
    consumer.stop()


def test_the_row_of_a_killed_process_ages_and_goes(stage: Stage) -> None:
    consumer = stage.start("consume", **BEATS)
    wait_until(lambda: "consumer" in processes(stage), "it has given a sign")
    consumer.kill()
    assert processes(stage)["consumer"]["pid"] == consumer.pid
    found = wait_for_verdict(stage, "FLOWING", FLEETTICKETS_MISSING_SECONDS="1")
    wait_until(
        lambda: f"pid {consumer.pid}" in verdict(stage, FLEETTICKETS_MISSING_SECONDS="1")["advice"], "it is missed"
    )
    assert found["exit"] == 0
    stage.connection.execute("UPDATE ingest.heartbeats SET beat_at = beat_at - interval '25 hours'")
    poller = stage.start("poll", "--every", "0.5", **BEATS)
    wait_until(lambda: set(processes(stage)) == {"poller"}, "the living one has cleared up")
    poller.stop()


def test_what_takes_connections_and_never_answers_is_not_waited_for(stage: Stage) -> None:
    with silent_server() as port:
        silent = {
            "broker": {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{port}/%2f"},
            "bucket": {"RUSTFS_ENDPOINT": f"http://127.0.0.1:{port}"},
            "database": {"DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port}/postgres"},
        }
        for part, environment in silent.items():
            ended = stage.run("status", "--json", FLEETTICKETS_STATUS_SECONDS="3", **environment)
            found = stage.json(ended)
            assert (ended.returncode, found["verdict"]["word"]) == (1, "COULD NOT LOOK"), ended.stderr
            assert set(found["faults"]) == {part}
            assert part in found["verdict"]["line"]
            assert f"127.0.0.1:{port}" in found["faults"][part]
            assert {"broker", "bucket", "database"} - {part} <= set(found)


def test_a_store_that_is_away_is_told_without_what_it_was_asked(stage: Stage) -> None:
    port = free_port()
    found = verdict(stage, RUSTFS_ENDPOINT=f"http://127.0.0.1:{port}")
    assert (found["word"], found["exit"]) == ("COULD NOT LOOK", 1)
    assert f"(127.0.0.1:{port})" in found["line"]
    assert "list-type" not in found["line"]


def test_without_the_ledger_nobody_knows_what_waits(stage: Stage) -> None:
    put(stage, 0)
    ended = stage.run("status", DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/away")
    assert ended.returncode == 1
    assert "unknown; 1 files lie in" in ended.stdout
    assert "files wait" not in ended.stdout


def test_it_is_watched_until_somebody_has_seen_enough(stage: Stage) -> None:
    watching = stage.start("status", "--watch", "--json")
    wait_until(lambda: len(watching.output().splitlines()) >= 2, "it is shown anew")
    watching.signal(signal.SIGINT)
    assert watching.wait() == 0
    assert {json.loads(line)["verdict"]["word"] for line in watching.output().splitlines()} == {"FLOWING"}

"""Trouble is told once per cause, and once when it is over: by one process, from what is on record, whoever dies."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.alerted import SECRET, Alerted
from tests.doubles.proxy import Proxy
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until

SOON = {"FLEETTICKETS_STUCK_SECONDS": "1", "FLEETTICKETS_HEARTBEAT_SECONDS": "0.2", "FLEETTICKETS_STATUS_SECONDS": "5"}
"""What is so for half a second is told, or for five where others take five minutes; and is over after five."""
DENY = """
CREATE FUNCTION public.deny() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'a migration went wrong'; END $$;
CREATE TRIGGER deny BEFORE INSERT OR UPDATE ON tickets.inc FOR EACH STATEMENT EXECUTE FUNCTION public.deny()"""

APPLIED = """
INSERT INTO ingest.ledger (bucket, feed, prefix, key, etag, object_time, sha256, epoch, first_seen_by, first_seen_at,
                           decision, state, applied_at)
SELECT 'bucket', 'inc', 'automations/inc/', 'key-' || gen_random_uuid(), 'etag', at, 'sha256', 1, %s, at, 'new', 'done',
       at
FROM (SELECT now() - %s::interval - n * interval '20 minutes' AS at FROM generate_series(0, %s - 1) AS n) AS sent
"""
AHEAD = """
INSERT INTO public.fleettickets_migrations (name, sha256, how)
SELECT '99_newer', sha256, how FROM public.fleettickets_migrations LIMIT 1
"""


@pytest.fixture
def alerted(stage: Stage) -> Iterator[Alerted]:
    with Alerted() as receiver:
        stage.environment |= {**SOON, "FLEETTICKETS_ALERT_URL": receiver.url}
        yield receiver


def put(stage: Stage, number: int, *, announced: bool = True) -> str:
    key = key_at(number)
    stage.bucket.put(key, csv([ticket(f"INC{number}")]))
    if announced:
        stage.announce(key)
    return key


def wait_for(alerted: Alerted, *heads: str) -> None:
    """Until these were taken, in this order, and no others."""

    def are_told() -> bool:
        found = alerted.heads
        return len(found) == len(heads) and all(told.startswith(head) for told, head in zip(found, heads, strict=True))

    wait_until(are_told, f"{heads} are told; it was {alerted.heads}")


def require_no_more(alerted: Alerted, seconds: float = 3) -> None:
    known = len(alerted.posted)
    time.sleep(seconds)
    assert [one.text for one in alerted.posted[known:]] == []


def poller(stage: Stage, **environment: str) -> Process:
    return stage.start("poll", "--every", "0.5", **environment)


def watched_by(stage: Stage) -> str:
    found = stage.query("SELECT holder FROM ingest.leases WHERE name LIKE 'alerts %%' AND until > now()")
    return found[0]["holder"] if found else ""


def test_a_poller_tells_that_no_consumer_is_there_and_that_one_is_again(stage: Stage, alerted: Alerted) -> None:
    watching = poller(stage)
    key = put(stage, 0)
    wait_for(alerted, "STUCK: no consumer; 1 file waits")
    told = alerted.taken[0].text.splitlines()
    assert told[1] == "what to do: start one: fleettickets consume"
    assert told[2].startswith("since ")
    assert " EAT (" in told[2]
    assert told[2].endswith(" UTC)")
    assert f"bucket {stage.bucket.name} at " in told[3]
    assert "feeds crq, inc; seen by " in told[3]
    assert f"pid {watching.pid}; id " in told[3]
    require_no_more(alerted)  # it goes on, and is known
    assert "alerts" in stage.run("status").stdout
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    wait_for(alerted, "STUCK", "over: STUCK: no consumer")
    assert "now: FLOWING" in alerted.taken[1].text
    require_no_more(alerted)
    row = stage.query("SELECT * FROM ingest.alerts")[0]
    assert row["told_at"]
    assert row["over_told_at"]
    consumer.stop()
    watching.stop()
    assert watched_by(stage) == ""
    assert SECRET not in watching.output()


def test_everything_that_fails_rings_once_and_its_files_are_no_dead_letters(stage: Stage, alerted: Alerted) -> None:
    consumer = stage.start("consume", FLEETTICKETS_MAX_FAILURES_IN_A_ROW="1")
    stage.connection.execute(DENY.encode())
    key = put(stage, 0)
    wait_for(alerted, "PAUSED: everything fails")
    stage.connection.execute("DROP TRIGGER deny ON tickets.inc")
    stage.wait_for("done", key)
    wait_for(alerted, "PAUSED", "over: PAUSED")
    consumer.stop()


def applied(stage: Stage, by: str, ago: str, files: int) -> None:
    stage.connection.execute(APPLIED.encode(), (by, ago, files))


def test_an_exporter_that_is_silent(stage: Stage, alerted: Alerted) -> None:
    applied(stage, "notification", "20 hours", 100)
    watching = poller(stage)
    wait_for(alerted, "SILENT: the exporter of inc has sent nothing for 20 h, usually every 20 min")
    applied(stage, "notification", "0 s", 1)
    wait_for(alerted, "SILENT", "over: SILENT")
    watching.stop()


def test_notifications_that_have_stopped(stage: Stage, alerted: Alerted) -> None:
    applied(stage, "notification", "3 hours", 1)
    applied(stage, "poller", "1 minute", 3)
    watching = poller(stage)
    wait_for(alerted, "NOT ANNOUNCED: no notification for 3 h, the poller brings files")
    applied(stage, "notification", "0 s", 1)
    wait_for(alerted, "NOT ANNOUNCED", "over: NOT ANNOUNCED")
    watching.stop()


def test_a_schema_that_stays_ahead(stage: Stage, alerted: Alerted) -> None:
    watching = poller(stage)
    wait_until(lambda: watched_by(stage), "it watches")
    stage.connection.execute(AHEAD)
    wait_for(alerted, "WRONG SCHEMA: the database is ahead of this program")
    stage.connection.execute("DELETE FROM public.fleettickets_migrations WHERE name = '99_newer'")
    wait_for(alerted, "WRONG SCHEMA", "over: WRONG SCHEMA")
    watching.stop()


def test_a_broker_that_stays_away_and_none_that_is_back_soon(stage: Stage, alerted: Alerted) -> None:
    with Proxy(stage.environment["RABBITMQ_URL"]) as proxy:
        watching = poller(stage, RABBITMQ_URL=proxy.url)
        wait_until(lambda: watched_by(stage), "it watches")
        proxy.refuse()
        time.sleep(1)
        proxy.restore()
        require_no_more(alerted, 6)
        proxy.refuse()
        wait_for(alerted, "COULD NOT LOOK: broker: rabbitmq is not available")
        proxy.restore()
        wait_for(alerted, "COULD NOT LOOK", "over: COULD NOT LOOK")
        watching.stop()


def test_each_new_group_of_dead_letters_rings_once_and_clears_when_mended(stage: Stage, alerted: Alerted) -> None:
    consumer = stage.start("consume")
    broken = [key_at(3), key_at(4)]
    for key in broken:
        stage.bucket.put(key, b"nothing that is a ticket\n")
        stage.announce(key)
    stage.wait_for("failed", *broken)
    wait_for(alerted, "DEAD LETTERS: ")
    told = alerted.taken[0].text
    assert "of inc failed: " in told
    assert "dead-letters replay --group " in told
    other = key_at(5)
    stage.bucket.put(other, b"ticket_id,M\xfc\nINC1,x\n")
    stage.announce(other)
    stage.wait_for("failed", other)
    wait_for(alerted, "DEAD LETTERS: ", "DEAD LETTERS: 1 file of inc failed: ")
    require_no_more(alerted)
    assert stage.run("dead-letters", "discard", "--all", "--reason", "seen to").returncode == 0
    wait_for(alerted, "DEAD", "DEAD", "over: DEAD", "over: DEAD")
    consumer.stop()


def test_a_letter_that_the_ledger_has_no_file_of_is_told_too(stage: Stage, alerted: Alerted) -> None:
    consumer = stage.start("consume")
    stage.broker.publish([b"no event"])
    wait_for(alerted, "DEAD LETTERS: 1 dead letter of files that the ledger has no file of")
    consumer.stop()


def test_what_comes_and_goes_rings_once(stage: Stage, alerted: Alerted) -> None:
    watching = poller(stage)
    put(stage, 0)
    wait_for(alerted, "STUCK")
    for number in range(1, 4):
        consumer = stage.start("consume")
        stage.wait_for("done", key_at(number - 1))
        consumer.stop()
        put(stage, number)
        wait_until(lambda: stage.json(stage.run("status", "--json"))["verdict"]["word"] == "STUCK", "it is so again")
    assert len(alerted.taken) == 1
    watching.stop()


def test_a_quota_that_is_spent(stage: Stage, alerted: Alerted) -> None:
    watching = poller(stage)
    spent = "INSERT INTO ingest.geocoder_pause (account, until, reason) VALUES ('x', now() + interval '2 days', 'Day')"
    stage.connection.execute(spent)
    wait_for(alerted, "QUOTA SPENT")
    stage.connection.execute("DELETE FROM ingest.geocoder_pause")
    wait_for(alerted, "QUOTA SPENT", "over: QUOTA SPENT")
    watching.stop()


@pytest.mark.parametrize(("point", "times"), [("alert noted, not sent", 1), ("alert sent, not marked", 2)])
def test_whoever_is_killed_between_two_steps_another_one_tells_it(
    stage: Stage, alerted: Alerted, point: str, times: int
) -> None:
    key = key_at(3)
    stage.bucket.put(key, b"nothing that is a ticket\n")
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point)
    stage.announce(key)
    assert doomed.wait() == -signal.SIGKILL, doomed.output()
    assert len(alerted.posted) == times - 1
    consumer = stage.start("consume")
    stage.wait_for("failed", key)
    # Its turn ends by itself: half a minute, with these settings.
    wait_until(lambda: len(alerted.taken) == times, "it is told")
    assert len({one.message_id for one in alerted.taken}) == 1
    require_no_more(alerted)
    assert stage.one("SELECT count(*) FROM ingest.alerts WHERE told_at IS NOT NULL") == 1
    consumer.stop()


def test_a_receiver_that_is_away_is_told_once_it_is_back(stage: Stage, alerted: Alerted, tmp_path: Path) -> None:
    alerted.answers = 503
    watching = poller(stage)
    key = put(stage, 0)
    wait_until(lambda: "alert not told" in watching.output(), "the log says so")
    shown = stage.run("status").stdout
    assert "1 open, 1 not told for " in shown
    textfile = tmp_path / "state.prom"
    stage.run("status", "--textfile", str(textfile))
    assert "fleettickets_alerts_untold 1.0" in textfile.read_text()
    consumer = stage.start("consume")
    stage.wait_for("done", key)
    untold = "SELECT count(*) FROM ingest.alerts WHERE told_at IS NULL AND over_at IS NOT NULL"
    wait_until(lambda: stage.one(untold) == 1, "it is over before anybody was told")
    assert alerted.taken == []
    alerted.answers = 204
    wait_for(alerted, "STUCK", "over: STUCK")
    # Said once the database has that it was taken, which is after it was.
    wait_until(lambda: "alerts are told again" in watching.output(), "the log says that as well")
    assert watching.output().count("alert not told") == 1
    assert SECRET not in watching.output() + shown
    consumer.stop()
    watching.stop()


def test_a_receiver_that_refuses_is_no_other_alerts_trouble_and_a_redirect_is_refused(
    stage: Stage, alerted: Alerted
) -> None:
    alerted.answers = 302
    watching = poller(stage)
    put(stage, 0)
    wait_until(lambda: "alert not told" in watching.output(), "the log says so")
    assert "HTTP 302" in watching.output()
    assert all(one.path.endswith(SECRET) for one in alerted.posted)
    watching.stop()


def test_of_several_one_watches_and_when_it_stands_still_another_goes_on(stage: Stage, alerted: Alerted) -> None:
    first = poller(stage)
    wait_until(lambda: f"process {first.pid} " in watched_by(stage), "it watches")
    others = [stage.start("consume"), stage.start("consume", "--queue", "history")]
    wait_until(lambda: all("consuming" in one.output() for one in others), "they work")
    key = key_at(3)
    stage.bucket.put(key, b"nothing that is a ticket\n")
    stage.announce(key)
    wait_for(alerted, "DEAD LETTERS")
    wait_until(lambda: stage.one("SELECT told_at FROM ingest.alerts"), "it is marked")
    first.signal(signal.SIGSTOP)
    wait_until(lambda: any(f"process {one.pid} " in watched_by(stage) for one in others), "one of the others watches")
    stage.run("dead-letters", "discard", "--all", "--reason", "seen to")
    wait_for(alerted, "DEAD LETTERS", "over: DEAD LETTERS")
    first.signal(signal.SIGCONT)  # it finds that another one has its turn
    require_no_more(alerted)
    for one in [first, *others]:
        one.stop()


def test_from_cron_where_nothing_runs(stage: Stage, alerted: Alerted) -> None:
    put(stage, 0)

    def look() -> int:
        return stage.run("status", "--alert").returncode

    wait_until(lambda: (look(), len(alerted.taken)) == (3, 1), "the second look that finds it so tells it")
    assert alerted.heads[0].startswith("STUCK: no consumer")
    assert look() == 3
    assert len(alerted.taken) == 1
    alerted.answers = 500
    stage.connection.execute("UPDATE ingest.alerts SET told_at = NULL")
    ended = stage.run("status", "--alert")
    assert (ended.returncode, "HTTP 500" in ended.stderr, SECRET in ended.stderr) == (3, True, False)
    alerted.answers = 200
    stage.broker.purge()
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key_at(0))
    wait_until(lambda: look() == 0 and len(alerted.taken) == 3, "and that it is over")
    assert alerted.taken[0].message_id == alerted.taken[1].message_id


def test_cron_leaves_it_to_who_watches(stage: Stage, alerted: Alerted) -> None:
    watching = poller(stage)
    wait_until(lambda: watched_by(stage), "it watches")
    put(stage, 0)
    for _ in range(3):
        stage.run("status", "--alert")
    wait_for(alerted, "STUCK")
    assert f"pid {watching.pid}" in alerted.taken[0].text
    watching.stop()


def test_without_an_address_nothing_watches_and_a_wrong_one_is_refused(stage: Stage) -> None:
    ended = stage.run("status", "--alert")
    assert (ended.returncode, "FLEETTICKETS_ALERT_URL is not set" in ended.stderr) == (2, True)
    for command in (["consume"], ["poll", "--every", "1"], ["status", "--alert"]):
        ended = stage.run(*command, FLEETTICKETS_ALERT_URL=f"slack/{SECRET}")
        assert (ended.returncode, "FLEETTICKETS_ALERT_URL is wrong" in ended.stderr) == (2, True)
        assert SECRET not in ended.stdout + ended.stderr
    shown = stage.run("doctor", FLEETTICKETS_ALERT_URL=f"ftp://{SECRET}/", FLEETTICKETS_ALERT_FORMAT="xml").stdout
    assert "FLEETTICKETS_ALERT_URL" in shown
    assert "FLEETTICKETS_ALERT_FORMAT" in shown
    assert SECRET not in shown


def test_doctor_sends_a_test_and_shows_the_host_alone(stage: Stage, alerted: Alerted) -> None:
    stage.bucket.notify(stage.broker)
    consumer = stage.start("consume")
    ended = stage.run("doctor", "--end-to-end", "--feed", "inc")
    assert "ok     alerts" in ended.stdout
    wait_for(alerted, "TEST: sent by fleettickets doctor")
    alerted.answers = 404
    ended = stage.run("doctor", "--end-to-end", "--feed", "inc")
    assert (ended.returncode, "HTTP 404" in ended.stdout) == (1, True)
    assert SECRET not in ended.stdout + ended.stderr
    consumer.stop()


def test_a_program_gets_a_cloudevent(stage: Stage, alerted: Alerted) -> None:
    key = key_at(3)
    stage.bucket.put(key, b"nothing that is a ticket\n")
    consumer = stage.start("consume", FLEETTICKETS_ALERT_FORMAT="cloudevents")
    stage.announce(key)
    wait_until(lambda: alerted.taken, "it is told")
    (posted,) = alerted.taken
    event = posted.body
    assert posted.content_type == "application/cloudevents+json; charset=utf-8"
    assert (event["specversion"], event["type"]) == ("1.0", "fleettickets.alert.began")
    assert event["source"] == f"/fleettickets/{stage.bucket.name}"
    assert event["subject"].startswith("letters ")
    assert event["data"]["line"].startswith("DEAD LETTERS: 1 file of inc failed")
    consumer.stop()


def test_a_database_that_is_away_is_told_from_memory_once(stage: Stage, alerted: Alerted) -> None:
    with Proxy(stage.database) as proxy:
        stage.environment["DATABASE_URL"] = proxy.url
        both = [poller(stage), stage.start("consume")]
        wait_until(lambda: watched_by(stage) and "consuming" in both[1].output(), "both run, and one watches")
        time.sleep(2)
        proxy.refuse()
        wait_for(alerted, "COULD NOT LOOK: ")
        require_no_more(alerted, 8)
        # Long enough for its turn to be over, and for another one to be faster.
        stage.connection.execute(
            "UPDATE ingest.leases SET holder = 'another', until = now() + interval '1 hour' WHERE name LIKE 'alerts %'"
        )
        proxy.restore()
        wait_for(alerted, "COULD NOT LOOK", "over: COULD NOT LOOK")
        assert len({one.message_id.rpartition("-")[0] for one in alerted.taken}) == 1
        require_no_more(alerted)
        for one in both:
            one.stop()

"""run_ingest.sh, as cron runs it: silent while all is well, else it tells and ends as the command did; never two."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage, wait_until
from tests.unit.test_pages import wrong_with

CRON = Path(__file__).parents[2] / "docs" / "cron"
SCRIPT = CRON / "run_ingest.sh"
SLOW = "#!/bin/sh\necho $$ >>began\nexec sleep 60\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def surroundings(stage: Stage, home: Path, **others: str) -> dict[str, str]:
    places = {
        "INGEST_HOME": str(home), "INGEST_LOCK": str(home / "lock"), "INGEST_LOG": str(home / "log"),
        "INGEST_PROGRAM": PROGRAM,
    }  # fmt: skip
    return {"PATH": os.environ["PATH"], **stage.environment, **places, **others}


def run(stage: Stage, home: Path, command: str, **others: str) -> subprocess.CompletedProcess[str]:
    environment = surroundings(stage, home, **others)
    return subprocess.run([SCRIPT, command], env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_poll_says_nothing_while_all_is_well(stage: Stage, home: Path) -> None:
    assert stage.run("poll").returncode == 0, "from here on the virtual host is this bucket's"
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    ran = run(stage, home, "poll")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert stage.broker.ready("fleettickets.files") == 1
    assert (home / "log").read_text().endswith(" poll --quiet: done, exit status 0\n")


def test_a_drain_applies_and_says_nothing(stage: Stage, home: Path) -> None:
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    ran = run(stage, home, "drain", RABBITMQ_URL="")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert stage.ledger(key_at(0))["state"] == "archived"
    assert run(stage, home, "drain", RABBITMQ_URL="").stdout == ""
    assert (home / "log").read_text().endswith(" drain --apply --quiet: done, exit status 0\n")


def test_a_drain_captures_the_history_as_a_consumer_does_also_behind_a_file_that_fails(
    stage: Stage, home: Path
) -> None:
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    stage.bucket.put(key_at(1), b"nothing that is a ticket\n")
    assert run(stage, home, "drain", RABBITMQ_URL="").returncode == 1
    assert stage.one("SELECT sum(open_total) FROM tickets.inc_daily_snapshot") == 1
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE kind = 'history' AND handled_at IS NULL") == 0


def test_a_host_without_a_broker_is_told_that_all_is_well_by_what_looks(stage: Stage, home: Path) -> None:
    """Nothing is missed that only a consumer could do, also long after."""
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    without = {"RABBITMQ_URL": ""}
    assert stage.run("drain", "--apply", **without).returncode == 0
    lacking = stage.run("verify", "--without-broker", "--old", "0", **without)
    assert (lacking.returncode, "capture-history" in lacking.stdout) == (1, True), "the history is for it to capture"
    assert run(stage, home, "drain", **without).stdout == ""
    for command in (["verify", "--old", "0"], ["status"], ["doctor"]):
        well = stage.run(*command, "--without-broker", **without)
        assert (well.returncode, well.stderr) == (0, ""), well.stdout
        assert "no consumer" not in well.stdout
        assert "RABBITMQ" not in well.stdout.partition("\n\n")[2]
    stage.query("UPDATE ingest.outbox SET handled_at = now() RETURNING 1")
    assert stage.run("verify", "--without-broker", "--old", "0", **without).returncode == 0
    assert stage.run("verify", "--old", "0").returncode == 1, "where there is a broker, nobody finished it"
    stage.bucket.put(key_at(1), csv([ticket("INC2")]))
    time.sleep(1)
    impatient = {"FLEETTICKETS_LATE_SECONDS": "1", "FLEETTICKETS_STUCK_SECONDS": "1"}
    late = stage.run("status", "--without-broker", "--quiet", **impatient, **without)
    assert (late.returncode, late.stdout.splitlines()[1][:13]) == (3, "drain --apply"), late.stdout
    told = stage.run("doctor", "--without-broker", "--end-to-end", **without)
    assert (told.returncode, "who has a broker" in told.stderr) == (2, True)


def test_a_file_that_fails_is_told_and_the_others_are_not(stage: Stage, home: Path) -> None:
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    stage.bucket.put(key_at(1), b"nothing that is a ticket\n")
    ran = run(stage, home, "drain")
    assert ran.returncode == 1
    assert f"{key_at(1)}: FAILS" in ran.stdout
    assert key_at(0) not in ran.stdout
    assert "ended with exit status 1" in ran.stdout
    assert stage.ledger(key_at(0))["state"] == "archived"


def test_what_is_set_wrong_is_told_with_its_status(stage: Stage, home: Path) -> None:
    ran = run(stage, home, "poll", RUSTFS_ENDPOINT="nowhere")
    assert ran.returncode == 2
    assert "RUSTFS_ENDPOINT is wrong" in ran.stdout
    asked_wrong = run(stage, home, "consume")
    assert (asked_wrong.returncode, asked_wrong.stderr) == (2, "usage: run_ingest.sh poll|drain\n")


def test_two_never_run_at_once_even_when_the_first_one_is_killed(stage: Stage, home: Path) -> None:
    slow = home / "slow"
    slow.write_text(SLOW)
    slow.chmod(0o755)
    first = subprocess.Popen([SCRIPT, "poll"], env=surroundings(stage, home, INGEST_PROGRAM=str(slow)))
    wait_until((home / "began").exists, "the first one has begun")
    pid = int((home / "began").read_text())
    try:
        second = run(stage, home, "poll", INGEST_PROGRAM=str(slow))
        assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
        first.kill()
        first.wait(10)
        after = run(stage, home, "poll", INGEST_PROGRAM=str(slow))
        assert (after.returncode, after.stdout) == (0, ""), "its program still has the lock"
        assert (home / "began").read_text() == f"{pid}\n"
        hour_ago = time.time() - 3700
        os.utime(home / "lock", (hour_ago, hour_ago))
        told = run(stage, home, "poll", INGEST_PROGRAM=str(slow))
        assert told.returncode == 1
        assert "still goes on" in told.stdout
    finally:
        first.kill()
        os.kill(pid, signal.SIGKILL)
    free = ["flock", "--nonblock", str(home / "lock"), "true"]
    wait_until(lambda: subprocess.run(free, check=False).returncode == 0, "with the program the lock is gone")
    assert run(stage, home, "poll").returncode == 0


def test_a_quiet_look_is_told_to_nobody_while_all_is_well(stage: Stage) -> None:
    well = stage.run("verify", "--quiet")
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "")
    flows = stage.run("status", "--quiet")
    assert (flows.returncode, flows.stdout, flows.stderr) == (0, "", "")
    stage.bucket.put(key_at(0).replace("changes", "processed"), csv([ticket("INC1")]))
    told = stage.run("verify", "--quiet")
    assert told.returncode == 1
    assert "unrecorded: 1" in told.stdout
    away = stage.run("status", "--quiet", RABBITMQ_URL="amqp://127.0.0.1:1/")
    assert (away.returncode, away.stdout.startswith("COULD NOT LOOK")) == (1, True)


@pytest.mark.parametrize(
    "command",
    [["poll", "--quiet", "--json"], ["poll", "--quiet", "--every", "1"], ["status", "--quiet", "--watch"],
     ["verify", "--quiet", "--json"], ["drain", "--quiet"], ["drain", "--quiet", "--apply", "--json"]],
)  # fmt: skip
def test_quiet_contradicts_what_is_to_be_seen(stage: Stage, command: list[str]) -> None:
    refused = stage.run(*command)
    assert refused.returncode == 2
    assert "--quiet" in refused.stderr


def test_the_script_is_clean() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here: apt-get install shellcheck")
    subprocess.run(["shellcheck", SCRIPT], check=True)


def test_logrotate_takes_what_it_is_given(tmp_path: Path) -> None:
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    if logrotate is None:
        pytest.skip("there is no logrotate here: apt-get install logrotate")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "ingest.log").write_text("a line\n")
    rules = (
        (CRON / "logrotate")
        .read_text()
        .replace("/var/log/fleettickets", str(logs))
        .replace("    su fleettickets fleettickets\n", "")
    )
    written = tmp_path / "rules"
    written.write_text(rules)
    written.chmod(0o600)
    subprocess.run([logrotate, "--force", "--state", tmp_path / "state", written], check=True, capture_output=True)
    assert (logs / "ingest.log.1").read_text() == "a line\n"


def test_a_poll_that_meets_another_one_is_no_trouble(stage: Stage) -> None:
    loop = stage.start("poll", "--every", "0.5")
    wait_until(lambda: '"event": "poll"' in loop.output(), "it polls")
    ran = stage.run("poll", "--quiet")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    loop.stop()


def test_the_crontab_calls_what_there_is() -> None:
    lines = [line.lstrip("#") for line in (CRON / "fleettickets").read_text().splitlines()]
    jobs = [line.split(maxsplit=6)[5:] for line in lines if re.match(r"[*\d]", line)]
    assert len(jobs) == 6
    for user, command in jobs:
        assert user == "fleettickets"
        words = command.rpartition("&&")[2].split()
        if words[0].endswith("run_ingest.sh"):
            assert f"    {words[1]})" in SCRIPT.read_text()
        else:
            assert wrong_with(["fleettickets", *words[1:]]) is None

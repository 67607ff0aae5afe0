"""What runs for long says whether it lives and can work, and counts what it does: over HTTP, and to systemd."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.doubles.proxy import Proxy
from tests.doubles.receiver import free_port
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until


class Watched:
    """A process that shows how it is."""

    def __init__(self, stage: Stage, *command: str, **environment: str) -> None:
        self.port = free_port()
        command = command or ("consume",)
        self.process: Process = stage.start(*command, "--metrics", str(self.port), **environment)
        wait_until(lambda: self.get("livez").startswith("200"), "it lives")

    def get(self, page: str) -> str:
        try:
            answer = requests.get(f"http://127.0.0.1:{self.port}/{page}", timeout=10)
        except requests.ConnectionError:
            return "nothing"
        return f"{answer.status_code} {answer.text.strip()}"

    def sample(self, name: str, **labels: str) -> float | None:
        """Of a metric, by the labels that are given; added up over the others."""
        shown = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        found = [
            sample.value
            for family in text_string_to_metric_families(shown)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


@pytest.fixture
def watched(stage: Stage) -> Iterator[Watched]:
    consumer = Watched(stage)
    yield consumer
    consumer.process.stop()


def test_a_consumer_that_works_is_live_and_ready(stage: Stage, watched: Watched) -> None:
    wait_until(lambda: watched.get("readyz") == "200 ok", "it is connected")
    assert watched.get("livez") == "200 ok"
    assert watched.get("elsewhere") == "404 /metrics, /livez and /readyz"
    asked = stage.run("health", str(watched.port))
    assert (asked.returncode, asked.stdout) == (0, "ok\n")
    # As a container has it whose Docker has a proxy configured.
    proxied = stage.run("health", str(watched.port), http_proxy="http://127.0.0.1:9", no_proxy="")
    assert (proxied.returncode, proxied.stdout) == (0, "ok\n"), proxied.stderr
    nobody = stage.run("health", str(free_port()), "--live")
    assert (nobody.returncode, nobody.stderr.startswith("nothing answers at 127.0.0.1 port")) == (1, True)


def test_it_counts_what_it_does(stage: Stage, watched: Watched) -> None:
    good, bad = key_at(0), key_at(1)
    body = csv([ticket("INC1"), ticket("INC2"), ticket("INC3", mttr="soon")])
    stage.bucket.put(good, body)
    stage.bucket.put(bad, b"nothing that is a ticket\n")
    stage.announce(good, bad)
    stage.wait_for("done", good)
    stage.wait_for("failed", bad)
    wait_until(lambda: watched.sample("fleettickets_lag_seconds_count", feed="inc") == 1, "the file is counted")
    assert {
        outcome: watched.sample("fleettickets_rows_total", feed="inc", outcome=outcome)
        for outcome in ("inserted", "updated", "rejected")
    } == {"inserted": 2, "updated": 0, "rejected": 1}
    assert watched.sample("fleettickets_bytes_total", feed="inc") == len(body)
    assert watched.sample("fleettickets_arrivals_total", seen_by="notification") == 1
    assert watched.sample("fleettickets_failures_total", outcome="dead letter", reason="no ticket_id") == 1
    assert watched.sample("fleettickets_rejects_total", rule="minutes") == 1
    assert watched.sample("fleettickets_rejects_total") == 1
    assert watched.sample("fleettickets_away") == 0
    for stage_of_file in ("opened", "staged", "committed", "archived"):
        assert watched.sample("fleettickets_stage_seconds_count", stage=stage_of_file) == 1
    assert (watched.sample("fleettickets_paused"), watched.sample("fleettickets_in_hand_seconds")) == (0, 0)
    assert watched.sample("fleettickets_build_info") == 1
    (logged,) = (line for line in watched.process.output().splitlines() if good in line and '"event": "file"' in line)
    # Of the time that its event has, which is one of days ago.
    assert watched.sample("fleettickets_lag_seconds_sum") == pytest.approx(json.loads(logged)["lag_s"], abs=0.001)


def test_without_its_broker_it_lives_and_is_not_ready(stage: Stage) -> None:
    with Proxy(stage.environment["RABBITMQ_URL"]) as proxy:
        watched = Watched(stage, RABBITMQ_URL=proxy.url)
        wait_until(lambda: watched.get("readyz") == "200 ok", "it is connected")
        proxy.refuse()
        wait_until(lambda: watched.get("readyz").startswith("503"), "it says that it is not ready")
        assert watched.get("livez") == "200 ok"
        assert watched.sample("fleettickets_broker_connected") == 0
        asked = stage.run("health", str(watched.port))
        assert (asked.returncode, asked.stdout) == (1, "")
        assert "not connected to RabbitMQ" in asked.stderr
        proxy.restore()
        wait_until(lambda: watched.get("readyz") == "200 ok", "it is connected again")
        watched.process.stop()


def test_a_poller_says_how_it_is_and_counts_what_it_brings(stage: Stage) -> None:
    stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    with Proxy(stage.environment["RUSTFS_ENDPOINT"]) as proxy:
        watched = Watched(stage, "poll", "--every", "0.2", RUSTFS_ENDPOINT=proxy.url)
        wait_until(lambda: (watched.sample("fleettickets_polls_total") or 0) > 1, "it polls")
        assert watched.get("readyz") == "200 ok"
        assert watched.sample("fleettickets_poll_published_total") == 1
        assert watched.sample("fleettickets_poll_waiting_files") == 1
        assert watched.sample("fleettickets_polls_created") is not None
        proxy.refuse()
        wait_until(lambda: watched.get("readyz").startswith("503 away: "), "it waits for the store")
        assert (watched.sample("fleettickets_away", service="store"), watched.sample("fleettickets_away")) == (1, 1)
        assert watched.get("livez") == "200 ok"
        proxy.restore()
        wait_until(lambda: watched.get("readyz") == "200 ok", "it polls again")
        wait_until(lambda: watched.sample("fleettickets_away") == 0, "nothing is away")
        watched.process.stop()


@pytest.mark.parametrize("at", ["x", "0", "70000", "127.0.0.1:", "::1"])
def test_where_metrics_cannot_be_shown_is_said_in_one_line(stage: Stage, at: str) -> None:
    refused = stage.run("consume", "--metrics", at)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "metrics" in refused.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["consume"],
        ["poll", "--every", "0.5"],
        ["webhook", "--port", str(free_port())],
        ["serve", "--port", str(free_port())],
        ["sqs"],
    ],
    ids=lambda command: command[0],
)
def test_systemd_is_told_by_the_loop_that_works(stage: Stage, tmp_path: Path, command: list[str]) -> None:
    address = str(tmp_path / "notify")
    away = f"http://127.0.0.1:{free_port()}"
    others = {
        "FLEETTICKETS_WEBHOOK_TOKEN": "of-the-test", "FLEETTICKETS_SQS_QUEUE_URL": f"{away}/1/name",
        "FLEETTICKETS_SQS_ENDPOINT": away, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(30)
        process = stage.start(*command, NOTIFY_SOCKET=address, **others)
        assert listening.recv(100) == b"READY=1\nWATCHDOG=1"
        assert [listening.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.stop()


def test_what_status_found_is_written_as_metrics_too(stage: Stage, tmp_path: Path) -> None:
    written = tmp_path / "fleettickets.prom"

    def found(**environment: str) -> dict[tuple[str, ...], float]:
        asked = stage.run("status", "--json", "--textfile", str(written), **environment)
        state = json.loads(asked.stdout)
        samples = samples_of(written)
        assert samples["verdict", state["verdict"]["word"]] == 1
        return samples

    stage.bucket.put(key_at(0), csv([ticket("INC1", mttr="soon"), ticket("INC2")]))
    waiting = found()
    assert (waiting["backlog_files",], waiting["oldest_waiting_seconds",] < 60) == (1, True)
    assert ("watermark_age_seconds", "inc") not in waiting
    assert stage.run("drain", "--apply").returncode == 0
    never_late = found()["oldest_unsent_request_seconds", "history"]
    assert 0 < never_late < 60
    stage.connection.execute("UPDATE ingest.outbox SET created_at = now() - interval '1 hour'")
    drained = found()
    assert drained["oldest_unsent_request_seconds", "history"] == pytest.approx(3600, abs=60)
    assert (drained["backlog_files",], drained["open_rejects", "inc"]) == (0, 1)
    assert drained["watermark_age_seconds", "inc"] > 0
    assert drained["part_answers", "broker"] == 1
    alone = found(RUSTFS_ENDPOINT=f"http://127.0.0.1:{free_port()}", RABBITMQ_URL=f"amqp://127.0.0.1:{free_port()}")
    assert alone["backlog_files",] != alone["backlog_files",], "not a number: nobody knows"
    assert (alone["part_answers", "bucket"], alone["part_answers", "broker"]) == (0, 0)
    assert alone["part_answers", "database"] == 1
    assert ("queue_ready_messages", "files") not in alone
    refused = stage.run("status", "--textfile", str(tmp_path / "nowhere" / "x.prom"))
    assert (refused.returncode, "No such file or directory" in refused.stderr) == (2, True)


def test_dead_letters_are_told_by_why(stage: Stage, tmp_path: Path) -> None:
    written, keys = tmp_path / "fleettickets.prom", [key_at(0), key_at(1), key_at(2)]
    for key, body in zip(keys, (b"nothing that is a ticket\n", b"neither is this\n", b""), strict=True):
        stage.bucket.put(key, body)
    consumer = stage.start("consume", "--queue", "files")
    stage.announce(*keys)
    stage.wait_for("failed", *keys)
    consumer.stop()
    asked = stage.run("status", "--json", "--textfile", str(written))
    told = json.loads(asked.stdout)["database"]["dead_letters"]
    assert list(told.items()) == [("no ticket_id", 2), ("no header", 1)]
    assert {reason: samples_of(written)["dead_letter_files", reason] for reason in told} == told
    assert "2 no ticket_id, 1 no header: dead-letters list" in stage.run("status").stdout


def test_what_each_process_has_in_hand_and_waits_for_is_told_of_all(stage: Stage, tmp_path: Path) -> None:
    written, key = tmp_path / "fleettickets.prom", key_at(0)

    def found() -> dict[str, float]:
        stage.run("status", "--json", "--textfile", str(written))
        # The labels of each, sorted by their names: by, host, kind, pid.
        samples = samples_of(written).items()
        return {name[0] if len(name) == 4 else f"{name[0]} {name[1]}": value for name, value in samples
                if name[0].startswith("process_")}  # fmt: skip

    with Proxy(stage.environment["RUSTFS_ENDPOINT"]) as proxy:
        consumer = stage.start("consume", RUSTFS_ENDPOINT=proxy.url, FLEETTICKETS_HEARTBEAT_SECONDS="1")
        wait_until(lambda: found() == {"process_in_hand_seconds": 0}, "it has nothing in hand")
        proxy.refuse()
        stage.bucket.put(key, csv([ticket("INC1")]))
        stage.announce(key)
        wait_until(lambda: found().get("process_paused_seconds away", 0) > 0, "it waits for the store")
        assert found()["process_in_hand_seconds"] > 0
        proxy.restore()
        stage.wait_for("done", key)
        wait_until(lambda: found() == {"process_in_hand_seconds": 0}, "it is through, and waits no more")
        consumer.stop()


def samples_of(written: Path) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("fleettickets_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(written.read_text())
        for sample in family.samples
    }


def test_a_poll_and_a_drain_of_cron_write_what_they_did(stage: Stage, tmp_path: Path) -> None:
    good, bad = key_at(0), key_at(1)
    stage.bucket.put(good, csv([ticket("INC1"), ticket("INC2", mttr="soon")]))
    stage.bucket.put(bad, b"nothing that is a ticket\n")
    written, nowhere = tmp_path / "poll.prom", str(tmp_path / "nowhere" / "x.prom")
    assert stage.run("poll", "--textfile", str(written)).returncode == 0
    found = samples_of(written)
    assert (found["poll_waiting_files",], found["poll_published_files",]) == (2, 2)
    assert found["poll_timestamp_seconds",] == pytest.approx(time.time(), abs=60)
    before = written.read_text()
    away = stage.run("poll", "--textfile", str(written), RUSTFS_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert (away.returncode, written.read_text()) == (1, before), "it tells of the last poll that ended"
    drained = tmp_path / "drain.prom"
    assert stage.run("drain", "--apply", "--textfile", str(drained)).returncode == 1
    found = samples_of(drained)
    assert {outcome: found["drain_files", outcome] for outcome in ("new", "failed", "late")} == {
        "new": 1, "failed": 1, "late": 0,
    }  # fmt: skip
    assert (found["drain_rows", "inserted"], found["drain_rows", "rejected"]) == (1, 1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["drain.prom", "poll.prom"], "nothing is left half-way"
    for command in (("poll",), ("drain", "--apply")):
        refused = stage.run(*command, "--textfile", nowhere)
        assert (refused.returncode, "No such file or directory" in refused.stderr) == (2, True)
    assert stage.run("drain", "--textfile", str(drained)).returncode == 2
    assert stage.run("poll", "--every", "1", "--textfile", str(written)).returncode == 2


def test_what_is_logged_is_of_a_level_and_tells_whose_it_is(stage: Stage) -> None:
    consumer = stage.start("consume", FLEETTICKETS_LOG_LEVEL="warning")
    good, bad = key_at(0), key_at(1)
    stage.bucket.put(good, csv([ticket("INC1")]))
    stage.bucket.put(bad, b"nothing that is a ticket\n")
    stage.announce(good, bad)
    stage.wait_for("done", good)
    stage.wait_for("failed", bad)
    wait_until(lambda: "dead letter" in consumer.output(), "it is told")
    consumer.stop()
    lines = [json.loads(line) for line in consumer.output().splitlines() if line.startswith("{")]
    assert {line["level"] for line in lines} == {"warning"}
    (letter,) = (line for line in lines if line["event"] == "dead letter")
    assert (letter["key"], letter["reason"], letter["pid"]) == (bad, "no ticket_id", consumer.pid)
    assert (letter["host"], letter["retry_in_s"]) == (socket.gethostname(), None)
    assert (letter["feed"], letter["file_id"]) == ("inc", stage.ledger(bad)["file_id"])
    refused = stage.run("consume", FLEETTICKETS_LOG_LEVEL="loud")
    assert (refused.returncode, refused.stderr.count("\n"), "FLEETTICKETS_LOG_LEVEL" in refused.stderr) == (2, 1, True)
    judged = stage.run("doctor", FLEETTICKETS_LOG_LEVEL="loud")
    assert "FLEETTICKETS_LOG_LEVEL" in judged.stdout

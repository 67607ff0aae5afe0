"""Each alert of docs/alerts.yml fires when the real thing breaks, and no other while all is well."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.doubles.alerted import Alerted
from tests.doubles.prometheus import RULES, Prometheus
from tests.doubles.proxy import Proxy
from tests.doubles.receiver import free_port
from tests.promises import ROOT
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until

DASHBOARD = ROOT / "docs" / "grafana.json"
LATE = "FleetticketsSlow"
"""Fires whenever a file is applied here: the events that tests make up are of days ago."""


class Watch:
    """A consumer and what looks at it."""

    def __init__(self, stage: Stage, prometheus: Prometheus, port: int) -> None:
        self.stage = stage
        self.prometheus = prometheus
        self.port = port

    def consume(self, **environment: str) -> Process:
        return self.stage.start("consume", "--metrics", str(self.port), **environment)

    def look(self, **environment: str) -> None:
        # Ends with what the verdict says.
        assert self.stage.run("status", "--textfile", str(self.prometheus.textfile), **environment).returncode < 4

    def wait_for(self, *alerts: str, **environment: str) -> None:
        """Until exactly these fire."""

        def firing() -> bool:
            self.look(**environment)
            return self.prometheus.firing() - {LATE} == set(alerts)

        wait_until(firing, f"{alerts} alone fire, and not {self.prometheus.firing()}", 60)


@pytest.fixture
def watch(stage: Stage, tmp_path: Path) -> Iterator[Watch]:
    port = free_port()
    with Prometheus(tmp_path, port) as prometheus:
        yield Watch(stage, prometheus, port)


@contextmanager
def consuming(watch: Watch, **environment: str) -> Iterator[None]:
    consumer = watch.consume(**environment)
    try:
        yield
    finally:
        consumer.stop()


def test_nothing_fires_while_all_is_well_and_nobody_looking_does(watch: Watch) -> None:
    wait_until(lambda: "FleetticketsNotLookedAt" in watch.prometheus.firing(), "nobody has ever looked")
    with consuming(watch):
        watch.wait_for()
        key = key_at(0)
        watch.stage.bucket.put(key, csv([ticket("INC1")]))
        watch.stage.announce(key)
        watch.stage.wait_for("done", key)
        watch.wait_for()
        wait_until(lambda: LATE in watch.prometheus.firing(), "its event was of days ago")
        wait_until(lambda: "FleetticketsNotLookedAt" in watch.prometheus.firing(), "nobody looks any more")


def test_a_consumer_that_is_gone_and_files_that_wait(watch: Watch) -> None:
    with consuming(watch):
        watch.wait_for()
    watch.wait_for("FleetticketsDown")
    watch.stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    watch.wait_for("FleetticketsDown", "FleetticketsDoesNotFlow", FLEETTICKETS_STUCK_SECONDS="1")
    with consuming(watch):
        watch.stage.announce(key_at(0))
        watch.wait_for(FLEETTICKETS_STUCK_SECONDS="1")


def test_a_backlog_that_is_late(watch: Watch) -> None:
    with consuming(watch):
        watch.stage.bucket.put(key_at(0), csv([ticket("INC1")]))  # of which nobody tells
        watch.wait_for("FleetticketsLate", FLEETTICKETS_LATE_SECONDS="0.1", FLEETTICKETS_STUCK_SECONDS="0.1",
                       FLEETTICKETS_MISSING_SECONDS="600")  # fmt: skip


def test_a_broker_that_is_away(watch: Watch) -> None:
    with Proxy(watch.stage.environment["RABBITMQ_URL"]) as proxy, consuming(watch, RABBITMQ_URL=proxy.url):
        watch.wait_for()
        proxy.refuse()
        watch.wait_for("FleetticketsWaits", "FleetticketsCannotLook", RABBITMQ_URL=proxy.url)


def test_a_file_that_is_no_ticket_and_rows_that_are_none(watch: Watch) -> None:
    with consuming(watch):
        watch.wait_for()
        good, numbers = [ticket(f"INC{row}") for row in range(20)], count(10)

        def rejects() -> bool:
            # The rule looks back for seconds here, which is less than a busy machine may need for a look.
            key = key_at(next(numbers))
            watch.stage.bucket.put(key, csv([*good, *[ticket("X", mttr="?")] * 3]))
            watch.stage.announce(key)
            watch.stage.wait_for("done", key)
            return "FleetticketsRejects" in watch.prometheus.firing()

        wait_until(rejects, "three of 23 are rejected, again and again")
        key = key_at(3)
        watch.stage.bucket.put(key, b"nothing that is a ticket\n")
        watch.stage.announce(key)
        letters = "SELECT count(*) FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"
        wait_until(lambda: watch.stage.one(letters) == 1, "there is a dead letter")
        watch.look()
        wait_until(lambda: "FleetticketsDeadLetters" in watch.prometheus.firing(), "it is told")


def test_requests_that_are_not_sent(watch: Watch) -> None:
    watch.stage.bucket.put(key_at(0), csv([ticket("INC1")]))
    assert watch.stage.run("drain", "--apply").returncode == 0
    watch.stage.connection.execute("UPDATE ingest.outbox SET sent_at = NULL, handled_at = NULL, due_at = now()")
    watch.look()
    wait_until(lambda: "FleetticketsRequestsNotSent" in watch.prometheus.firing(), "no consumer sends them")


def test_a_quota_that_is_spent_of_whatever_account(watch: Watch) -> None:
    with consuming(watch):
        watch.wait_for()
        spent = (
            "INSERT INTO ingest.geocoder_pause (account, until, reason) VALUES ('x', now() + interval '2 days', 'Day')"
        )
        watch.stage.connection.execute(spent)
        watch.wait_for("FleetticketsQuotaSpent")
        watch.stage.connection.execute("DELETE FROM ingest.geocoder_pause")
        watch.wait_for()


def test_alerts_that_nobody_takes(watch: Watch) -> None:
    with Alerted() as receiver:
        receiver.answers = 503
        told = {"FLEETTICKETS_ALERT_URL": receiver.url, "FLEETTICKETS_STUCK_SECONDS": "1"}
        with consuming(watch):
            watch.stage.bucket.put(key_at(3), b"nothing that is a ticket\n")
            watch.stage.announce(key_at(3))
            watch.stage.wait_for("failed", key_at(3))
        assert watch.stage.run("status", "--alert", **told).returncode == 1
        watch.look()
        wait_until(lambda: "FleetticketsAlertsNotTold" in watch.prometheus.firing(), "the receiver takes none")
        receiver.answers = 200
        watch.stage.run("status", "--alert", **told)
        watch.look()
        wait_until(lambda: "FleetticketsAlertsNotTold" not in watch.prometheus.firing(), "it has taken it")


def test_rules_and_every_query_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    asked = tmp_path / "dashboard.yml"
    asked.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # which is YAML too
    checked = subprocess.run(
        ["/usr/bin/promtool", "check", "rules", RULES, asked], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(queries)} rules found" in checked.stdout


def test_polls_of_cron_that_have_ended(watch: Watch) -> None:
    polled = watch.stage.run("poll", "--textfile", str(watch.prometheus.textfile))
    assert polled.returncode == 0
    wait_until(lambda: "FleetticketsNotPolled" in watch.prometheus.firing(), "nobody polls any more")

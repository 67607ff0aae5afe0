"""A real incident log, cut into change files and delivered out of order.

The log is ServiceNow's, made anonymous by its owner; it lies beside the checkout and not in it.
"""

import csv as real_csv
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from consumer.demo.oracle import EAT, ChangeFile
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import csv
from tests.stage.stage import Stage
from tests.stage.store import CHANGES

NAME = "incident_event_log_5998.csv"
BESIDE = Path(__file__).parents[3] / "shared" / "data"


def log_rows() -> list[dict[str, str]]:
    path = Path(os.environ.get("FLEETTICKETS_SHARED_DATA", BESIDE)) / NAME
    if not path.exists():
        pytest.skip(f"the real incident log {NAME} is not in FLEETTICKETS_SHARED_DATA nor in ../shared/data")
    with path.open(encoding="utf-8-sig", newline="") as log:
        return list(real_csv.DictReader(log))


def time_of(value: str) -> str:
    """Day first in the log, `?` where it is missing."""
    if value == "?":
        return ""
    return datetime.strptime(value, "%d-%m-%Y %H:%M").replace(tzinfo=EAT).strftime("%Y-%m-%d %H:%M")


def ticket_row(row: dict[str, str]) -> dict[str, str]:
    """In the columns of the feed. Every row of the log knows the end of its incident: only a closed one may tell it."""
    known = {name: "" if value == "?" else value for name, value in row.items()}
    state = known["incident_state"]
    return {
        "ticket_id": known["number"],
        "raw_status": state,
        "normalized_status": {"Closed": "closed", "Resolved": "resolved"}.get(state, "open"),
        "is_actionable": known["active"],
        "assigned_team": known["assignment_group"],
        "owner": known["assigned_to"],
        "location_name": known["location"],
        "cluster": known["category"],
        "region": known["contact_type"],
        "sla_status": known["made_sla"],
        "created_at_service": time_of(row["opened_at"]),
        "source_created_at": time_of(row["sys_created_at"]),
        "source_updated_at": time_of(row["sys_updated_at"]),
        "last_seen_at": time_of(row["resolved_at"]) if state in {"Resolved", "Closed"} else "",
        "closed_at": time_of(row["closed_at"]) if state == "Closed" else "",
        "priority": known["priority"],
    }


def change_files() -> Iterator[ChangeFile]:
    """One for each day on which the log was updated, under the time of its last update."""
    days: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in map(ticket_row, log_rows()):
        days[row["source_updated_at"][:10]].append(row)
    for day in days.values():
        rows = sorted(day, key=lambda row: row["source_updated_at"])
        written = datetime.fromisoformat(rows[-1]["source_updated_at"]).replace(tzinfo=EAT)
        yield ChangeFile(f"{CHANGES}{written:%Y-%m-%dT%H%M%S}.csv", written, csv(rows, list(rows[0])))


def test_a_real_incident_log_in_shuffled_order_ends_as_the_reference_says(stage: Stage) -> None:
    files = list(change_files())
    assert len(files) > 10
    random.Random(6).shuffle(files)
    consumers = [stage.start("consume") for _ in range(2)]
    stage.bucket.put_all({file.key: file.body for file in files})
    stage.announce(*(file.key for file in files))
    assert stage.run("poll").returncode == 0
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    for consumer in consumers:
        consumer.stop()
    assert_equals_oracle(stage, files)
    assert stage.waiting() == []

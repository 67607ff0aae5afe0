"""The demo, as a newcomer runs it: both feeds at once, and each compared with what it implies."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES, ROWS = 16, 20


def test_both_feeds_are_played_and_every_comparison_holds(services: dict[str, str]) -> None:
    command = [sys.executable, "-m", "consumer", "demo", "--json", "--files", str(FILES), "--rows", str(ROWS)]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | services, check=False, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    told = json.loads(ended.stdout)
    assert [check for check in told["checks"] if not check["ok"]] == []
    compared = {check["name"]: check["compared"] for check in told["checks"]}
    assert compared["tickets.inc: raw"] > ROWS
    assert compared["tickets.crq: raw"] > ROWS
    assert {name: (feed["put"], feed["applied"], feed["dead"]) for name, feed in told["feeds"].items()} == {
        "inc": (8, 7, 1),
        "crq": (8, 7, 1),
    }

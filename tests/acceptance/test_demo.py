"""The demo, as a newcomer runs it: both feeds at once, and each compared with what it implies."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg

from consumer.demo.fresh import VIRTUAL_HOST, at
from tests.stage.broker import Broker

ROOT = Path(__file__).parents[2]
FILES, ROWS = 16, 20
OF_EACH_FEED, OF_HISTORY, OF_NONE = 9, 1, 1
COMMAND = [sys.executable, "-m", "consumer", "demo", "--json", "--files", str(FILES), "--rows", str(ROWS)]


def test_both_feeds_are_played_and_every_comparison_holds(services: dict[str, str]) -> None:
    ended = subprocess.run(
        COMMAND, cwd=ROOT, env=os.environ | services, check=False, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    told = json.loads(ended.stdout)
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert len(told["checks"]) == 2 * OF_EACH_FEED + OF_HISTORY + OF_NONE
    compared = {check["name"]: check["compared"] for check in told["checks"]}
    assert compared["tickets.inc: raw"] > ROWS
    assert compared["tickets.crq: raw"] > ROWS
    assert {name: (feed["put"], feed["applied"], feed["dead"]) for name, feed in told["feeds"].items()} == {
        "inc": (8, 7, 1),
        "crq": (8, 7, 1),
    }
    require_commands_find_it(told["look"]["commands"])


def test_a_letter_and_a_file_of_neither_feed_are_told(services: dict[str, str]) -> None:
    with subprocess.Popen(
        [*COMMAND, "--rate", "4"],
        cwd=ROOT,
        env=os.environ | services,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout
        assert demo.stderr
        said = list(iter_until(demo.stderr, "put "))
        Broker(at(services["RABBITMQ_URL"], VIRTUAL_HOST), None).publish([b"not json"])
        with psycopg.connect(at(services["DATABASE_URL"], "fleettickets_demo"), autocommit=True) as connection:
            connection.execute("INSERT INTO ingest.epochs (feed, epoch, reason) VALUES ('third', 1, 'first')")
            connection.execute(
                "INSERT INTO ingest.ledger (feed, epoch, bucket, prefix, key, etag, first_seen_by, decision, state)"
                " VALUES ('third', 1, 'b', 'third/', 'third/changes/x.csv', 'e', 'poller', 'ignored', 'done')"
            )
        told, rest = demo.communicate(timeout=240)
    assert demo.returncode == 1, "".join(said) + rest
    (check,) = [check for check in json.loads(told)["checks"] if not check["ok"]]
    assert check["name"] == "nothing of another feed"
    assert check["differences"] == ["files: is ['third/changes/x.csv'], not []", "dead letters: is [''], not []"]


def require_commands_find_it(call: str) -> None:
    """As the demo says that they are called, with nothing set but what it has left there; by default all is well."""
    verify = call.partition("  (")[0].replace(" status", " verify --json")
    for asked in (verify, verify.replace(" verify", " doctor")):
        ended = subprocess.run(
            ["sh", "-c", asked], env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, check=False,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        told = json.loads(ended.stdout)
        assert told.get("objects", {"processed": FILES - 2})["processed"] == FILES - 2, told


def iter_until(said: Iterable[str], beginning: str) -> Iterator[str]:
    """The lines up to the first with this beginning."""
    for line in said:
        yield line
        if line.startswith(beginning):
            return

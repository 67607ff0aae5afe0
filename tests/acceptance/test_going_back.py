"""A database that is ahead of the program is refused, and nothing is touched."""

import json

import pytest

from tests.doubles.receiver import free_port
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

NEWER = "99_of_a_newer_version"


@pytest.fixture
def ahead(stage: Stage) -> Stage:
    stage.connection.execute(
        "INSERT INTO public.fleettickets_migrations (name, sha256, how) VALUES (%s, 'x', 'run')", (NEWER,)
    )
    return stage


@pytest.mark.parametrize(
    "command",
    [
        ("consume",),
        ("poll",),
        ("poll", "--every", "1"),
        ("drain", "--apply"),
        ("import-csv", "2026-06-25T142000.csv", "--feed", "inc", "--apply"),
        ("serve", "--port", "PORT"),
        ("migrate",),
        ("migrate", "--status"),
        ("verify",),
        ("explain", "--ticket", "INC0"),
        ("preview", "2026-06-25T142000.csv", "--feed", "inc"),
        ("rejects", "list"),
        ("capture-history",),
        ("rebuild-history",),
        ("reseed", "--yes"),
        ("geocode", "clusters"),
    ],
)
def test_it_is_refused_with_what_to_do(ahead: Stage, command: tuple[str, ...]) -> None:
    key = key_at(0)
    ahead.bucket.put(key, csv([ticket("INC0")]))
    (ahead.folder / "2026-06-25T142000.csv").write_bytes(csv([ticket("INC0")]))
    ended = ahead.run(*(str(free_port()) if word == "PORT" else word for word in command))
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("fleettickets: ")]
    assert ended.returncode == 2
    assert f"the database is ahead of this program: it has {NEWER}, which is not in version" in line
    assert "run the newer version again, or restore the database from before it" in line
    assert ahead.bucket.keys() == [key]
    assert ahead.one("SELECT count(*) FROM ingest.ledger") == 0
    assert ahead.one("SELECT count(*) FROM tickets.inc") == 0


def test_who_looks_says_it(ahead: Stage) -> None:
    ended = ahead.run("status", "--json")
    found = ahead.json(ended)["verdict"]
    assert (ended.returncode, found["word"]) == (3, "WRONG SCHEMA")
    assert NEWER in found["line"]
    assert "run the newer version again" in found["advice"]
    (wrong,) = [
        found for found in ahead.json(ahead.run("doctor", "--poller-only", "--json"))["findings"]
        if found["level"] == "wrong"
    ]  # fmt: skip
    assert (wrong["about"], wrong["found"]) == ("migrations", f"ahead of this program: {NEWER}")
    steps = json.loads(ahead.run("migrate", "--status", "--json").stdout)
    assert [step["name"] for step in steps if not step["is_ours"]] == [NEWER]


def test_one_that_lacks_a_migration_is_told_likewise(stage: Stage) -> None:
    stage.connection.execute("DELETE FROM public.fleettickets_migrations WHERE name = '36_heartbeats'")
    found = stage.json(stage.run("status", "--json"))["verdict"]
    assert (found["word"], found["exit"], found["advice"]) == ("WRONG SCHEMA", 3, "run: fleettickets migrate")
    assert "lacks migration 36_heartbeats" in found["line"]


def test_what_runs_already_goes_on(stage: Stage) -> None:
    """An upgrade migrates first, and replaces what runs then."""
    consumer, poller = stage.start("consume"), stage.start("poll", "--every", "0.5")
    wait_until(lambda: '"poll"' in poller.output() or " poll " in poller.output(), "it polls")
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.heartbeats") == 2, "both have begun")
    stage.connection.execute(
        "INSERT INTO public.fleettickets_migrations (name, sha256, how) VALUES (%s, 'x', 'run')", (NEWER,)
    )
    key = key_at(0)
    stage.bucket.put(key, csv([ticket("INC0")]))
    stage.wait_for("done", key)
    poller.stop()
    consumer.stop()
    assert "cannot be asked" not in poller.output()

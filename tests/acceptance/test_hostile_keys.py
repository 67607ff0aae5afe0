"""Keys that want to be a path, a statement, a format or a terminal's command are names and nothing else."""

import json
from collections.abc import Iterator

import pytest

from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

NAMES = (
    "../../escape-{way}.csv",
    "../processed/{way}/2026-06-25T142000.csv",
    "/{way}/2026-06-25T142000.csv",
    "./{way}-2026-06-25T142000.csv",
    "red \x1b[31m\x1b[2J {way}.csv",
    "bell \x07\x08\x7f\x9b {way}.csv",
    "two\nlines\r {way}.csv",
    "'; DROP TABLE tickets.inc; -- {way}.csv",
    '"); DROP TABLE ingest.ledger; -- {way}".csv',
    "%s %(key)s %n {way}.csv",
    "{{key}} {{0.__class__}} {way}.csv",
    "\u202egnp.{way}.csv",
    "\u2028\u2066 {way}.csv",
    "[bold]{way}[/bold][/].csv",
    "$(reboot) `reboot` {way} \\.csv",
)
NO_KEYS = ("a\\u0000b.csv", "half \\ud800.csv", "x" * 1025, "")
MARKED = {
    "fleettickets-key": f"{CHANGES}\x1b[2J\n[bold]\u202e",
    "fleettickets-reason": "a\x1b]0;title\x07 reason\n",
    "fleettickets-error": "an\r\x1b[8m error '; DROP TABLE tickets.inc",
    "fleettickets-history": ["one\nnot two \x1b[A"],
    "\x1b[31mname": "value",
}


def keys(way: str) -> list[str]:
    longest = f"{CHANGES}{way}".ljust(1020, "x") + ".csv"
    return [longest, *(CHANGES + name.format(way=way) for name in NAMES)]


@pytest.fixture(scope="module")
def played(shared_stage: Stage) -> Iterator[Stage]:
    """All of them by notification, by poll and by drain, with a good file at the end of each."""
    stage = shared_stage
    good = {way: key_at(number) for number, way in enumerate(("notification", "poll", "drain"))}
    stage.bucket.put_all({good["notification"]: csv([ticket("INC0")]), **dict.fromkeys(keys("notification"), b"?")})
    consumer = stage.start("consume")
    stage.announce(*keys("notification"))
    templates = [stage.bucket.event("KEY").decode().replace("KEY", name) for name in NO_KEYS]
    stage.broker.publish(template.encode() for template in templates)
    stage.announce(good["notification"])
    stage.wait_for("done", good["notification"])
    stage.bucket.put_all({good["poll"]: csv([ticket("INC1")]), **dict.fromkeys(keys("poll"), b"?")})
    assert stage.run("poll").returncode == 0
    stage.wait_for("done", good["poll"])
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every message is taken")
    consumer.stop()
    stage.bucket.put_all({good["drain"]: csv([ticket("INC2")]), **dict.fromkeys(keys("drain"), b"?")})
    drained = stage.run("drain", "--apply")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    require_plain(drained.stdout)
    yield stage
    # A store refuses to have such keys named in the XML of a deletion of many.
    for key in stage.bucket.keys():  # noqa: SIM118 - no dictionary
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)


def require_plain(shown: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in shown), shown


@pytest.mark.promise("No silent decision")
@pytest.mark.parametrize("way", ["notification", "poll", "drain"])
def test_the_ledger_has_each_exactly_and_the_bucket_keeps_each(played: Stage, way: str) -> None:
    rows = played.query("SELECT key, decision, reason FROM ingest.ledger WHERE key = ANY(%s)", keys(way))
    assert {row["key"] for row in rows} == set(keys(way))
    assert {row["decision"] for row in rows} == {"ignored"}
    assert all(row["reason"] for row in rows)
    there = set(played.bucket.keys())
    assert set(keys(way)) <= there


def test_nothing_but_the_good_files_is_applied_or_archived(played: Stage) -> None:
    assert [row["ticket_id"] for row in played.query("SELECT ticket_id FROM tickets.inc ORDER BY 1")] == [
        "INC0",
        "INC1",
        "INC2",
    ]
    assert played.bucket.keys(PROCESSED) == [key_at(number).replace(CHANGES, PROCESSED) for number in range(3)]
    everything = played.bucket.keys()
    others = [key for key in everything if not key.startswith((CHANGES, PROCESSED))]
    assert others == []


def test_what_no_store_can_name_so_is_a_dead_letter_with_its_body(played: Stage) -> None:
    letters = [message for message in played.broker.messages(DEAD_FILES) if b"ObjectCreated" in message.body]
    assert len(letters) == len(NO_KEYS)
    assert {message.headers["fleettickets-reason"] for message in letters} == {"not an event"}


def test_no_command_lets_them_steer_a_terminal(played: Stage) -> None:
    with played.broker.channel() as channel:
        played.broker.publish_to(channel, "", DEAD_FILES, b"\x1b[2J\xff\x00body", MARKED)
    letters = played.ask("dead-letters", "list", "--each")
    (marked,) = (letter["id"] for letter in letters if letter["key"] == MARKED["fleettickets-key"])
    for arguments in (
        ("status",),
        ("verify", "--old", "0", "--examples", "100"),
        ("drain",),
        ("dead-letters", "list"),
        ("dead-letters", "list", "--each"),
        ("dead-letters", "show", marked),
        ("dead-letters", "replay", "--all", "--dry-run"),
        ("explain", keys("poll")[5]),
        ("explain", keys("poll")[7]),
        ("explain", keys("drain")[10].replace(CHANGES, "")),
        ("explain", "--ticket", "'; DROP TABLE tickets.inc; \x1b[2J"),
        ("explain", "\x1b[2J/2026-06-25T142000.csv"),
    ):
        ended = played.run(*arguments)
        assert ended.returncode in {0, 1, 2}
        require_plain(ended.stdout + ended.stderr)
        assert "Traceback" not in ended.stderr
        assert "DROP TABLE" not in ended.stderr
    shown = played.run("explain", keys("poll")[7]).stdout
    assert shown.startswith(f"{CHANGES}two\\nlines\\r poll.csv\n")
    for arguments in (("status",), ("dead-letters", "list", "--each"), ("verify",), ("explain", keys("poll")[5])):
        told = played.run(*arguments, "--json").stdout
        require_plain(told)
        json.loads(told)

"""Small files made to fill the database's disk: each fails early with its reason, and those beside it are applied."""

import gzip
import random
import threading
from collections.abc import Callable

import psycopg
import pytest

from consumer.demo.model import INC
from tests.stage.broker import DEAD_FILES
from tests.stage.feeds import COLUMNS, csv, key_at, lines, ticket
from tests.stage.stage import Stage

MB = 1 << 20
RANDOM = random.Random(7)
NAMES = ["ticket_id", *(RANDOM.randbytes(500).hex() for _ in range(1999))]
FAILING = {
    "a header of two megabytes": (lines([NAMES, *([f"INC{n}", *[""] * 1999] for n in range(300))]), "header too large"),
    "a value under a long name": (
        lines([["ticket_id", NAMES[1]], *([f"INC{n:07}", "x"] for n in range(200_000))]),
        "out of proportion",
    ),
    "ids alone": (b"ticket_id\n" + b"".join(b"%x\n" % n for n in range(400_000)), "out of proportion"),
    "closures of one ticket": (
        b"ticket_id,closed_at\n"
        + b"".join(
            b"1,%04d-%02d-%02d\n" % (n // 336 % 110 + 1990, n // 28 % 12 + 1, n % 28 + 1) for n in range(200_000)
        ),
        "out of proportion",
    ),
    "bad rows alone": (b"ticket_id,owner\n" + b"x\n" * 1_000_000, "out of proportion"),
    "bad rows by the million": (b"ticket_id,owner\n" + b"a row of that\n" * 1_000_000, "too many rejects"),
    "nothing, compressed": (gzip.compress(b"ticket_id\n" + b"INC1\n" * 4_000_000), "out of proportion"),
}
WIDE = ["ticket_id", *sorted(INC.columns - {"ticket_id"}), *(f"attribute_{number}" for number in range(500))]
APPLIED = {
    "lean rows": csv(
        ({"ticket_id": f"LEAN{number:07}", "normalized_status": "open"} for number in range(5_000)),
        ["ticket_id", "normalized_status"],
    ),
    "wide rows": csv(({"ticket_id": f"WIDE{number:07}", "attribute_7": "x"} for number in range(1_000)), WIDE),
    **{f"good {number}": csv([ticket(f"INC{number:07}")], COLUMNS) for number in range(20)},
}
KEYS = {name: key_at(number) for number, name in enumerate((*FAILING, *APPLIED))}
ROOM = 100 * MB
"""More than all of the files have; what the first one alone took before was six times as much."""


@pytest.fixture(scope="module")
def played(shared_stage: Stage) -> tuple[Stage, int, int]:
    """All at once; gives by how much the database has grown at the most, and what it wrote to temporary files."""
    stage, done, most = shared_stage, threading.Event(), [0]
    before = stage.one("SELECT pg_database_size(current_database())")

    def watch() -> None:
        with psycopg.connect(stage.database, autocommit=True) as connection:
            while not done.wait(0.2):
                row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                assert row is not None
                most[0] = max(most[0], row[0] - before)

    bodies = {name: body for name, (body, _) in FAILING.items()} | APPLIED
    stage.bucket.put_all({KEYS[name]: body for name, body in bodies.items()})
    compressed = "nothing, compressed"
    stage.bucket.s3.put_object(
        Bucket=stage.bucket.name, Key=KEYS[compressed], Body=bodies[compressed], ContentEncoding="gzip"
    )
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        consumer = stage.start("consume")
        stage.announce(*(KEYS[name] for name in FAILING), *(KEYS[name] for name in APPLIED))
        stage.wait_for("failed", *(KEYS[name] for name in FAILING), timeout=240)
        stage.wait_for("done", *(KEYS[name] for name in APPLIED), timeout=240)
        consumer.stop()
    finally:
        done.set()
        watching.join()
    written = stage.one("SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()")
    return stage, most[0], int(written)


@pytest.mark.promise("Bounded")
def test_the_database_needs_room_in_proportion_to_what_was_read(
    played: tuple[Stage, int, int], record_property: Callable[[str, object], None]
) -> None:
    _, grown, temporary = played
    record_property("MB of room", (grown + temporary) // MB)
    assert grown + temporary < ROOM


@pytest.mark.parametrize("name", FAILING)
def test_each_is_a_dead_letter_with_the_reason(played: tuple[Stage, int, int], name: str) -> None:
    stage, reason = played[0], FAILING[name][1]
    row = stage.ledger(KEYS[name])
    assert (row["decision"], row["reason"], row["rows_inserted"]) == ("rejected", reason, 0)
    assert row["last_error"]
    letters = [one for one in stage.broker.messages(DEAD_FILES) if one.headers["fleettickets-key"] == KEYS[name]]
    assert [one.headers["fleettickets-reason"] for one in letters] == [reason]


@pytest.mark.parametrize("name", APPLIED)
def test_every_good_file_is_applied(played: tuple[Stage, int, int], name: str) -> None:
    row = played[0].ledger(KEYS[name])
    assert row["rows_read"] == row["rows_inserted"] > 0


def test_a_wide_row_has_the_feeds_own_columns_and_its_values(played: tuple[Stage, int, int]) -> None:
    raw = played[0].one("SELECT raw FROM tickets.inc WHERE ticket_id = 'WIDE0000000'")
    assert raw == dict.fromkeys(INC.columns) | {"ticket_id": "WIDE0000000", "attribute_7": "x"}

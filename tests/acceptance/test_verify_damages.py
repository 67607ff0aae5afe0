"""Every kind of damage is named by its kind, each on its own file, and nothing else is."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.stage.broker import DEAD_FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED
from tests.stage.verifying import findings

BROKEN = b"number,owner\nINC1,Otieno\n"
FEW_SECONDS = ("--old", "1")
KEYS = [key_at(number) for number in range(25)]
FILES = {key: csv([ticket(f"INC{number}"), ticket(f"BAD{number}", mttr="soon")]) for number, key in enumerate(KEYS)}
GONE, FORGOTTEN, MENDED, UNKNOWN = (key_at(number) for number in range(40, 44))
WAITING, OVERDUE, NEWEST = key_at(50), key_at(51), key_at(60)
STOOD, UNAPPLIED, UNARCHIVED, UNEXPLAINED = (key_at(number) for number in range(70, 74))


def archived(key: str) -> str:
    return key.replace(CHANGES, PROCESSED)


def letter(stage: Stage, key: str) -> None:
    """A dead letter of a file that nobody knows."""
    with stage.broker.channel() as channel:
        headers = {"fleettickets-key": key, "fleettickets-reason": "planted", "fleettickets-dead-at": "2026-06-01"}
        stage.broker.publish_to(channel, "fleettickets.dead", "files", stage.bucket.event(key), headers)


def take_letter(stage: Stage, key: str) -> None:
    """Remove a dead letter, as a broker that lost it."""
    with stage.broker.channel() as channel:
        while True:
            method, properties, _ = channel.basic_get(DEAD_FILES)
            if method is None or properties is None:
                return
            if (properties.headers or {})["fleettickets-key"] == key:
                channel.basic_ack(method.delivery_tag or 0)


def with_a_broken_record(stage: Stage, key: str) -> bytes:
    """A body whose first record is the file's event and whose second is none."""
    body = json.loads(stage.bucket.event(key, stage.bucket.read(key)))
    return json.dumps({"Records": [*body["Records"], {"eventName": 7}]}).encode()


def plant(stage: Stage, key: str, state: str) -> None:
    """A ledger row of a version that was seen an hour ago, and never applied."""
    stage.connection.execute(
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, first_seen_at, decision, state)
           VALUES (%s, 'automations/inc/', %s, 'e', 1, 'poller', now() - interval '1 h', 'new', %s)""",
        [stage.bucket.name, key, state],
    )


def put_in_parts(stage: Stage, key: str, body: bytes) -> None:
    """Store an object so that its ETag is not that of its copy."""
    s3: Any = stage.bucket.s3
    upload = s3.create_multipart_upload(Bucket=stage.bucket.name, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=stage.bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=body)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket=stage.bucket.name, Key=key, UploadId=upload, MultipartUpload=parts)


def delete(stage: Stage, key: str) -> None:
    stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)


def tamper(stage: Stage, number: int, change: str) -> None:
    stage.connection.execute("SET session_replication_role = replica")  # what a trigger would not let anybody do
    stage.connection.execute(f"UPDATE ingest.ledger SET {change} WHERE key = %s".encode(), [KEYS[number]])  # noqa: S608


def put_in_order(stage: Stage) -> None:
    """Files of every fate, all worked off by a consumer."""
    consumer = stage.start("consume", FLEETTICKETS_FILES_IN_HAND="1")
    stage.bucket.put_all(FILES | dict.fromkeys((GONE, FORGOTTEN, MENDED), BROKEN))
    put_in_parts(stage, KEYS[14], FILES[KEYS[14]])
    stage.announce(*FILES, GONE, FORGOTTEN, MENDED)
    stage.wait_for("done", *FILES)
    stage.wait_for("failed", GONE, FORGOTTEN, MENDED)
    changed = csv([ticket("CHANGED")])
    stage.bucket.put_all({KEYS[13]: changed, KEYS[15]: BROKEN, NEWEST: csv([ticket("NEWEST")])})
    stage.announce(KEYS[13], KEYS[15])
    stage.broker.publish([with_a_broken_record(stage, NEWEST)])
    stage.wait_for("done", NEWEST)
    stage.wait_for("failed", KEYS[15])
    wait_until(lambda: stage.waiting() == [KEYS[15], GONE, FORGOTTEN, MENDED], "all is archived")
    stage.wait_for_history()
    stage.bucket.put(f"{CHANGES}notes.txt", b"left alone")
    assert findings(stage, *FEW_SECONDS, "--content") == {}, (
        "a suffixed archive, a copy's other ETag and a letter of half a body are in order"
    )
    stage.bucket.put(MENDED, csv([ticket("MENDED")]))
    stage.announce(MENDED)
    stage.wait_for("done", MENDED)
    left = [KEYS[15], GONE, FORGOTTEN, f"{CHANGES}notes.txt"]
    wait_until(lambda: stage.waiting() == left, "the mended file is archived")
    stage.wait_for_history()
    consumer.stop()


def content_differs(stage: Stage) -> list[str]:
    stage.bucket.put(archived(KEYS[3]), FILES[KEYS[3]].replace(b"INC", b"XYZ"))
    return [archived(KEYS[3])]


def failed_without_letter(stage: Stage) -> list[str]:
    take_letter(stage, FORGOTTEN)
    return [FORGOTTEN]


SUMS = {
    11: ("rows_stale = 3", "2 rows read, and 5 of them accounted for: 1 inserted, 0 updated, 0 unchanged, 3 stale"),
    12: ("lines_header = 2", "3 lines read, and 4 of them accounted for: 0 blank, 2 of headers, 1 rejected, 1 of rows"),
    23: ("lines_of_rows = 0, lines_blank = 1", "1 rows taken of 0 lines"),
    24: ("lines_rejected = 0, lines_of_rows = 2", "1 rows rejected on 0 lines"),
}
"""Of each file a change that breaks a sum, and how that is told. Each has a header, a ticket and a reject."""


def ledger_inconsistent(stage: Stage) -> list[str]:
    stage.connection.execute("ALTER TABLE ingest.ledger DROP CONSTRAINT lines_add_up")
    for number, (change, _) in SUMS.items():
        tamper(stage, number, change)
    tamper(stage, 18, "sha256 = NULL")
    tamper(stage, 19, "state = 'seen'")
    planted = {UNAPPLIED: "applied", UNARCHIVED: "archived", UNEXPLAINED: "done"}
    for key, state in planted.items():
        plant(stage, key, state)
    return [KEYS[11], KEYS[12], KEYS[18], KEYS[19], KEYS[23], KEYS[24], *planted]


def letter_of_applied_file(_stage: Stage) -> list[str]:
    """Mended and applied, and nobody has let go of its letter."""
    return [MENDED]


def letter_without_failure(stage: Stage) -> list[str]:
    letter(stage, UNKNOWN)
    return [UNKNOWN]


def lost(stage: Stage) -> list[str]:
    delete(stage, archived(KEYS[1]))
    delete(stage, GONE)
    delete(stage, KEYS[15])
    take_letter(stage, KEYS[15])
    tamper(stage, 17, "archive_key = NULL")
    plant(stage, STOOD, "seen")
    return [KEYS[15], KEYS[17], GONE, STOOD, archived(KEYS[1])]


def request_lost(stage: Stage) -> list[str]:
    number = ask_long_ago(stage, KEYS[8], "2026-06-01")
    stage.query("DELETE FROM ingest.outbox USING ingest.ledger file WHERE file.key = %s AND kind = 'geocode'"
                " AND outbox.file_id = file.file_id RETURNING 1", KEYS[20])  # fmt: skip
    return [f"geocode request of {KEYS[20]}", f"history request {number}"]


def request_unsent(stage: Stage) -> list[str]:
    return [f"history request {ask_long_ago(stage, KEYS[7], None)}"]


def ask_long_ago(stage: Stage, key: str, sent_at: str | None) -> object:
    """The number of the file's history request, which is made open and old."""
    number = stage.one(
        "SELECT request_id FROM ingest.outbox JOIN ingest.ledger USING (file_id) WHERE key = %s AND kind = 'history'",
        key,
    )
    stage.connection.execute(
        "UPDATE ingest.outbox SET created_at = '2026-06-01', handled_at = NULL, sent_at = %s WHERE request_id = %s",
        [sent_at, number],
    )
    return number


def rows_missing(stage: Stage) -> list[str]:
    stage.query("DELETE FROM tickets.inc WHERE ticket_id IN ('INC9', 'INC21') RETURNING 1")
    stage.query("DELETE FROM ingest.positions WHERE ticket_id IN ('INC21', 'INC22', 'NEWEST') RETURNING 1")
    stage.query("DELETE FROM ingest.rejects USING ingest.ledger file WHERE file.key = %s"
                " AND rejects.file_id = file.file_id RETURNING 1", KEYS[10])  # fmt: skip
    return [
        "position of ticket INC22", "position of ticket NEWEST", f"positions of {NEWEST}", f"rejects of {KEYS[10]}",
        "ticket INC9", "tickets of inc",
    ]  # fmt: skip


def closure_missing(stage: Stage) -> list[str]:
    """One that was closed, and whose closure is not there; the one beside it waits for the next capture."""
    closed = (
        """UPDATE tickets.inc SET raw = raw || '{"closed_at": "2026-06-01 09:00"}' WHERE ticket_id = %s RETURNING 1"""
    )
    stage.query(closed, "INC12")
    stage.query("DELETE FROM ingest.closures_noted RETURNING 1")
    stage.query(closed, "INC13")
    stage.query("UPDATE tickets.inc SET ingested_at = now() + interval '1 h' WHERE ticket_id = 'INC13' RETURNING 1")
    return ["ticket INC12"]


def size_differs(stage: Stage) -> list[str]:
    stage.bucket.put(archived(KEYS[2]), b"cut off")
    return [archived(KEYS[2])]


def tail_unfinished(stage: Stage) -> list[str]:
    tamper(stage, 5, "state = 'applied', archive_key = NULL, archived_at = NULL, applied_at = now() - interval '1 h'")
    tamper(stage, 16, "state = 'archived', done_at = NULL, archived_at = now() - interval '1 h'")
    stage.bucket.put(KEYS[6], FILES[KEYS[6]])
    return [KEYS[5], KEYS[6], KEYS[16]]


def unrecorded(stage: Stage) -> list[str]:
    found = {archived(key_at(90)): FILES[KEYS[0]], f"{PROCESSED}foreign.txt": b"what is this"}
    stage.bucket.put_all(found)
    return list(found)


def waiting_too_long(stage: Stage) -> list[str]:
    stage.bucket.put_all({WAITING: FILES[KEYS[0]], OVERDUE: BROKEN})
    stage.query(
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state, retry_at)
           VALUES (%s, 'automations/inc/', %s, %s, 1, 'poller', 'rejected', 'failed', now() - interval '1 h')
           RETURNING file_id""",
        stage.bucket.name, OVERDUE, hashlib.md5(BROKEN, usedforsecurity=False).hexdigest(),
    )  # fmt: skip
    return [WAITING, OVERDUE]


DAMAGES: list[Callable[[Stage], list[str]]] = [
    closure_missing,
    content_differs,
    failed_without_letter,
    ledger_inconsistent,
    letter_of_applied_file,
    letter_without_failure,
    lost,
    request_lost,
    request_unsent,
    rows_missing,
    size_differs,
    tail_unfinished,
    unrecorded,
    waiting_too_long,
]
"""Each does the damage of its name, and gives what has to be named."""
KINDS = [damage.__name__ for damage in DAMAGES]


@dataclass(frozen=True)
class Looks:
    """What was found at a system with one damage of each kind: `deep` reads contents, and has no letters missing."""

    expected: dict[str, list[str]]
    found: dict[str, list[str]]
    deep: dict[str, list[str]]
    letters: tuple[list[bytes], list[bytes]]
    """The dead letters before and after the first look."""
    shown: str


@pytest.fixture(scope="module")
def looks(shared_stage: Stage) -> Looks:
    def letters() -> list[bytes]:
        return sorted(message.body for message in shared_stage.broker.messages(DEAD_FILES))

    put_in_order(shared_stage)
    expected = {damage.__name__: damage(shared_stage) for damage in DAMAGES}
    tamper(shared_stage, 4, "sha256 = repeat('0', 64)")  # which no ETag shows
    time.sleep(2)
    before = letters()
    found = findings(shared_stage, *FEW_SECONDS)
    after = letters()
    shared_stage.announce(WAITING)
    deep = findings(shared_stage, *FEW_SECONDS, "--content")
    shown = shared_stage.run("verify", "--without-broker")
    assert (shown.returncode, shown.stderr) == (1, "")
    return Looks(expected, found, deep, (before, after), shown.stdout)


@pytest.mark.promise("No silent decision")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damage_is_named_by_its_kind(looks: Looks, kind: str) -> None:
    assert looks.found[kind] == looks.expected[kind]


def test_nothing_else_is_named(looks: Looks) -> None:
    assert looks.found.keys() == set(KINDS)


def test_looking_disturbs_no_dead_letter(looks: Looks) -> None:
    before, after = looks.letters
    assert before == after


def test_other_bytes_that_no_etag_shows_are_found_by_their_content(looks: Looks) -> None:
    assert looks.deep["content_differs"] == [archived(KEYS[3]), archived(KEYS[4])]


def test_a_letter_that_is_missing_may_be_a_replay_that_is_queued(looks: Looks) -> None:
    assert looks.deep.keys() == set(KINDS) - {"failed_without_letter"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"content_differs", "failed_without_letter"}))
def test_contents_change_nothing_about_the_other_kinds(looks: Looks, kind: str) -> None:
    assert looks.deep[kind] == looks.expected[kind]


@pytest.mark.parametrize("number", SUMS)
def test_a_sum_that_is_wrong_is_told_with_its_parts(looks: Looks, number: int) -> None:
    assert f"        {KEYS[number].removeprefix(CHANGES)}: {SUMS[number][1]}" in looks.shown


def test_damages_are_shown_to_a_person_too(looks: Looks) -> None:
    assert f"    {PROCESSED}\n        {KEYS[1].removeprefix(CHANGES)}: applied" in looks.shown
    assert "letter" not in looks.shown.replace("not looked at: dead letters", "")

"""What has to be true at the end of the play: every good thing took effect once, every hostile one has its decision."""

import hashlib
import json
from collections import Counter
from typing import Any

from consumer.demo.feed import CLUSTERS
from consumer.demo.oracle import ChangeFile, foretell
from tests.hostile import management
from tests.hostile.hostility import Record
from tests.stage import comparing
from tests.stage.broker import DEAD_FILES, FILES, HISTORY
from tests.stage.comparing import Verdict, etag
from tests.stage.stage import Stage

_RETRIES = 2
LETTERS_AT_MOST = 3
"""Of one message: one whose confirm got lost with its connection is published again."""
_UNEXPECTED = "unexpected"
_FOR_TOO_LONG = "QueryCanceled"
"""What a file that trickles meets, and one that waits while an administrator has a table."""


def open_ends(stage: Stage, feed: list[ChangeFile], record: Record) -> list[str]:
    """What is not decided yet; [] when nothing is left to wait for."""
    found = []
    done = {
        (row["key"], row["etag"]) for row in stage.query("SELECT key, etag FROM ingest.ledger WHERE state = 'done'")
    }
    found += [f"{file.key} is not done" for file in [*feed, *record.good] if (file.key, etag(file.body)) not in done]
    dead = {row["key"] for row in stage.query("SELECT key FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL")}
    found += [f"{key} is no dead letter" for key in record.dead if key not in dead]
    known = {row["key"] for row in stage.query("SELECT key FROM ingest.ledger")}
    found += [f"{key} is unknown to the ledger" for key in record.ignored if key not in known]
    bodies = {message.body for message in management.messages(stage.broker, DEAD_FILES)}
    found += [f"no dead letter of {_shown(body)}" for body in record.dead_bodies if body not in bodies]
    waiting = set(stage.waiting())
    found += [f"{key} is still in changes/" for key in sorted(waiting - record.dead.keys() - record.ignored)]
    tails = stage.query("SELECT key, state FROM ingest.ledger WHERE state NOT IN ('done', 'failed')")
    found += [f"{row['key']} is {row['state']}" for row in tails]
    found += [f"{ticket} has no place" for ticket in _without_place(stage)]
    if stage.one("SELECT count(*) FROM ingest.outbox WHERE kind = 'history' AND handled_at IS NULL"):
        found.append("a history request is not handled")
    for queue in (FILES, HISTORY):
        if held := management.held(stage.broker, queue):
            found.append(f"{held} messages are left in {queue}")
    return found


def judge(stage: Stage, feed: list[ChangeFile], record: Record) -> list[str]:
    """Compare everything, once nothing is open any more."""
    return [
        *_judge_tables(stage, feed, record),
        *_judge_ledger(stage, feed, record),
        *_judge_letters(stage, record),
        *_judge_requests(stage),
        *_judge_places(stage),
        *_judge_log(stage),
    ]


def _tickets(stage: Stage) -> dict[str, dict[str, Any]]:
    """As the feed has them: without what the gazetteer knows of their place."""
    placed = stage.query("SELECT ticket_id FROM tickets.inc WHERE geo_source <> 'feed'")
    nowhere = dict.fromkeys(("latitude", "longitude"))
    found = comparing.tickets(stage)
    return found | {row["ticket_id"]: found[row["ticket_id"]] | nowhere for row in placed}


def _judge_tables(stage: Stage, feed: list[ChangeFile], record: Record) -> list[str]:
    expected, of_the_feed = foretell([*feed, *record.good]), foretell(feed)
    verdict = Verdict()
    verdict.compare("ticket", _tickets(stage), expected.tickets())
    verdict.compare("closure", comparing.closures(stage), expected.closures())
    rejects = {reject for reject in comparing.rejects(stage) if reject[0] not in record.dead}
    verdict.compare_names("reject", rejects, expected.rejects.keys())
    # Of two versions of a key the ledger counts both, or perhaps one; a file of the feed has one.
    verdict.compare_sums(" of the feed", comparing.sums(stage, [file.key for file in feed]), of_the_feed.sums())
    return verdict.differences


def _judge_ledger(stage: Stage, feed: list[ChangeFile], record: Record) -> list[str]:
    found = []
    rows = stage.query(
        """SELECT key, etag, sha256, state, decision, reason, attempts, last_error, applied_at, dead_lettered_at
           FROM ingest.ledger"""
    )
    of = {(row["key"], row["etag"]): row for row in rows}
    for file in [*feed, *record.good]:
        row = of.get((file.key, etag(file.body)))
        if row is None or row["state"] != "done" or row["applied_at"] is None:
            found.append(f"{file.key}: {row['state'] if row else 'no row'}, {row['last_error'] if row else ''}")
        elif row["sha256"] != hashlib.sha256(file.body).hexdigest():
            found.append(f"{file.key}: another sha256, {row['sha256']}")
    # What the store or the database fails one file with while others are applied is its own failure: a retry, or two.
    found += [
        f"{row['key']} of the feed has {row['attempts']} attempts: {row['last_error']}"
        for row in rows
        if row["attempts"] > _RETRIES and row["key"] in {file.key for file in feed}
    ]
    good = {file.key for file in record.good} | {file.key for file in feed}
    for row in rows:
        key = row["key"]
        if row["applied_at"] is not None and key not in good:
            found.append(f"{key} was applied, and is not good")
        if key in record.dead and (row["state"], bool(row["dead_lettered_at"])) != ("failed", True):
            found.append(f"{key} should be a dead letter, and is {row['state']} ({row['decision']})")
        if key in record.dead and not _is_allowed(row["reason"], record.dead[key]):
            found.append(f"{key} is a dead letter for another reason: {row['reason']}: {row['last_error']}")
        if key in record.ignored and row["decision"] != "ignored":
            found.append(f"{key} should be ignored, and is {row['decision']}")
    gone = (record.dead.keys() | record.ignored) - set(stage.waiting())
    found += [f"{key} is gone from changes/" for key in sorted(gone)]
    return found


def _without_place(stage: Stage) -> list[str]:
    """Tickets of the feed whose cluster the provider knows, and that are nowhere all the same.

    Not those of a cluster that all faults of the provider met one after the other: it is asked again hours later.
    """
    query = """SELECT ticket_id FROM tickets.inc WHERE cluster = ANY(%s) AND geom IS NULL
               AND cluster NOT IN (SELECT cluster FROM tickets.geo_clusters WHERE unanswered > 0)"""
    rows = stage.query(query, list(CLUSTERS))
    return [row["ticket_id"] for row in rows]


def _judge_places(stage: Stage) -> list[str]:
    """A ticket that has its place from the gazetteer is where the gazetteer says."""
    rows = stage.query(
        """SELECT ticket_id, geo_source FROM tickets.inc AS ticket
           LEFT JOIN tickets.geo_clusters AS coarse USING (cluster)
           LEFT JOIN tickets.geo_locations AS precise USING (cluster, location_name)
           WHERE geo_source = 'cluster' AND NOT coalesce(ST_Equals(ticket.geom, coarse.geom), false)
              OR geo_source = 'location' AND NOT coalesce(ST_Equals(ticket.geom, precise.geom), false)"""
    )
    return [f"{row['ticket_id']} is at a point that no {row['geo_source']} has" for row in rows]


def _judge_letters(stage: Stage, record: Record) -> list[str]:
    found = []
    keys: Counter[str] = Counter()
    bodies: Counter[bytes] = Counter()
    for letter in management.messages(stage.broker, DEAD_FILES):
        key, reason = str(letter.headers.get("fleettickets-key") or ""), letter.headers.get("fleettickets-reason")
        if letter.body in record.dead_bodies:
            bodies[letter.body] += 1
            if not _is_allowed(reason, record.dead_bodies[letter.body]):
                found.append(f"{_shown(letter.body)} is a dead letter for another reason: {reason}")
        elif key in record.dead:
            keys[key] += 1
        elif letter.body not in record.indifferent:
            error = letter.headers.get("fleettickets-error")
            found.append(f"a dead letter that should be none: {key} {_shown(letter.body)}: {reason}: {error}")
    found += [f"{times} dead letters of {key}" for key, times in keys.items() if times > LETTERS_AT_MOST]
    found += [f"{times} dead letters of {_shown(body)}" for body, times in bodies.items() if times > LETTERS_AT_MOST]
    found += [f"no dead letter of {key}" for key in record.dead if key not in keys]
    found += [f"no dead letter of {_shown(body)}" for body in record.dead_bodies if body not in bodies]
    return found


def _judge_requests(stage: Stage) -> list[str]:
    return [] if comparing.is_captured(stage) else ["the last history capture did not cover every file"]


def _judge_log(stage: Stage) -> list[str]:
    found = comparing.applied_twice(stage, "new", "late")
    for process in stage.processes:
        for line in process.output().splitlines():
            if '"event": "everything fails"' in line:
                found.append(f"a consumer gave up: {line[:500]}")
            elif '"event": "unexpected"' in line and _FOR_TOO_LONG not in line:
                found.append(f"a hole: {json.loads(line).get('exception', line)[-600:]}")
    return found


def _is_allowed(reason: object, reasons: tuple[str, ...]) -> bool:
    return reason in reasons if reasons else reason != _UNEXPECTED


def _shown(body: bytes) -> str:
    return repr(body[:60]) + (f"… of {len(body)} bytes" if len(body) > 60 else "")

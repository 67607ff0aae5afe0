"""What has to be true at the end, whatever happened: nothing lost, nothing twice; compared with a model of its own."""

import hashlib
from collections import Counter

from consumer.demo.oracle import ChangeFile, Oracle, foretell
from tests.soak.plan import Plan
from tests.stage import comparing
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE
from tests.stage.comparing import Verdict, etag
from tests.stage.stage import Stage
from tests.stage.store import CHANGES, PROCESSED


def judge(stage: Stage, plan: Plan) -> Verdict:
    """Compare everything; nothing may be running any more."""
    verdict = Verdict()
    expected = foretell(plan.good)
    _judge_tables(stage, expected, verdict)
    _judge_ledger(stage, plan, verdict)
    _judge_bucket(stage, plan, verdict)
    _judge_follow_ons(stage, verdict)
    _judge_letters(stage, plan, verdict)
    verdict.twice += comparing.applied_twice(stage, "new", "late", "changed")
    verification = stage.start("verify", "--content", "--old", "0", "--json")
    if (status := verification.wait(600)) != 0:
        verdict.wrong.append(f"verify --content ended with {status}: {verification.output()}")
    return verdict


def _judge_tables(stage: Stage, expected: Oracle, verdict: Verdict) -> None:
    verdict.compare("ticket", comparing.tickets(stage), expected.tickets())
    verdict.compare("closure", comparing.closures(stage), expected.closures())
    verdict.compare_names("reject", comparing.rejects(stage), expected.rejects.keys())
    verdict.compare_sums("", comparing.sums(stage), expected.sums())
    kept = {"kept rejects": stage.one("SELECT count(*) FROM ingest.rejects")}
    verdict.compare_sums("", kept, {"kept rejects": expected.sums()["rows_rejected"]})


def _judge_ledger(stage: Stage, plan: Plan, verdict: Verdict) -> None:
    rows = stage.query("SELECT * FROM ingest.ledger")
    applied = {(row["key"], row["etag"]): row for row in rows if row["applied_at"] is not None}
    for file in plan.good:
        row = applied.get((file.key, etag(file.body)))
        if row is None:
            verdict.lost.append(f"{file.key}, version {file.version}: no row of the ledger has it as applied")
        elif (row["state"], row["sha256"]) != ("done", hashlib.sha256(file.body).hexdigest()):
            verdict.wrong.append(f"{file.key}: {row['state']}, sha256 {row['sha256']}")
        elif row["attempts"]:
            verdict.wrong.append(f"{file.key}: {row['attempts']} attempts were spent, {row['last_error']}")
    good = {(file.key, etag(file.body)) for file in plan.good}
    verdict.twice += [f"{key}, etag {tag}: applied, and never put" for key, tag in applied if (key, tag) not in good]
    dead = {row["key"] for row in rows if row["state"] == "failed" and row["dead_lettered_at"]}
    verdict.lost += [f"{key}: bad, and not recorded as a dead letter" for key in sorted(plan.bad - dead)]
    verdict.wrong += [f"{key}: a dead letter, and not bad" for key in sorted(dead - plan.bad - plan.mended)]
    known = {file.key for file in plan.good} | plan.bad
    verdict.lost += [f"{key}: no row of the ledger" for key in sorted(known - {row["key"] for row in rows})]


def _judge_bucket(stage: Stage, plan: Plan, verdict: Verdict) -> None:
    archive = stage.bucket.read_all(PROCESSED)
    wanted = {archive_of(file, plan.mended): file.body for file in plan.good}
    for name, body in wanted.items():
        if archive.get(name) != body:
            verdict.lost.append(f"{name}: {'other bytes' if name in archive else 'not in the bucket'}")
    verdict.twice += [f"{name}: in the archive, from no file" for name in sorted(archive.keys() - wanted.keys())]
    waiting = set(stage.waiting())
    verdict.wrong += [f"{key}: still in changes/" for key in sorted(waiting - plan.bad)]
    verdict.lost += [f"{key}: bad, and no longer in changes/" for key in sorted(plan.bad - waiting)]


def archive_of(file: ChangeFile, mended: set[str]) -> str:
    """Where a file has to be archived: the plain name, and for one after another that was archived, a suffix."""
    plain = file.key.replace(CHANGES, PROCESSED)
    if file.version == 0 or file.key in mended:
        return plain
    return f"{plain.removesuffix('.csv')}~{hashlib.sha256(file.body).hexdigest()[:12]}.csv"


def _judge_follow_ons(stage: Stage, verdict: Verdict) -> None:
    requests = stage.query("SELECT request_id, kind, sent_at, handled_at FROM ingest.outbox ORDER BY 1")
    # Whoever takes a message does what is asked for by then, so one stands for all.
    waits = stage.broker.messages(GEOCODE)
    for request in requests:
        number = request["request_id"]
        if request["kind"] == "history" and request["handled_at"] is None:
            verdict.lost.append(f"history request {number} was never handled")
        if request["kind"] == "geocode" and (request["sent_at"] is None or not waits):
            verdict.lost.append(f"geocode request {number} has no message that stands for it")
    rows = stage.query(
        """SELECT key FROM ingest.ledger AS file WHERE rows_inserted + rows_updated > 0
           AND (SELECT count(*) FROM ingest.outbox AS request WHERE request.file_id = file.file_id) <> 2"""
    )
    verdict.wrong += [f"{row['key']}: changed tickets, and has not one request of each kind" for row in rows]
    if not comparing.is_captured(stage):
        verdict.lost.append("the last history capture did not cover every file")


def _judge_letters(stage: Stage, plan: Plan, verdict: Verdict) -> None:
    letters = Counter(str(message.headers.get("fleettickets-key")) for message in stage.broker.messages(DEAD_FILES))
    verdict.lost += [f"{key}: bad, and no dead letter" for key in sorted(plan.bad - letters.keys())]
    verdict.wrong += [f"{key}: a dead letter of a good file" for key in sorted(letters.keys() - plan.bad)]
    if left := stage.broker.ready(FILES):
        verdict.wrong.append(f"{left} deliveries are left in the queue")

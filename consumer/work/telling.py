"""What became of deliveries of files, told to the log and counted: one line and one count for each."""

from dataclasses import asdict, fields
from datetime import UTC, datetime
from time import monotonic
from typing import Any, assert_never

import structlog

from consumer.files.outcomes import (
    AlreadyApplied,
    Applied,
    Duplicate,
    Failure,
    FileOutcome,
    Ignored,
    Missing,
    NotServed,
    Spread,
)
from consumer.files.versions import Counts
from publisher import metrics
from publisher.spans import Span

ROW_OUTCOMES = tuple(count.name for count in fields(Counts) if count.name not in {"read", "closures", "never"})
"""What of the counts is of rows, and not of all of them."""
_TOLD = ("key", "file_id", "feed", "decision")
"""What a span of a delivery has of its line."""
log = structlog.get_logger()


def tell_file(
    outcome: FileOutcome, span: Span, *, redelivered: bool, began: float, archive_key: str | None = None
) -> None:
    """Of a delivery that is done; it was begun when the monotonic clock said `began`."""
    described = _describe(outcome)
    if isinstance(outcome, Applied):
        described |= {"lag_s": round(outcome.lag_seconds, 3), "feed": outcome.sighting.feed.name}
    span.tell({f"fleettickets.{name}": described[name] for name in _TOLD if described.get(name)})
    metrics.FILES.labels(described["decision"]).inc()
    match outcome:
        case Applied():
            _count_applied(outcome, span)
        case Failure():
            _tell_failure(outcome, span, redelivered=redelivered)
            return
    log.info(
        "file",
        redelivered=redelivered,
        seconds=round(monotonic() - began, 3),
        **described,
        **({"archive_key": archive_key} if archive_key else {}),
    )


def tell_failed(queue: str, failure: Failure, span: Span) -> None:
    """Of a message that failed outside any file."""
    _tell_failure(failure, span, queue=queue)


def _tell_failure(failure: Failure, span: Span, **also: object) -> None:
    """By what becomes of it: a person has to look, it is tried again, or it waits for what is in everybody's way."""
    outcome = "held" if failure.is_held else "dead letter" if failure.retry_in is None else "retry"
    metrics.FAILURES.labels(failure.reason, outcome).inc()
    span.fail(failure.reason)
    log.warning(outcome, **also, **_describe(failure))


def _count_applied(applied: Applied, span: Span) -> None:
    sighting, feed = applied.sighting, applied.sighting.feed.name
    metrics.BYTES.labels(feed).inc(sighting.size)
    metrics.ARRIVALS.labels(feed, sighting.seen_by).inc()
    for outcome in ROW_OUTCOMES:
        metrics.ROWS.labels(feed, outcome).inc(getattr(applied.counts, outcome))
    for rule, rows in applied.rejects.items():
        metrics.REJECTS.labels(feed, rule).inc(rows)
    metrics.LAG.labels(feed).observe(applied.lag_seconds)
    times = {
        "opened": applied.opened_at, "staged": applied.staged_at, "committed": applied.committed_at,
        "archived": datetime.now(UTC),
    }  # fmt: skip
    before = sighting.seen_at
    for stage, at in times.items():
        metrics.STAGES.labels(stage).observe(max(0.0, (at - before).total_seconds()))
        span.stage(stage, before, at)
        before = at


def _describe(outcome: FileOutcome) -> dict[str, Any]:
    match outcome:
        case Applied(file, decision, counts, notes):
            told = {"notes": dict(notes)} if notes else {}
            return {"key": file.key, "file_id": file.file_id, "decision": decision, **asdict(counts), **told}
        case AlreadyApplied(file):
            return {
                "key": file.key,
                "file_id": file.file_id,
                "decision": "duplicate",
                "reason": f"was {file.state}",
            }
        case Duplicate(key, reason):
            return {"key": key, "decision": "duplicate", "reason": reason}
        case Ignored(reason, key):
            return {"key": key, "decision": "ignored", "reason": reason}
        case NotServed(key):
            return {"key": key, "decision": "not served"}
        case Missing(key):
            return {"key": key, "decision": "missing"}
        case Spread(arrivals):
            return {"decision": "spread", "count": arrivals}
        case Failure(key, reason, detail, attempts):
            of_file = {"feed": outcome.feed, "file_id": outcome.file_id} if outcome.file_id is not None else {}
            return {
                "key": key, **of_file, "decision": "rejected", "reason": reason, "detail": detail,
                "attempts": attempts, "retry_in_s": outcome.retry_in,
            }  # fmt: skip
        case _:
            assert_never(outcome)

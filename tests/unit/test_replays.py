"""What a replay has come to, by what has changed in the ledger since."""

from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.upkeep.replays import outcome
from publisher.broker.replays import Fate

NOW = datetime(2026, 6, 25, 11, 20, tzinfo=UTC)
FAILED: dict[str, Any] = {
    "file_id": 1, "state": "failed", "decision": "rejected", "reason": "not UTF-8", "last_error": "near line 3",
    "retry_at": None, "applied_at": None, "dead_lettered_at": NOW, "rows_inserted": 0, "rows_updated": 0,
    "rows_rejected": 0, "mark": "before",
}  # fmt: skip


def other(number: int = 1, **values: object) -> dict[int, dict[str, Any]]:
    return {number: FAILED | {"file_id": number, "mark": "after"} | values}


@pytest.mark.parametrize(
    ("now", "fate", "detail"),
    [
        ({1: FAILED}, Fate.UNDECIDED, "nobody has decided"),
        (other(), Fate.FAILED, "not UTF-8: near line 3"),
        (other(retry_at=NOW), Fate.UNDECIDED, "tried again at 2026-06-25 14:20:00 EAT"),
        (other(2, state="seen", decision="undecided"), Fate.UNDECIDED, "in somebody's hand"),
        ({1: FAILED} | other(2, state="applied", decision="new", applied_at=NOW), Fate.APPLIED, "new, 0 new"),
        (other(state="done", decision="missing", reason="not in the bucket"), Fate.NOTHING, "not in the bucket"),
        (other(state="done", decision="changed", reason=None), Fate.NOTHING, "changed"),
    ],
)
def test_each_change_is_an_outcome(now: dict[int, dict[str, Any]], fate: Fate, detail: str) -> None:
    found = outcome({1: FAILED}, now)
    assert (found.fate, detail in found.detail) == (fate, True), found


def test_what_was_applied_before_is_not_applied_now() -> None:
    before = other(state="done", decision="new", applied_at=NOW, mark="before", reason="was applied before")
    repeated = other(state="done", decision="new", applied_at=NOW, reason="was applied before")
    assert outcome(before, repeated).fate is Fate.NOTHING

"""Which of a status is told, as what, and which of it is known to be over."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.upkeep.causes import causes, is_gone, lasting_seconds, look_seconds
from consumer.upkeep.judging import Judgement, Thresholds, Word
from consumer.upkeep.status import BrokerPart, LetterGroup, LetterGroups, QueueDepth, Status

LIMITS = Thresholds(stuck=60, missing=120, late=600, silent_times=6)
GROUP = LetterGroup(
    fingerprint="0a1b2c3d", feeds=["inc"], files=2, since=datetime(2026, 6, 25, tzinfo=UTC), reason="no ticket_id",
    last_error="the header is A,B", key="automations/inc/changes/2026-06-25T142000.csv",
)  # fmt: skip


def seen(word: Word = Word.FLOWING, leaving: int = 0, **parts: Any) -> Status:
    given = {"processes": None, "bucket": None, "broker": None, "database": None, "trouble": None, "faults": {}} | parts
    verdict = Judgement(word=word, line=f"{word}: line", advice="advice", exit=leaving)
    return Status.model_construct(verdict=verdict, **given)


def kept(*groups: LetterGroup, is_spent: bool = False) -> Any:
    """As much of it as is looked at."""
    letters = LetterGroups(files=sum(group.files for group in groups), oldest=list(groups))
    return SimpleNamespace(letter_groups=letters, geocoder_is_spent=is_spent)


def queues(files: int = 0, geocode: int = 0) -> BrokerPart:
    letters = {"files": files, "geocode": geocode}
    return BrokerPart(
        queues={name: QueueDepth(ready=0, consumers=1, dead_letters=dead) for name, dead in letters.items()}
    )


def names(status: Status) -> list[str]:
    return [cause.name for cause in causes(status, LIMITS)]


def test_nothing_is_told_of_what_flows() -> None:
    assert names(seen(trouble=kept(), broker=queues())) == []
    assert names(seen(Word.LATE, 0)) == []


@pytest.mark.parametrize("word", [word for word in Word if word is not Word.FLOWING])
def test_every_verdict_that_ends_otherwise_is_one_cause(word: Word) -> None:
    (cause,) = causes(seen(word, 3), LIMITS)
    assert (cause.name, cause.line, cause.advice) == (f"verdict {word}", f"{word}: line", "advice")
    is_of_parts = word in {Word.COULD_NOT_LOOK, Word.WRONG_SCHEMA}
    assert cause.after_seconds == (300 if is_of_parts else 30)


def test_a_group_of_letters_is_one_cause_and_what_no_file_has_is_another() -> None:
    (cause,) = causes(seen(trouble=kept(GROUP), broker=queues(files=2)), LIMITS)
    assert (cause.name, cause.after_seconds, cause.began_at) == ("letters 0a1b2c3d", 0, GROUP.since)
    assert cause.line == (
        "DEAD LETTERS: 2 files of inc failed: no ticket_id: the header is A,B; the first is "
        "automations/inc/changes/2026-06-25T142000.csv"
    )
    found = names(seen(trouble=kept(GROUP), broker=queues(files=3, geocode=1)))
    assert found == ["letters 0a1b2c3d", "letters of files", "letters of geocode"]


def test_a_quota_that_is_spent_is_one() -> None:
    assert names(seen(trouble=kept(is_spent=True))) == ["quota"]


@pytest.mark.parametrize(
    ("name", "status", "gone"),
    [
        ("verdict STUCK", seen(), True),
        ("verdict STUCK", seen(Word.STUCK, 3), False),
        ("verdict STUCK", seen(Word.LATE, 3), True),
        ("verdict SILENT", seen(Word.STUCK, 3), False),
        ("verdict STUCK", seen(Word.PAUSED, 3), False),
        ("verdict PAUSED", seen(Word.STUCK, 3), True),
        ("verdict STUCK", seen(Word.COULD_NOT_LOOK, 1, faults={"broker": "away"}), False),
        ("verdict COULD NOT LOOK", seen(Word.STUCK, 3, faults={"broker": "away"}), False),
        ("verdict COULD NOT LOOK", seen(Word.STUCK, 3), True),
        ("verdict WRONG SCHEMA", seen(), True),
        ("verdict LATE", seen(Word.LATE, 0), True),
        ("letters 0a1b2c3d", seen(trouble=kept(GROUP)), False),
        ("letters 0a1b2c3d", seen(trouble=kept()), True),
        ("letters 0a1b2c3d", seen(), False),
        ("letters of files", seen(trouble=kept()), False),
        ("letters of files", seen(trouble=kept(), broker=queues()), True),
        ("quota", seen(trouble=kept()), True),
        ("quota", seen(), False),
    ],
)
def test_what_is_over_and_what_is_not_known_to_be(name: str, status: Status, gone: bool) -> None:
    assert is_gone(name, status, causes(status, LIMITS)) is gone


def test_who_looks_does_so_within_half_of_what_is_too_long() -> None:
    assert (look_seconds(LIMITS), lasting_seconds(LIMITS)) == (30, 300)
    brief, slow = Thresholds(0.2, 120, 600, 6), Thresholds(3600, 120, 600, 6)
    assert (look_seconds(brief), look_seconds(slow)) == (0.5, 30)

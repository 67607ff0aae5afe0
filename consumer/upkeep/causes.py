"""What of a status somebody is to be told of who does not look: each cause by a name that stays while it does.

The judging is that of `status`. Here is only which of it is one thing that goes on, and which is known to be over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumer.upkeep.judging import FLOWS, HIDES, Thresholds, Word
from consumer.upkeep.status import LetterGroup, Status
from publisher.broker.topology import Queue

_LOOK_SECONDS = (0.5, 30.0)
_LASTING_TIMES = 5
_VERDICT, _LETTERS, _LETTERS_OF, _QUOTA = "verdict ", "letters ", "letters of ", "quota"
_OF_PARTS = {_VERDICT + Word.COULD_NOT_LOOK, _VERDICT + Word.WRONG_SCHEMA}
_ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that is wrong: told once it was so for `after_seconds`. It began at the latest when first seen."""

    name: str
    line: str
    advice: str
    after_seconds: float
    began_at: datetime | None = None


def look_seconds(limits: Thresholds) -> float:
    """How often to look: a verdict of something stuck needs twice as long to come about."""
    least, most = _LOOK_SECONDS
    return min(most, max(least, limits.stuck / 2))


def lasting_seconds(limits: Thresholds) -> float:
    """What comes and goes faster than that is one thing that goes on."""
    return _LASTING_TIMES * limits.stuck


def causes(status: Status, limits: Thresholds) -> list[Cause]:
    """Everything that is wrong now, as far as it could be seen."""
    return [*_of_verdict(status, limits), *_of_letters(status, limits), *_of_quota(status, limits)]


def is_gone(name: str, status: Status, found: Sequence[Cause]) -> bool:
    """Whether a cause of before is known not to be so any more. What could not be looked at is not known."""
    if any(cause.name == name for cause in found):
        return False
    if name in _OF_PARTS:
        return not status.faults
    if name.startswith(_VERDICT):
        word = status.verdict.word
        hidden = HIDES.get(word, frozenset()) if status.verdict.exit != FLOWS else frozenset()
        return not status.faults and name.removeprefix(_VERDICT) not in hidden
    if name.startswith(_LETTERS_OF):
        return status.broker is not None and status.trouble is not None
    return status.trouble is not None


def _of_verdict(status: Status, limits: Thresholds) -> Iterator[Cause]:
    verdict = status.verdict
    if verdict.exit == FLOWS:
        return
    name = _VERDICT + verdict.word
    # An upgrade migrates first, and a service that is restarted does not answer for a while.
    after = lasting_seconds(limits) if name in _OF_PARTS else look_seconds(limits)
    yield Cause(name, verdict.line, verdict.advice, after)


def _of_letters(status: Status, limits: Thresholds) -> Iterator[Cause]:
    if status.trouble is None:
        return
    for group in status.trouble.letter_groups.oldest:
        yield _of_group(group)
    for queue, depth in status.broker.queues.items() if status.broker else ():
        unknown = depth.dead_letters - (status.trouble.letter_groups.files if queue == Queue.FILES else 0)
        if unknown > 0:
            letters = "1 dead letter" if unknown == 1 else f"{unknown} dead letters"
            yield Cause(
                _LETTERS_OF + queue,
                f"DEAD LETTERS: {letters} of {queue} that the ledger has no file of",
                f"fleettickets dead-letters list --queue {queue} says why; mend that, then replay or discard them",
                lasting_seconds(limits),  # one whose file was mended, or is not recorded yet, goes by itself
            )


def _of_group(group: LetterGroup) -> Cause:
    files = "1 file" if group.files == 1 else f"{group.files} files"
    error = ": ".join(filter(None, (group.reason, group.last_error)))[:_ERROR_CHARACTERS]
    return Cause(
        _LETTERS + group.fingerprint,
        f"DEAD LETTERS: {files} of {', '.join(group.feeds)} failed: {error}; the first is {group.key}",
        f"fleettickets explain {group.key}; mend the cause, then fleettickets dead-letters replay --group "
        f"{group.fingerprint}, or discard --group {group.fingerprint} with a reason",
        after_seconds=0,
        began_at=group.since,
    )


def _of_quota(status: Status, limits: Thresholds) -> Iterator[Cause]:
    if status.trouble is not None and status.trouble.geocoder_is_spent:
        yield Cause(
            _QUOTA,
            "QUOTA SPENT: the geocoder is asked nothing more today; new places wait",
            "nothing: it goes on by itself after 00:00 UTC. If that is each day: a larger plan, then GEOCODER_PER_DAY",
            look_seconds(limits),
        )

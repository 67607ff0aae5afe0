"""One verdict out of all that `status` found: whether files flow, and if not, why, and what to do. Pure.

The verdicts stand in the order in which they are asked for; the first that is so is told. What is stuck or paused is
told by whatever answered, also where something else did not; for the others everything has to have answered.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from publisher.errors import WrongSchema
from publisher.heartbeat import PausedBy, ProcessKind
from publisher.terminal import duration

FLOWS, LOOKED_IN_VAIN, DOES_NOT_FLOW = 0, 1, 3
"""Exit statuses."""
PACE_SECONDS = 60
"""Over which rates are taken."""
_LONG_TIMES = 10
"""So many times as long as others are given: a file in hand for that long is stuck although others get along."""
_BROUGHT = 3
"""Files in a row of which no notification told: of one it may have got lost."""
_PAUSES, _SPAN_SECONDS = 10, 86_400
"""What is needed of the past to know an exporter's rhythm."""
_LONGEST_TIMES = 1.25
_SHOWN_SILENT = 3


class Word(StrEnum):
    """How it stands, in a word."""

    FLOWING = "FLOWING"
    LATE = "LATE"
    STUCK = "STUCK"
    PAUSED = "PAUSED"
    SILENT = "SILENT"
    NOT_ANNOUNCED = "NOT ANNOUNCED"
    WRONG_SCHEMA = "WRONG SCHEMA"
    COULD_NOT_LOOK = "COULD NOT LOOK"


class Judgement(BaseModel):
    """What is so, and what to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: Word
    line: str = Field(description="Begins with the word.")
    advice: str
    exit: int = Field(description="0: files flow; 1: it could not be seen; 3: somebody has to look.")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on it is what, in seconds; `silent_times` is a multiple of the exporter's usual pause."""

    stuck: float
    missing: float
    late: float
    silent_times: float


@dataclass(frozen=True, slots=True)
class ProcessSeen:
    """What a process last said of itself, so many seconds ago."""

    kind: ProcessKind
    host: str
    pid: int
    queues: Sequence[str]
    beat_seconds: float
    in_hand: str | None = None
    in_hand_seconds: float | None = None
    paused_by: PausedBy | None = None
    paused_why: str | None = None
    paused_seconds: float | None = None
    settled_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Backlogged:
    """Files that wait and would be applied now; `fresh` ones came within PACE_SECONDS."""

    files: int
    oldest_seconds: float = 0
    oldest_key: str | None = None
    fresh: int = 0
    newest_seconds: Mapping[str, float] = field(default_factory=dict)
    """Of each feed that has some: since it sent the last of them."""


@dataclass(frozen=True, slots=True)
class FilesQueue:
    """What the broker says of it."""

    ready: int
    consumers: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Files that were applied within PACE_SECONDS, and those of them that came within them as well."""

    applied: int = 0
    arrived: int = 0
    applied_seconds: float | None = None
    """Since the last one ever."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a feed's exporter sends; none of it is known on the first day."""

    pauses: int
    usual_seconds: float | None
    longest_seconds: float | None
    span_seconds: float | None
    silent_seconds: float | None


@dataclass(frozen=True, slots=True)
class Announced:
    """Since when no notification told of a file, and how many files the poller brought of those that came since."""

    seconds: float
    by_poller: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found; None of what did not answer, and why in `faults`, by the name of the part."""

    faults: Mapping[str, str] = field(default_factory=dict)
    wrong_schema: WrongSchema | None = None
    """Nothing of this version can be started on such a database, and nothing of it was read."""
    backlog: Backlogged | None = None
    queue: FilesQueue | None = None
    processes: Sequence[ProcessSeen] | None = None
    locks: Sequence[str] = ()
    """Who has locks that sessions of ours wait for now."""
    pace: Pace | None = None
    rhythms: Mapping[str, Rhythm] = field(default_factory=dict)
    announced: Announced | None = None


def judge(facts: Facts, limits: Thresholds) -> Judgement:
    """The first verdict that is so."""
    return next(filter(None, (verdict(_Case(facts, limits)) for verdict in _IN_ORDER)))


class _Case:
    """What follows from the facts at once."""

    def __init__(self, facts: Facts, limits: Thresholds) -> None:
        self.facts = facts
        self.limits = limits
        seen = facts.processes or ()
        self.consumers = [one for one in seen if one.kind is ProcessKind.CONSUMER and "files" in one.queues]
        self.living = [one for one in seen if one.beat_seconds < limits.missing]
        self.silent = [one for one in seen if one.beat_seconds >= limits.missing]

    @property
    def waits(self) -> bool:
        """Whether a file has waited for longer than it should."""
        return self.facts.backlog is not None and self.facts.backlog.files > 0 and self.oldest >= self.limits.stuck

    @property
    def oldest(self) -> float:
        """Seconds; a store whose clock is ahead has files of the future."""
        return max(0.0, self.facts.backlog.oldest_seconds) if self.facts.backlog else 0.0

    @property
    def idle(self) -> float | None:
        """Seconds since anybody was done with anything, as far as is known."""
        ages = [one.settled_seconds for one in self.consumers]
        ages.append(self.facts.pace.applied_seconds if self.facts.pace else None)
        return min((max(0.0, age) for age in ages if age is not None), default=None)

    @property
    def stands(self) -> bool:
        """Whether files wait, and nothing has been done with any for too long."""
        return self.waits and (self.idle is None or self.idle >= self.limits.stuck)

    def name(self, process: ProcessSeen) -> str:
        """Which one it is of those of its kind, the oldest being the first."""
        alike = [one for one in self.facts.processes or () if one.kind is process.kind]
        number = f" {alike.index(process) + 1}" if len(alike) > 1 else ""
        return f"{process.kind}{number} ({process.host}, pid {process.pid})"


def _wrong_schema(case: _Case) -> Judgement | None:
    wrong = case.facts.wrong_schema
    return _not_flowing(Word.WRONG_SCHEMA, f"the database {wrong.found}", wrong.advice) if wrong else None


def _everything_fails(case: _Case) -> Judgement | None:
    for one in case.living:
        if one.paused_by is PausedBy.EVERYTHING_FAILS:
            return _not_flowing(
                Word.PAUSED,
                f"everything fails: {one.paused_why}; {case.name(one)}, for {duration(one.paused_seconds)}",
                "mend what it says, which is in none of the files; then it goes on by itself, and no attempt was spent",
            )
    return None


def _without_service(case: _Case) -> Judgement | None:
    for one in case.living:
        # Without the store nobody can say what waits there; what the consumer has in hand does.
        is_missed = case.stands or _old(one.in_hand_seconds, case.limits.stuck)
        if one.paused_by is PausedBy.AWAY and is_missed and _old(one.paused_seconds, case.limits.stuck):
            return _not_flowing(
                Word.PAUSED,
                f"{one.paused_why}; {case.name(one)} waits for it, for {duration(one.paused_seconds)}",
                "bring it back, then it goes on by itself, with no attempt spent; what is wrong: fleettickets doctor",
            )
    return None


def _no_consumer(case: _Case) -> Judgement | None:
    if case.facts.queue is None or case.facts.queue.consumers or not case.stands:
        return None
    gone = min(case.consumers, key=lambda one: one.beat_seconds, default=None)
    last = f"; the last sign of {case.name(gone)} is {duration(gone.beat_seconds)} old" if gone else ""
    return _not_flowing(Word.STUCK, f"no consumer{last}; {_waiting(case)}", "start one: fleettickets consume")


def _stopped(case: _Case) -> Judgement | None:
    """A consumer that the broker still gives files to, and which says nothing any more."""
    silent = [one for one in case.consumers if one in case.silent]
    living = [one for one in case.consumers if one in case.living]
    if not silent or case.facts.queue is None or case.facts.queue.consumers <= len(living):
        return None
    one = min(silent, key=lambda one: one.beat_seconds)
    has = f", with {one.in_hand} in hand" if one.in_hand else ""
    return _not_flowing(
        Word.STUCK,
        f"{case.name(one)} has given no sign for {duration(one.beat_seconds)}{has}",
        "it stands still, or cannot reach the database: look at its log, and end it, by kill -9 if need be; "
        "what it has in hand goes to others then",
    )


def _in_hand(case: _Case) -> Judgement | None:
    held = [one for one in case.consumers if one in case.living and one.in_hand is not None]
    for one in sorted(held, key=lambda one: -(one.in_hand_seconds or 0)):
        others_get_along = case.idle is not None and case.idle < case.limits.stuck
        limit = case.limits.stuck * (_LONG_TIMES if others_get_along else 1)
        if _old(one.in_hand_seconds, limit):
            told = f"{case.name(one)} has had {one.in_hand} in hand for {duration(one.in_hand_seconds)}"
            return (
                _behind_lock(case, one, told)
                or _behind_fault(case, told)
                or _not_flowing(
                    Word.STUCK,
                    told,
                    "a file of hundreds of MB takes minutes; else see its log, and end it: the file goes to another",
                )
            )
    return None


def _locked_out(case: _Case) -> Judgement | None:
    """A consumer that puts files aside again and again for a lock that somebody has."""
    for one in case.consumers:
        if one in case.living and case.stands and _old(one.paused_seconds, case.limits.stuck):
            told = f"{case.name(one)} gets nowhere for {duration(one.paused_seconds)}; {_waiting(case)}"
            if found := _behind_lock(case, one, told):
                return found
    return None


def _behind_lock(case: _Case, one: ProcessSeen, told: str) -> Judgement | None:
    if one.paused_by is not PausedBy.LOCK and not case.facts.locks:
        return None
    holder = f", waits for a lock held by {case.facts.locks[0]}" if case.facts.locks else f"; {one.paused_why}"
    advice = "have that session end its transaction, or end it: SELECT pg_terminate_backend(pid)"
    return _not_flowing(Word.STUCK, f"{told}{holder}", advice)


def _behind_fault(case: _Case, told: str) -> Judgement | None:
    """What does not answer us hardly answers the consumer, and nobody is helped by ending that."""
    for part in ("bucket", "database"):
        if fault := case.facts.faults.get(part):
            return _not_flowing(
                Word.STUCK,
                f"{told}; {part}: {fault}",
                "bring that back, then it goes on by itself; what is wrong with it: fleettickets doctor",
            )
    return None


def _at_a_stand(case: _Case) -> Judgement | None:
    facts = case.facts
    if not case.stands or facts.queue is None or facts.processes is None or facts.pace is None:
        return None
    if facts.queue.ready == 0 and not any(one.kind is ProcessKind.POLLER for one in case.living):
        return _not_flowing(
            Word.NOT_ANNOUNCED,
            f"{_waiting(case)}, no message tells of it, and no poller is at work",
            "fleettickets poll brings them, as one in cron will, and poll --every 60 stays; fleettickets notifications",
        )
    since = f"for {duration(case.idle)}" if case.idle is not None else "yet"
    return _not_flowing(
        Word.STUCK,
        f"nothing was applied {since}; {_waiting(case)}, and there is a consumer",
        f"fleettickets explain {facts.backlog.oldest_key if facts.backlog else 'KEY'}; and look at the consumer's log",
    )


def _could_not_look(case: _Case) -> Judgement | None:
    if not case.facts.faults:
        return None
    told = "; ".join(f"{part}: {fault}" for part, fault in case.facts.faults.items())
    return Judgement(
        word=Word.COULD_NOT_LOOK,
        line=f"{Word.COULD_NOT_LOOK}: {told}",
        advice="fleettickets doctor says of each dependency what is wrong with it",
        exit=LOOKED_IN_VAIN,
    )


def _too_late(case: _Case) -> Judgement | None:
    return _late(case) if case.oldest >= case.limits.late else None


def _not_announced(case: _Case) -> Judgement | None:
    found = case.facts.announced
    # While a backlog is worked off, the notifications of what came last are behind it.
    if found is None or case.waits or found.by_poller < _BROUGHT or found.seconds < case.limits.stuck:
        return None
    return _not_flowing(
        Word.NOT_ANNOUNCED,
        f"no notification for {duration(found.seconds)}, the poller brings files",
        "nothing is lost, only later; what the bucket announces: fleettickets notifications, and doctor",
    )


def _silent(case: _Case) -> Judgement | None:
    for feed, rhythm in case.facts.rhythms.items():
        usual, silent = rhythm.usual_seconds, rhythm.silent_seconds
        is_known = rhythm.pauses >= _PAUSES and (rhythm.span_seconds or 0) >= _SPAN_SECONDS
        if usual is None or silent is None or not is_known:
            continue
        waiting = case.facts.backlog.newest_seconds.get(feed) if case.facts.backlog else None
        silent = min(silent, silent if waiting is None else waiting)
        longest = (rhythm.longest_seconds or 0) * _LONGEST_TIMES
        if silent > max(case.limits.silent_times * usual, longest):
            whose = f"the exporter of {feed}" if len(case.facts.rhythms) > 1 else "the exporter"
            return _not_flowing(
                Word.SILENT,
                f"{whose} has sent nothing for {duration(silent)}, usually every {duration(usual)}",
                "ask whoever runs the exporter; all that it sent is applied",
            )
    return None


def _late(case: _Case) -> Judgement | None:
    backlog, pace = case.facts.backlog, case.facts.pace
    if not case.waits or backlog is None or pace is None:
        return None
    into, out = (pace.arrived + backlog.fresh) / PACE_SECONDS, pace.applied / PACE_SECONDS
    when = f"done in {duration(backlog.files / (out - into))}" if out > into else "and it grows"
    is_bad = case.oldest >= case.limits.late
    if case.facts.queue is None:  # not asked: of one that did not answer something else was told
        advice = "drain --apply brings them: see that the timer or crontab which runs it still does"
    else:
        advice = _late_advice(is_worked_off=out > into)
    return Judgement(
        word=Word.LATE,
        line=f"{Word.LATE} {duration(case.oldest)}: {backlog.files} wait, {_rate(into)} in, {_rate(out)} out, {when}",
        advice=advice,
        exit=DOES_NOT_FLOW if is_bad else FLOWS,
    )


def _late_advice(*, is_worked_off: bool) -> str:
    return (
        "it will be through with it by itself; more consumers make it faster: fleettickets consume"
        if is_worked_off
        else "start more consumers, or give each more in hand (FLEETTICKETS_FILES_IN_HAND): fleettickets consume"
    )


def _flowing(case: _Case) -> Judgement:
    files = case.facts.backlog.files if case.facts.backlog else 0
    told = [f"{files} wait, the oldest for {duration(case.oldest)}" if files else "nothing waits"]
    if case.facts.pace and case.facts.pace.applied_seconds is not None:
        told.append(f"the last file was applied {duration(max(0.0, case.facts.pace.applied_seconds))} ago")
    advice = list(_worth_knowing(case))
    return Judgement(
        word=Word.FLOWING,
        line=f"{Word.FLOWING}: {', '.join(told)}",
        advice="; ".join(advice) or "nothing to do",
        exit=FLOWS,
    )


def _worth_knowing(case: _Case) -> Iterable[str]:
    queue = case.facts.queue
    if queue and not queue.consumers:
        yield "no consumer runs, and what comes will wait: fleettickets consume"
    if queue and queue.dead_letters:
        yield f"{queue.dead_letters} dead letters: fleettickets dead-letters list"
    for one in sorted(case.silent, key=lambda one: one.beat_seconds)[:_SHOWN_SILENT]:
        yield f"no sign of {case.name(one)} for {duration(one.beat_seconds)}: if it has died, its row goes within a day"


_IN_ORDER: Sequence[Callable[[_Case], Judgement | None]] = (
    _wrong_schema,
    _everything_fails,
    _without_service,
    _no_consumer,
    _stopped,
    _in_hand,
    _locked_out,
    _could_not_look,
    _at_a_stand,
    _too_late,
    _not_announced,
    _silent,
    _late,
    _flowing,
)

HIDES: Mapping[Word, frozenset[Word]] = {
    Word.PAUSED: frozenset({Word.STUCK, Word.NOT_ANNOUNCED, Word.LATE, Word.SILENT}),
    Word.STUCK: frozenset({Word.NOT_ANNOUNCED, Word.LATE, Word.SILENT}),
    Word.NOT_ANNOUNCED: frozenset({Word.LATE, Word.SILENT}),
    Word.LATE: frozenset({Word.NOT_ANNOUNCED, Word.SILENT}),
}
"""Where all parts answered: what may be so as well behind what is told, since it is asked for later."""


def _not_flowing(word: Word, told: str, advice: str) -> Judgement:
    return Judgement(word=word, line=f"{word}: {told}", advice=advice, exit=DOES_NOT_FLOW)


def _waiting(case: _Case) -> str:
    backlog = case.facts.backlog
    if backlog is None:
        return "files wait"
    files = "1 file waits" if backlog.files == 1 else f"{backlog.files} files wait"
    return f"{files}, the oldest for {duration(case.oldest)}"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}/s" if per_second >= 1 else f"{per_second * 60:.0f}/min"


def _old(seconds: float | None, limit: float) -> bool:
    return seconds is not None and seconds >= limit

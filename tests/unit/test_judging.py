"""One verdict out of the facts: which, in which order, and that each says what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from consumer.upkeep.judging import (
    Announced,
    Backlogged,
    Facts,
    FilesQueue,
    Pace,
    ProcessSeen,
    Rhythm,
    Thresholds,
    Word,
    judge,
)
from publisher.errors import WrongSchema
from publisher.heartbeat import PausedBy, ProcessKind

LIMITS = Thresholds(stuck=60, missing=120, late=600, silent_times=6)
KEY = "automations/inc/changes/2026-06-25T142000.csv"
HOUR, DAY = 3600.0, 86_400.0


def consumer(pid: int = 7, **more: Any) -> ProcessSeen:
    seen = ProcessSeen(ProcessKind.CONSUMER, "host", pid, ("files", "history"), beat_seconds=3, settled_seconds=5)
    return replace(seen, **more)


def poller(beat: float = 3) -> ProcessSeen:
    return ProcessSeen(ProcessKind.POLLER, "host", 9, (), beat_seconds=beat)


def waiting(seconds: float, files: int = 3, fresh: int = 0, **newest: float) -> Backlogged:
    return Backlogged(files, seconds, KEY, fresh, newest)


NOTHING = Backlogged(0)
GOOD = Facts(
    backlog=NOTHING, queue=FilesQueue(0, 1, 0), processes=[consumer()], pace=Pace(10, 10, 5.0),
    rhythms={"inc": Rhythm(100, 1200, 1800, 7 * DAY, 600)}, announced=Announced(20, 0),
)  # fmt: skip
STANDING = {"backlog": waiting(95), "pace": Pace(0, 0, 90)}
HELD = consumer(in_hand=KEY, in_hand_seconds=95, settled_seconds=100)
LOCKED: dict[str, Any] = {
    "paused_by": PausedBy.LOCK,
    "paused_why": "locks are held by admin",
    "paused_seconds": 95,
}
AWAY: dict[str, Any] = {"paused_by": PausedBy.AWAY, "paused_why": "bucket is not available", "paused_seconds": 95}
FAILING: dict[str, Any] = {
    "paused_by": PausedBy.EVERYTHING_FAILS,
    "paused_why": "it broke",
    "paused_seconds": 2,
}
OLD = consumer(settled_seconds=100)
STOPPED = consumer(beat_seconds=121, settled_seconds=125)
SILENCE = {"inc": Rhythm(100, 1200, 1800, 7 * DAY, 3 * HOUR)}

CASES: Sequence[tuple[str, Mapping[str, Any], str, int]] = [
    ("all is well", {}, "FLOWING: nothing waits, the last file was applied 5 s ago", 0),
    ("a file came just now", {"backlog": waiting(2, 1)}, "FLOWING: 1 wait, the oldest for 2 s", 0),
    ("nothing was ever applied", {"pace": Pace(), "rhythms": {}, "announced": None}, "FLOWING: nothing waits", 0),
    ("nothing waits, and no consumer", {"queue": FilesQueue(0, 0, 0), "processes": []}, "FLOWING: nothing waits", 0),
    (
        "no consumer, and one file came just now",
        {"queue": FilesQueue(1, 0, 0), "processes": [], "backlog": waiting(20), "pace": Pace(0, 0, 500)},
        "FLOWING: 3 wait, the oldest for 20 s",
        0,
    ),
    (
        "no consumer",
        {**STANDING, "queue": FilesQueue(3, 0, 0), "processes": []},
        "STUCK: no consumer; 3 files wait, the oldest for 95 s",
        3,
    ),
    (
        "the last consumer went a moment ago, in the middle of a backlog",
        {"queue": FilesQueue(3, 0, 0), "processes": [], "backlog": waiting(300), "pace": Pace(99, 0, 3)},
        "LATE 5 min: 3 wait, 0/min in, 2/s out, done in 2 s",
        0,
    ),
    (
        "the only consumer died",
        {**STANDING, "queue": FilesQueue(3, 0, 0), "processes": [STOPPED]},
        "STUCK: no consumer; the last sign of consumer (host, pid 7) is 2 min old",
        3,
    ),
    (
        "the consumer is stopped, and nothing waits",
        {"processes": [STOPPED]},
        "STUCK: consumer (host, pid 7) has given no sign for 2 min",
        3,
    ),
    (
        "the consumer is stopped with a file in hand",
        {**STANDING, "processes": [replace(STOPPED, in_hand=KEY, in_hand_seconds=130)]},
        f"STUCK: consumer (host, pid 7) has given no sign for 2 min, with {KEY} in hand",
        3,
    ),
    (
        "one of two consumers is stopped",
        {"queue": FilesQueue(0, 2, 0), "processes": [consumer(6), replace(STOPPED, pid=8)]},
        "STUCK: consumer 2 (host, pid 8) has given no sign for 2 min",
        3,
    ),
    (
        "one of two consumers died, and the broker knows it",
        {"queue": FilesQueue(0, 1, 0), "processes": [consumer(6), replace(STOPPED, pid=8)]},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "a consumer that cannot beat",
        {"queue": FilesQueue(0, 2, 0), "processes": [consumer()]},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "a file in hand for long",
        {**STANDING, "processes": [HELD]},
        f"STUCK: consumer (host, pid 7) has had {KEY} in hand for 95 s",
        3,
    ),
    (
        "a file in hand for long while others are done",
        {"processes": [HELD, consumer(8)], "queue": FilesQueue(0, 2, 0)},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "a file in hand for very long while others are done",
        {"processes": [replace(HELD, in_hand_seconds=700), consumer(8)], "queue": FilesQueue(0, 2, 0)},
        f"STUCK: consumer 1 (host, pid 7) has had {KEY} in hand for 12 min",
        3,
    ),
    (
        "a file in hand behind a lock",
        {**STANDING, "processes": [HELD], "locks": ["admin (pid 5, psql) on tickets.inc"]},
        f"STUCK: consumer (host, pid 7) has had {KEY} in hand for 95 s, waits for a lock held by admin (pid 5, psql)",
        3,
    ),
    (
        "a file in hand of a store that answers nobody",
        {
            "backlog": None,
            "pace": Pace(0, 0, 90),
            "processes": [HELD],
            "faults": {"bucket": "it has not answered for 5 s (store:443)"},
        },
        f"STUCK: consumer (host, pid 7) has had {KEY} in hand for 95 s; bucket: it has not answered for 5 s (store",
        3,
    ),
    (
        "a file in hand of a store that is away, and that cannot be looked at either",
        {
            "backlog": None,
            "pace": Pace(0, 0, 90),
            "processes": [replace(HELD, **AWAY)],
            "faults": {"bucket": "the bucket's store is not available"},
        },
        "PAUSED: bucket is not available; consumer (host, pid 7) waits for it, for 95 s",
        3,
    ),
    (
        "put aside for a lock again and again",
        {**STANDING, "processes": [replace(OLD, **LOCKED)]},
        "STUCK: consumer (host, pid 7) gets nowhere for 95 s; 3 files wait, the oldest for 95 s; locks are held by",
        3,
    ),
    (
        "a lock, and the tables cannot be looked at",
        {**STANDING, "faults": {"database": "locks are held by admin"}, "processes": [replace(OLD, **LOCKED)]},
        "STUCK: consumer (host, pid 7) gets nowhere for 95 s",
        3,
    ),
    (
        "a lock that was",
        {"processes": [consumer(**LOCKED)]},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "a service is away",
        {**STANDING, "processes": [replace(OLD, **AWAY)]},
        "PAUSED: bucket is not available; consumer (host, pid 7) waits for it, for 95 s",
        3,
    ),
    (
        "everything fails",
        {"processes": [consumer(**FAILING)]},
        "PAUSED: everything fails: it broke; consumer (host, pid 7), for 2 s",
        3,
    ),
    (
        "everything failed for one that is no more",
        {"processes": [replace(STOPPED, **FAILING), consumer(8)]},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "everything fails, and one stands still",
        {"processes": [consumer(6, **FAILING), STOPPED], "queue": FilesQueue(0, 2, 0)},
        "PAUSED: everything fails",
        3,
    ),
    (
        "the database is of another version",
        {
            "faults": {"database": "c"}, "wrong_schema": WrongSchema("is ahead", "go on"), "backlog": None,
            "processes": None, "pace": None, "rhythms": {}, "announced": None,
        },
        "WRONG SCHEMA: the database is ahead",
        3,
    ),
    (
        "the broker says nothing",
        {"queue": None, "faults": {"broker": "it has not answered for 5 s"}},
        "COULD NOT LOOK: broker: it has not answered for 5 s",
        1,
    ),
    (
        "nothing answers",
        {
            "faults": {"bucket": "a", "broker": "b", "database": "c"}, "backlog": None, "queue": None,
            "processes": None, "pace": None, "rhythms": {}, "announced": None,
        },
        "COULD NOT LOOK: bucket: a; broker: b; database: c",
        1,
    ),
    (
        "files wait that nobody tells of",
        {**STANDING, "processes": [OLD]},
        "NOT ANNOUNCED: 3 files wait, the oldest for 95 s, no message tells of it, and no poller is at work",
        3,
    ),
    (
        "files wait, and messages do",
        {**STANDING, "processes": [OLD], "queue": FilesQueue(3, 1, 0)},
        "STUCK: nothing was applied for 90 s; 3 files wait",
        3,
    ),
    (
        "files wait that a poller will bring",
        {**STANDING, "processes": [OLD, poller()]},
        "STUCK: nothing was applied for 90 s",
        3,
    ),
    (
        "files wait, and the poller stands still",
        {**STANDING, "processes": [OLD, poller(300)]},
        "NOT ANNOUNCED: 3 files wait",
        3,
    ),
    (
        "a backlog that gets less",
        {"backlog": waiting(120, 684, fresh=220), "pace": Pace(1800, 500, 1)},
        "LATE 2 min: 684 wait, 12/s in, 30/s out, done in 38 s",
        0,
    ),
    (
        "a backlog that grows",
        {"backlog": waiting(120, 684, fresh=720), "pace": Pace(600, 0, 1)},
        "LATE 2 min: 684 wait, 12/s in, 10/s out, and it grows",
        0,
    ),
    ("too late", {"backlog": waiting(660), "pace": Pace(60, 0, 1)}, "LATE 11 min: 3 wait", 3),
    (
        "late, and the exporter of the other feed is silent",
        {"backlog": waiting(120, crq=120), "rhythms": {**SILENCE, "crq": Rhythm(0, None, None, None, 30)}},
        "SILENT: the exporter of inc has sent nothing for 3 h, usually every 20 min",
        3,
    ),
    ("silent", {"rhythms": SILENCE}, "SILENT: the exporter has sent nothing for 3 h, usually every 20 min", 3),
    (
        "as silent as each night",
        {"rhythms": {"inc": Rhythm(100, 1200, 8 * HOUR, 7 * DAY, 9 * HOUR)}},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "silent on the first day",
        {"rhythms": {"inc": Rhythm(30, 1200, 1300, 10 * HOUR, 3 * HOUR)}},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "silent, with no past to speak of",
        {"rhythms": {"inc": Rhythm(9, 1200, 1300, 9 * DAY, 3 * HOUR)}},
        "FLOWING: nothing waits",
        0,
    ),
    (
        "silent until a moment ago",
        {"rhythms": SILENCE, "backlog": waiting(2, 1, inc=2)},
        "FLOWING: 1 wait",
        0,
    ),
    (
        "no notifications",
        {"announced": Announced(90, 3)},
        "NOT ANNOUNCED: no notification for 90 s, the poller brings files",
        3,
    ),
    ("one notification got lost", {"announced": Announced(90, 2)}, "FLOWING: nothing waits", 0),
    ("notifications never were", {"announced": None}, "FLOWING: nothing waits", 0),
    (
        "the poller's files are worked off",
        {"announced": Announced(90, 300), "backlog": waiting(120), "pace": Pace(60, 0, 1)},
        "LATE 2 min",
        0,
    ),
    (
        "clocks that are ahead of ours",
        {
            "backlog": waiting(-300, 1, inc=-300), "pace": Pace(1, 1, -2), "announced": Announced(-60, 3),
            "processes": [consumer(beat_seconds=-5, settled_seconds=-5)],
            "rhythms": {"inc": Rhythm(100, 1200, 1800, 7 * DAY, -300)},
        },
        "FLOWING: 1 wait, the oldest for 0 s, the last file was applied 0 s ago",
        0,
    ),
    (
        "a store whose clock is an hour behind",
        {"backlog": waiting(HOUR, 1)},
        "LATE 60 min: 1 wait",
        3,
    ),
    (
        "without a broker, and the next drain does not come",
        {"queue": None, **STANDING, "backlog": waiting(700)},
        "LATE 12 min: 3 wait",
        3,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "line", "status"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_verdict(facts: Mapping[str, Any], line: str, status: int) -> None:
    found = judge(replace(GOOD, **facts), LIMITS)
    assert (found.line[: len(line)], found.exit) == (line, status)
    assert found.line.startswith(found.word)
    assert found.advice


def test_each_word_is_said_in_some_case() -> None:
    assert {judge(replace(GOOD, **facts), LIMITS).word for _, facts, _, _ in CASES} == set(Word)


def test_what_is_worth_knowing_is_said_beside_a_good_verdict() -> None:
    facts = replace(GOOD, queue=FilesQueue(0, 0, 2), processes=[poller(300)])
    assert judge(facts, LIMITS).advice == (
        "no consumer runs, and what comes will wait: fleettickets consume; "
        "2 dead letters: fleettickets dead-letters list; "
        "no sign of poller (host, pid 9) for 5 min: if it has died, its row goes within a day"
    )


def test_where_there_is_no_broker_nobody_is_told_to_start_consumers() -> None:
    found = judge(replace(GOOD, queue=None, backlog=waiting(700)), LIMITS)
    assert "drain --apply" in found.advice
    assert "consume" not in found.advice


def test_limits_are_what_they_are_set_to() -> None:
    facts = replace(GOOD, backlog=waiting(5), pace=Pace(0, 0, 4), queue=FilesQueue(3, 0, 0), processes=[])
    assert judge(facts, LIMITS).word is Word.FLOWING
    assert judge(facts, replace(LIMITS, stuck=3)).word is Word.STUCK
    late = replace(GOOD, backlog=waiting(5), pace=Pace(60, 0, 1))
    assert judge(late, replace(LIMITS, stuck=3)).exit == 0
    assert judge(late, replace(LIMITS, stuck=7, late=5)).word is Word.FLOWING
    assert judge(late, replace(LIMITS, stuck=3, late=5)).exit == 3

"""The points between two durable effects at which a crash must change nothing, and a way to crash there on purpose."""

import os
import signal
from collections.abc import Callable, Mapping

from publisher.errors import Misconfigured

FAIL_POINTS = (
    "seen, before claim",
    "before claim",
    "after claim",
    "mid copy",
    "between files",
    "before commit",
    "after commit, before archive",
    "after commit of several",
    "after copy, before delete",
    "between archives",
    "after delete, before state",
    "after archive, before relay",
    "relay published, not marked",
    "relay marked, before ack",
    "asked again, not published",
    "letter published, not recorded",
    "failure recorded, before ack",
    "mended letter recorded, not settled",
    "mended letter settled, not marked",
    "between acknowledgements",
    "acknowledged, not told",
    "held back, not put aside",
    "sent on, before ack",
    "captured, not committed",
    "captured, before ack",
    "answered, not kept",
    "kept, not placed",
    "geocoded, not committed",
    "geocoded, before relay",
)

VARIABLE = "FLEETTICKETS_FAIL_POINT"

Reached = Callable[[str], None]


def nowhere(_point: str) -> None:
    """What production runs with."""


def crash_at(fail_point: str) -> Reached:
    """Kill this process, as SIGKILL does, the first time it comes to `fail_point`."""

    def reached(point: str) -> None:
        if point == fail_point:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def chosen(environment: Mapping[str, str]) -> Reached:
    """What the environment asks for: to crash at the point it names, or nowhere.

    Raises: Misconfigured.
    """
    fail_point = environment.get(VARIABLE)
    if not fail_point:
        return nowhere
    if fail_point not in FAIL_POINTS:
        raise Misconfigured(f"{VARIABLE} is wrong: none of {', '.join(map(repr, FAIL_POINTS))}")
    return crash_at(fail_point)

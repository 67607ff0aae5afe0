"""What is played when, from the seed: the same seed and length give the same feed and the same acts."""

import random
from collections.abc import Collection
from dataclasses import dataclass

from consumer.demo.oracle import ChangeFile
from tests.hostile import bodies, broker, clients, database, files, geocoder, headers, store
from tests.hostile.hostility import Hostility
from tests.stage.feeds import RandomFeed

LANES: dict[str, list[Hostility]] = {
    "files": files.HOSTILITIES,
    "bodies": bodies.HOSTILITIES,
    "headers": headers.HOSTILITIES,
    "strangers": clients.STRANGERS,
    "requests": clients.REQUESTS,
    "store": store.HOSTILITIES,
    "broker": broker.HOSTILITIES,
    "database": database.HOSTILITIES,
    "geocoder": geocoder.HOSTILITIES,
}
"""Of one lane, one act is played after the other; the lanes go on beside each other."""
QUICK = {"files", "bodies", "headers", "requests"}
"""Lanes whose acts are over at once."""
LONG_SECONDS = 120
"""From so many on, a play has every hostility, and most of them several times; a shorter one has some of each lane."""
_QUICK_ONES, _LASTING_ONES = 12, 3

FILES_A_SECOND = 2
TICKETS = 150
ROWS = 8
WAYS = ("notification", "webhook", "poller")


@dataclass(frozen=True)
class Cue:
    """An act that is due so many seconds after the begin; `number` is its own, `is_first` for the first of its kind."""

    at: float
    number: int
    hostility: Hostility
    is_first: bool


@dataclass(frozen=True)
class Arrival:
    """A good file is put, and announced so many times by those ways; the poller has its own."""

    at: float
    file: ChangeFile
    ways: tuple[str, ...]
    again: bool
    """Whether the same bytes are put once more, later."""


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    arrivals: list[Arrival]
    lanes: dict[str, list[Cue]]


def make_plan(seed: int, seconds: float, only: Collection[str] = ()) -> Plan:
    """With `only`, those hostilities alone that have one of the texts in their names."""
    rng = random.Random(seed)
    arrivals = _arrivals(rng, seed, seconds)
    lanes: dict[str, list[Cue]] = {}
    numbers = iter(range(1, 100_000))
    for lane, hostilities in LANES.items():
        able = [one for one in hostilities if one.needs <= seconds and (not only or any(t in one.name for t in only))]
        # Each has its turn, those that need long first. Then as many more as time allows.
        is_long = seconds >= LONG_SECONDS
        count = len(able) if is_long else min(len(able), _QUICK_ONES if lane in QUICK else _LASTING_ONES)
        order = sorted(rng.sample(able, count), key=lambda hostility: -hostility.needs)
        first = [seconds * place / len(order) * (0.4 if is_long else 0.8) for place in range(len(order))]
        cues = [Cue(at, next(numbers), hostility, is_first=True) for at, hostility in zip(first, order, strict=True)]
        at = seconds * 0.4
        while able and is_long and (at := at + rng.uniform(2, 10)) < seconds * 0.95:
            fitting = [one for one in able if one.needs <= seconds - at]
            cues += [Cue(at, next(numbers), one, is_first=False) for one in rng.sample(fitting, min(1, len(fitting)))]
        lanes[lane] = cues
    return Plan(seed, seconds, arrivals, lanes)


def _arrivals(rng: random.Random, seed: int, seconds: float) -> list[Arrival]:
    count = int(seconds * FILES_A_SECOND)
    files = RandomFeed(seed, TICKETS).files(count, ROWS)
    # Some come much later than their keys say.
    places = {file.key: place + rng.uniform(0, 100 if rng.random() < 0.1 else 4) for place, file in enumerate(files)}
    files.sort(key=lambda file: places[file.key])
    times = sorted(rng.uniform(0, seconds) for _ in files)
    found = []
    for at, file in zip(times, files, strict=True):
        ways = (rng.choice(WAYS), *(way for way in WAYS[:2] if rng.random() < 0.15))
        found.append(Arrival(at, file, ways, again=rng.random() < 0.05))
    return found

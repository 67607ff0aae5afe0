"""What a soak does, from its seed: the same seed and length give the same feed and the same sequence of faults."""

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from consumer.demo.oracle import ChangeFile
from tests.stage.feeds import START, RandomFeed, key_at

FILES_A_SECOND = 4
TICKETS = 150
ROWS = 8
# Each is a dead letter at once, for a reason that lies in the file.
BAD = (b"ticket_id,n\xfcmber\n", b"owner,cluster\nOtieno,Nyali\n", b"ticket_id,owner\nINC0000001,x\n")

COMPONENTS = ("consumer", "poller", "receiver", "rabbitmq", "postgres", "gateway")
PROXIED = ("rabbitmq", "postgres", "gateway")
# Consumers most often, since most of what can go wrong is in their hands; the gateway seldom, since after its death
# the store's notifications stand still for a minute and a half.
KILLED = ("consumer",) * 12 + ("poller", "receiver") * 2 + ("rabbitmq", "postgres") * 4 + ("gateway",)
BY_HAND = (
    ("dead-letters", "replay", "--all", "--wait", "5"),
    ("dead-letters", "replay", "--limit", "2", "--wait", "5"),
    ("dead-letters", "list"),
    ("poll",),
    ("drain", "--apply"),
    ("verify", "--json"),
    ("status", "--json"),
)

What = Literal["new", "again", "corrected", "bad", "mended"]
How = Literal["kill", "cut", "stall"]


@dataclass(frozen=True)
class Put:
    """The exporter puts a file: `again` the same bytes, `corrected` others, `mended` good ones for bad ones."""

    at: float
    what: What
    file: ChangeFile


@dataclass(frozen=True)
class Announcement:
    """One more delivery of a file that was put, beside the store's own."""

    at: float
    way: Literal["broker", "webhook"]
    file: ChangeFile


Step = Put | Announcement


@dataclass(frozen=True)
class Fault:
    """So many seconds after the fault before: what happens to whom, and how long it stays so."""

    gap: float
    how: How
    targets: tuple[str, ...]
    pause: float
    number: int
    """Which consumer, where it is one."""


@dataclass(frozen=True)
class ByHand:
    """So many seconds after the command before."""

    gap: float
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Steps have times, by which they are sorted; faults and commands are done one after the other, while time is."""

    seed: int
    seconds: float
    steps: list[Step]
    faults: list[Fault]
    by_hand: list[ByHand]

    @property
    def good(self) -> list[ChangeFile]:
        """Every file, also two under one key, that has to be applied."""
        return [step.file for step in self._puts() if step.what in {"new", "corrected", "mended"}]

    @property
    def mended(self) -> set[str]:
        return {step.file.key for step in self._puts() if step.what == "mended"}

    @property
    def bad(self) -> set[str]:
        """The keys that stay dead letters."""
        return {step.file.key for step in self._puts() if step.what == "bad"} - self.mended

    def _puts(self) -> list[Put]:
        return [step for step in self.steps if isinstance(step, Put)]


def make_plan(seed: int, seconds: float) -> Plan:
    rng = random.Random(seed)
    return Plan(seed, seconds, _steps(rng, seed, seconds), _faults(rng, seconds), _by_hand(rng, seconds))


def _steps(rng: random.Random, seed: int, seconds: float) -> list[Step]:
    count = int(seconds * FILES_A_SECOND)
    made = RandomFeed(seed, TICKETS).files(2 * count, ROWS)
    files, spare = made[:count], iter(made[count:])
    # Some in bursts, and some much later than their keys say.
    bursts = [rng.uniform(0, seconds) for _ in range(int(seconds / 10) + 1)]
    times = sorted(rng.choice(bursts) if rng.random() < 0.3 else rng.uniform(0, seconds) for _ in files)
    places = {file.key: place + rng.uniform(0, 100 if rng.random() < 0.1 else 4) for place, file in enumerate(files)}
    files.sort(key=lambda file: places[file.key])

    steps: list[Step] = []

    def later(at: float, least: float, most: float) -> float:
        return min(at + rng.uniform(least, most), seconds)

    for number, (at, file) in enumerate(zip(times, files, strict=True)):
        steps.append(Put(at, "new", file))
        kind = rng.random()
        if kind < 0.04:
            steps.append(Put(later(at, 2, 20), "again", file))
        elif kind < 0.08:
            steps.append(Put(later(at, 2, 20), "corrected", replace(file, body=next(spare).body, version=1)))
        ways: tuple[Literal["broker", "webhook"], ...] = ("broker", "webhook")
        steps += [Announcement(later(at, 0, 10), way, file) for way in ways if rng.random() < 0.15]
        if number % 25 == 5:
            bad = ChangeFile(key_at(-number), START - timedelta(minutes=number), rng.choice(BAD))
            steps.append(Put(at, "bad", bad))
            if rng.random() < 0.4:
                mended = replace(bad, body=next(spare).body, version=1)
                steps.append(Put(later(at, 3, 30), "mended", mended))
    return sorted(steps, key=lambda step: step.at)


def _faults(rng: random.Random, seconds: float) -> list[Fault]:
    # First each component once, so that a short run has them all, and notifications for most of its time.
    first = [(name,) for name in (*rng.sample(COMPONENTS[:-1], len(COMPONENTS) - 1), COMPONENTS[-1])]
    faults = [Fault(rng.uniform(0.3, 1), "kill", name, rng.uniform(0.1, 1), rng.randrange(100)) for name in first]
    while len(faults) < len(first) + seconds:
        how: How = rng.choices(("kill", "cut", "stall"), (6, 3, 1))[0]
        if how == "kill":
            targets = [rng.choice(KILLED)]
            if rng.random() < 0.2:
                targets.append(rng.choice([name for name in KILLED if name not in targets]))
        else:
            targets = [rng.choice(PROXIED)]
        # Now and then two in quick succession: what recovers is hit again.
        gap = rng.uniform(0, 0.5) if rng.random() < 0.2 else rng.uniform(1, 7)
        faults.append(Fault(gap, how, tuple(targets), rng.uniform(0.1, 3), rng.randrange(100)))
    return faults


def _by_hand(rng: random.Random, seconds: float) -> list[ByHand]:
    commands: list[ByHand] = []
    at = 0.0
    while at < seconds:
        gap, arguments = rng.uniform(1, 6), rng.choice(BY_HAND)
        at += gap
        # A drain leaves its requests to the next sweep of a consumer, which is not waited for at the end.
        if arguments[0] != "drain" or at < seconds - 40:
            commands.append(ByHand(gap, arguments))
    return commands

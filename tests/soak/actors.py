"""The exporter, who makes the feed, and the operator, who types commands in between; each in a thread of its own."""

import heapq
import json
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass

import requests
from botocore.exceptions import BotoCoreError, ClientError
from pika.exceptions import AMQPError

from tests.soak.crew import Crew
from tests.soak.plan import Announcement, Plan, Put, Step
from tests.stage.stage import RUN_SECONDS, Stage

_ANNOUNCE_AT_MOST = 20
_GONE_SECONDS = 1.0
"""Between the first look that finds a key archived and its next version: LastModified has whole seconds."""


@dataclass(order=True)
class _Due:
    at: float
    number: int
    step: Step
    tries: int = 0


class Exporter:
    """Does each step when it is due, and again until the store or the broker has taken it."""

    def __init__(self, stage: Stage, crew: Crew, plan: Plan) -> None:
        self._stage = stage
        self._crew = crew
        self._steps = [_Due(step.at, number, step) for number, step in enumerate(plan.steps)]
        self._there: set[str] = set()
        self._gone_since: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def act(self) -> None:
        heapq.heapify(self._steps)
        began = time.monotonic()
        while self._steps:
            due = self._steps[0]
            now = time.monotonic() - began
            if due.at > now:
                time.sleep(min(due.at - now, 0.2))
                continue
            heapq.heappop(self._steps)
            if self._is_done(due):
                continue
            heapq.heappush(self._steps, _Due(now + 0.5, due.number, due.step, due.tries + 1))

    def _is_done(self, due: _Due) -> bool:
        try:
            if isinstance(due.step, Put):
                return self._put(due.step)
            return self._announce(due.step) or due.tries > _ANNOUNCE_AT_MOST
        except (BotoCoreError, ClientError, AMQPError, requests.RequestException, OSError):
            self.counts["tried again"] += 1
            # One more delivery is nobody's duty.
            return isinstance(due.step, Announcement) and due.tries > _ANNOUNCE_AT_MOST

    def _put(self, step: Put) -> bool:
        key = step.file.key
        if step.what in {"again", "corrected", "mended"} and key not in self._there:
            return False
        if step.what == "corrected" and not self._is_gone(key):
            return False
        self._stage.bucket.put(key, step.file.body)
        self._there.add(key)
        self.counts["files"] += 1
        self.counts[step.what] += 1
        return True

    def _is_gone(self, key: str) -> bool:
        """Whether the version before is archived: a store that ignores conditions loses one that comes in between."""
        if self._stage.bucket.keys(key):
            return False
        since = self._gone_since.setdefault(key, time.monotonic())
        return time.monotonic() - since > _GONE_SECONDS

    def _announce(self, step: Announcement) -> bool:
        if step.file.key not in self._there:
            return False
        event = self._stage.bucket.event(step.file.key, step.file.body)
        if step.way == "broker":
            self._stage.broker.publish([event])
        elif self._crew.receiver is None or self._crew.receiver.post(event).status_code != requests.codes.ok:
            return False
        self.counts[f"announced by {step.way}"] += 1
        return True


class Operator:
    """Types the plan's commands; a service that is away is a reason for exit status 1, and for nothing worse."""

    def __init__(self, stage: Stage, plan: Plan, stop: threading.Event) -> None:
        self._stage = stage
        self._plan = plan
        self._stop = stop
        self.commands: Counter[str] = Counter()
        self.complaints: list[str] = []

    def act(self) -> None:
        for command in self._plan.by_hand:
            if self._stop.wait(command.gap):
                return
            self._type(command.arguments)

    def _type(self, arguments: tuple[str, ...]) -> None:
        line = " ".join(arguments)
        try:
            ended = self._stage.run(*arguments)
        except subprocess.TimeoutExpired:
            self.complaints.append(f"{line} did not end within {RUN_SECONDS} s")
            return
        self.commands[arguments[0]] += 1
        if ended.returncode not in {0, 1, 3} or "Traceback" in ended.stderr:
            self.complaints.append(f"{line} ended with {ended.returncode}: {ended.stderr[-2000:]}")
        if arguments[0] == "verify" and ended.stdout:
            self._look_at(json.loads(ended.stdout)["discrepancies"])

    def _look_at(self, discrepancies: dict[str, dict[str, object]]) -> None:
        """A verify beside all this must not raise a false alarm; a mended file's old letter is a true one."""
        for kind, found in discrepancies.items():
            examples = found["examples"]
            assert isinstance(examples, list)
            if kind != "letter_of_applied_file" or {example["key"] for example in examples} - self._plan.mended:
                self.complaints.append(f"verify, beside the rest, found {kind}: {examples}")

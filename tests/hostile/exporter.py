"""The good traffic: files put and announced by the store's user and its webhook, or left to the poller."""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import requests
from botocore.exceptions import BotoCoreError, ClientError
from pika.exceptions import AMQPError

from consumer.demo.oracle import ChangeFile
from tests.hostile.hostility import World, publish
from tests.hostile.plan import Arrival

_AGAIN_SECONDS = 15
_REPEATS = 30
"""A store sends an event so often, with a second between."""


class Exporter:
    """Each arrival when it is due. What cannot be announced is the poller's, as it would be in earnest."""

    def __init__(self, world: World, arrivals: list[Arrival]) -> None:
        self._world = world
        self._arrivals = arrivals
        self.posts = 0
        self.refused = 0

    def act(self) -> None:
        began = time.monotonic()
        again: list[tuple[float, ChangeFile]] = []
        with ThreadPoolExecutor(8) as threads:
            announcing: list[Future[None]] = []
            for arrival in self._arrivals:
                due = began + arrival.at
                while (left := due - time.monotonic()) > 0:
                    time.sleep(min(left, 0.2))
                self._put(arrival.file)
                announcing += [threads.submit(self._announce, arrival.file, way) for way in arrival.ways]
                if arrival.again:
                    again.append((time.monotonic() + _AGAIN_SECONDS, arrival.file))
                while again and again[0][0] < time.monotonic():
                    self._put(again.pop(0)[1])
            for _, file in again:
                self._put(file)
            for announced in announcing:
                announced.result()

    def _put(self, file: ChangeFile) -> None:
        bucket = self._world.stage.bucket
        for _ in range(_REPEATS):
            try:
                bucket.put(file.key, file.body)
            except (BotoCoreError, ClientError):
                time.sleep(1)
            else:
                return
        raise AssertionError(f"the store does not take {file.key}")

    def _announce(self, file: ChangeFile, way: str) -> None:
        event = self._world.stage.bucket.event(file.key, file.body)
        if way == "webhook":
            self._post(event)
        elif way == "notification":
            try:
                publish(self._world.stranger, [event])
            except (AMQPError, OSError):
                return  # lost, as some are

    def _post(self, event: bytes) -> None:
        for _ in range(_REPEATS):
            try:
                taken = self._world.crew.receiver.post(event).status_code == requests.codes.ok
            except requests.RequestException:
                taken = False
            self.posts += taken
            self.refused += not taken
            if taken:
                return
            time.sleep(1)

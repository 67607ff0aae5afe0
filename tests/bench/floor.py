"""The floor of a file's way: published, got from the same queue, read, loaded and committed, one file at a time.

Files come to it as often as to the real one: who has just done the same is faster than who has waited for a second. It
does no more than the least script does, on a stage of its own: no ledger, no order, no look at the rows.
"""

import json
import time
from collections.abc import Sequence
from typing import Self

from tests.bench.commits import TELL_OF_ONE, Commits
from tests.bench.ground import keyed, publish_paced
from tests.bench.plain import Plain
from tests.stage.actor import Actor
from tests.stage.broker import FILES
from tests.stage.stage import Stage, wait_until

FLOORS = ("published → got", "GET", "COPY and upsert", "COMMIT")


class Floor:
    """A thread that consumes; `sample` gives it files."""

    def __init__(self, stage: Stage, commits: Commits) -> None:
        self._stage = stage
        self._commits = commits
        self._files = 0
        self._stopped = False
        self._done: dict[str, tuple[float, ...]] = {}
        self._actor = Actor("floor", self._consume)

    def __enter__(self) -> Self:
        self._actor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._actor.join()
        if self._actor.error:
            raise self._actor.error

    def sample(self, bodies: Sequence[bytes], rate: float) -> list[tuple[float, ...]]:
        """The moments of each file; so many come in a second."""
        files = keyed(list(bodies), self._files)
        self._files += len(files)
        published = publish_paced(self._stage, files, rate)
        wait_until(lambda: all(map(self._is_over, files)), "the floor has all")
        return [(at, *self._done[key], self._commits.found[key]) for key, at in published.items()]

    def _is_over(self, key: str) -> bool:
        return (key in self._done and key in self._commits.found) or self._actor.error is not None

    def _consume(self) -> None:
        stage, plain = self._stage, Plain(self._stage.database)
        with stage.broker.channel() as channel, plain.connection:
            for method, _, event in channel.consume(FILES, inactivity_timeout=0.2):
                if self._stopped:
                    return
                if method is None or method.delivery_tag is None or event is None:
                    continue
                got = time.time()
                key = json.loads(event)["Records"][0]["s3"]["object"]["key"]
                content = stage.bucket.read(key)
                read = time.time()
                plain.load(content)
                loaded = time.time()
                plain.connection.execute(TELL_OF_ONE, (key,))
                plain.connection.commit()
                self._done[key] = (got, read, loaded)
                channel.basic_ack(method.delivery_tag)

"""What a hostility is: who does it through which door, and what must come of it, which a record is told."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import pika
from botocore.exceptions import BotoCoreError, ClientError
from pika.exceptions import AMQPError

from consumer.demo.oracle import EAT, ChangeFile
from publisher.arrivals.store_events import MAX_BYTES
from tests.doubles.faulty_store import FaultyStore
from tests.doubles.geocoder import LocationIQ
from tests.doubles.header_tables import RawProperties
from tests.doubles.proxy import Proxy
from tests.hostile.crew import Crew
from tests.stage.broker import EVENTS, Broker
from tests.stage.ending import ENDS_WITHIN
from tests.stage.feeds import KEY_FORMS, csv, key_at, ticket
from tests.stage.private import PrivateStack
from tests.stage.stage import Process, Stage
from tests.stage.store import CHANGES

Door = Literal["PUT", "AMQP", "TOKEN", "ANON", "READ", "nobody"]
"""Who can do it: PUT may write to changes/, AMQP may publish to the exchange for events, TOKEN and ANON reach the
webhook with and without its token, READ has a login of the reading role. Nobody means that it happens by itself."""

GOES_ON_SECONDS = 60
"""For a good file beside what must not hold it up. No measure of speed: what is stuck stays so for minutes. The time in
which a service is away for everybody does not count."""
_TICK_SECONDS = 0.1
_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Hostility:
    """`needs` are the seconds of play without which it cannot show anything."""

    name: str
    door: Door
    play: "Callable[[Act], None]"
    needs: float = 0


@dataclass
class Record:
    """What has to be true at the end, as the acts have promised it. Acts share it between their threads."""

    good: list[ChangeFile] = field(default_factory=list)
    """To be applied; of two files under one key the one of the greater version, the other perhaps as well."""
    dead: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By key: dead letters, for one of these reasons; none named is any but an unexpected failure."""
    dead_bodies: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    """The same for messages that are about no file."""
    indifferent: set[bytes] = field(default_factory=set)
    """Bodies that may be dead letters or be passed over: either is a decision."""
    ignored: set[str] = field(default_factory=set)
    """Keys that the ledger has to have as ignored, and the bucket still in changes/."""
    told: set[str] = field(default_factory=set)
    """Keys of which `explain` has to tell without fail."""
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """What every act has at hand; `over` is set when it is time to let go of everything that is held."""

    stage: Stage
    stack: PrivateStack
    store: FaultyStore
    provider: LocationIQ
    proxies: Mapping[str, Proxy]
    crew: Crew
    record: Record
    lasting: float
    """Seconds for which an act that lasts goes on, if nothing else ends it."""
    dashboard: str
    """The database as a login of the reading role."""
    stranger: Broker
    """The broker as a user who may write to the exchange for events and nothing else."""
    over: threading.Event = field(default_factory=threading.Event)
    away: set[str] = field(default_factory=set)
    """Acts that have taken a service away from everybody just now."""


class Act:
    """One hostility as it is played: with a number of its own, and with chances that the seed of the run decides."""

    def __init__(self, world: World, hostility: Hostility, number: int, seed: int) -> None:
        self.world = world
        self.stage = world.stage
        self.record = world.record
        self.lasting = world.lasting
        self.hostility = hostility
        self.number = number
        self.random = random.Random(f"{seed}, act {number}")
        self._names = 0
        self._bodies: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        return f"act {self.number}, {self.hostility.name}"

    def complain(self, what: str) -> None:
        self.record.complaints.append(f"{self.name}: {what}")

    def key(self) -> str:
        """A key that no other act has, older than every file of the feed."""
        self._names += 1
        return key_at(-1440 - (100 * self.number + self._names) / 60)

    def ticket(self) -> dict[str, str]:
        """A row that is accepted, about a ticket that nobody else writes of."""
        self._names += 1
        return ticket(f"INC9{self.number:05}{self._names:03}", owner=f"of act {self.number}")

    def put(self, key: str, body: bytes) -> None:
        self._bodies[key] = body
        self.insist(lambda: self.stage.bucket.s3.put_object(Bucket=self.stage.bucket.name, Key=key, Body=body))

    def good_file(self, body: bytes | None = None, *, announced: bool = True) -> str:
        """Put a file that has to be applied, however odd it is."""
        key = self.key()
        self.put_good(key, csv([self.ticket()]) if body is None else body)
        if announced:
            self.announce(key)
        return key

    def put_good(self, key: str, body: bytes, version: int = 0) -> None:
        name = key.removeprefix(CHANGES).removesuffix(".csv")
        when = datetime.strptime(name, KEY_FORMS[0]).replace(tzinfo=EAT)
        self.record.good.append(ChangeFile(key, when, body, version))
        self.put(key, body)

    def bad_file(self, body: bytes, *reasons: str, key: str = "") -> str:
        """Put a file that has to become a dead letter, for one of the reasons."""
        key = key or self.key()
        self.record.dead[key] = reasons
        self.put(key, body)
        self.announce(key)
        return key

    def event(self, key: str) -> bytes:
        """What the store would send of what was put there last."""
        return self.stage.bucket.event(key, self._bodies.get(key, b""))

    def announce(self, key: str, times: int = 1) -> None:
        self.publish(self.event(key), times=times)

    def bad_body(self, body: bytes, *reasons: str, headers: bytes | None = None) -> None:
        """Publish what has to become a dead letter of its own; the body has to be one that no other act has."""
        self.record.dead_bodies[body[: MAX_BYTES + 1]] = reasons  # of a larger one a letter has the beginning
        self.publish(body, headers)

    def publish(self, body: bytes, headers: bytes | None = None, times: int = 1) -> None:
        """Publish to the exchange for events, where a stranger may; `headers` is a table in AMQP's own encoding."""
        self.insist(lambda: publish(self.world.stranger, [body] * times, headers))

    def insist(self, action: Callable[[], Any]) -> None:
        """Do it although others take store and broker away now and then."""
        end = time.monotonic() + 2 * GOES_ON_SECONDS
        while True:
            try:
                action()
            except (AMQPError, BotoCoreError, ClientError, OSError):
                if time.monotonic() > end:
                    raise
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    def hold(self, seconds: float | None = None) -> None:
        """Let it last, until the seconds or the play are over."""
        self.world.over.wait(self.lasting if seconds is None else seconds)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Something is away for everybody meanwhile, so that nobody is expected to go on."""
        self.world.away.add(self.name)
        try:
            yield
        finally:
            self.world.away.discard(self.name)

    @contextlib.contextmanager
    def unheard(self, service: str) -> Iterator[None]:
        """Connections to the service stay open, and nothing passes."""
        with self.away():
            self.world.proxies[service].stall()
            try:
                yield
            finally:
                self.world.proxies[service].restore()

    def has_to_end(self, process: Process, while_what: str) -> None:
        """In an orderly way, after it was told to."""
        status = process.wait() if process.ends_within(ENDS_WITHIN) else "nothing"
        if status != 0:
            self.complain(f"a process ended with {status} after SIGTERM while {while_what}: {process.log}")
            process.kill()

    def others_go_on(self, while_what: str) -> None:
        """A good file comes, and is not held up by what the act holds just now."""
        self.has_to_be_applied(self.good_file(), f"no other file is applied while {while_what}")

    def has_to_be_applied(self, key: str, complaint: str) -> None:
        applied = "SELECT 1 FROM ingest.ledger WHERE key = %s AND applied_at IS NOT NULL"
        self.wait_for(lambda: bool(self.stage.query(applied, key)), complaint)

    def wait_for(self, predicate: Callable[[], bool], complaint: str) -> bool:
        """Wait, though not for ever; whether it has come true."""
        patience = float(GOES_ON_SECONDS)
        while not predicate():
            if patience < 0 or self.world.over.is_set():
                self.complain(f"{complaint}, in {GOES_ON_SECONDS - patience:.0f} s")
                return False
            began = time.monotonic()
            time.sleep(_TICK_SECONDS)
            patience -= 0 if self.world.away else time.monotonic() - began
        return True


def publish(broker: Broker, bodies: list[bytes], headers: bytes | None = None, **properties: Any) -> None:
    """Publish as one who does not look at what becomes of it; the broker has it when this returns."""
    sent = pika.BasicProperties(delivery_mode=2, **properties) if headers is None else RawProperties(headers)
    with broker.channel() as channel:
        for body in bodies:
            channel.basic_publish(EVENTS, "store", body, sent, mandatory=True)

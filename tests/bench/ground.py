"""Where a contender stands: a stage of its own, which each round begins empty."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pika
from psycopg import sql

from consumer.feeds.declared import packaged_feeds
from consumer.feeds.feed import Feed
from tests.bench.figures import Disagree
from tests.load.stages import load_stage
from tests.stage.broker import EVENTS
from tests.stage.feeds import key_at
from tests.stage.stage import Process, Stage, wait_until

SETTINGS = {"FLEETTICKETS_HISTORY_INTERVAL": "3600", "FLEETTICKETS_MISSING_COLUMNS": "refuse"}
"""No capture of the history while something is timed; files are judged as they are by default."""
PATIENCE = 600
_PERSISTENT = pika.BasicProperties(delivery_mode=2)
_OF_EACH_TICKET = (("tickets", "closure_events"), ("tickets", "versions"), ("ingest", "told_rows"))
_CONTENT = "SELECT count(*) AS rows, md5(string_agg(md5(ticket_id || raw), '' ORDER BY ticket_id)) FROM tickets.inc"


@contextlib.contextmanager
def stage_of_its_own() -> Iterator[Stage]:
    with TemporaryDirectory() as folder, load_stage(Path(folder)) as stage:
        stage.environment |= SETTINGS
        stage.executes = True  # a fork of the tests has their memory as well
        yield stage


def consume(stage: Stage) -> Process:
    consumer = stage.start("consume")
    wait_until(lambda: not consumer.running or "consuming" in consumer.output(), "the consumer is there")
    assert consumer.running, consumer.output()
    return consumer


def empty(stage: Stage) -> None:
    """As if no ticket had come yet. The ledger stays."""
    tables = [*_OF_EACH_TICKET, *(name for feed in packaged_feeds().declared for name in _of(feed))]
    named = sql.SQL(", ").join(sql.Identifier(*name) for name in tables)
    stage.connection.execute(sql.SQL("TRUNCATE {}").format(named))


def _of(feed: Feed) -> tuple[tuple[str, str], tuple[str, str]]:
    return feed.table, feed.positions


def put(stage: Stage, bodies: Mapping[str, bytes]) -> None:
    stage.bucket.put_all(bodies)


def publish(stage: Stage, bodies: Mapping[str, bytes]) -> None:
    stage.broker.publish(stage.bucket.event(key, body) for key, body in bodies.items())


def publish_paced(stage: Stage, bodies: Mapping[str, bytes], rate: float) -> dict[str, float]:
    """Put all, then publish so many a second; gives when each was."""
    put(stage, bodies)
    published = {}
    with stage.broker.channel() as channel:
        began = time.monotonic()
        for number, (key, body) in enumerate(bodies.items()):
            event = stage.bucket.event(key, body)
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            published[key] = time.time()
            channel.basic_publish(EVENTS, "store", event, _PERSISTENT, mandatory=True)
    return published


def keyed(bodies: list[bytes], first: int) -> dict[str, bytes]:
    """Under keys of which the first is that many minutes after the start."""
    return {key_at(first + number): body for number, body in enumerate(bodies)}


def wait_for_done(stage: Stage, keys: list[str], pause: float = 0.25) -> None:
    """Rarely asked, since asking costs the machine what is measured."""
    done = "SELECT count(*) FROM ingest.ledger WHERE bucket = %s AND key = ANY(%s) AND state = 'done'"
    end = time.monotonic() + PATIENCE
    while stage.one(done, stage.bucket.name, keys) < len(keys):
        if time.monotonic() > end:
            raise TimeoutError(f"not done within {PATIENCE} s: {keys[:3]}")
        time.sleep(pause)


def require_same(stages: Mapping[str, Stage]) -> None:
    """Raises: Disagree."""
    found = {name: tuple(stage.query(_CONTENT)[0].values()) for name, stage in stages.items()}
    if len(set(found.values())) > 1:
        raise Disagree(f"the tickets differ: {found}")

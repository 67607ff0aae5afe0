"""The relay sends everything, waits for the broker with nothing open, and marks what it has read."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from consumer.fail_points import nowhere
from consumer.follow_ons.relay import Relay
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from publisher.arrivals.messages import CaptureHistory, GeocodeTickets
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Queue
from publisher.errors import NotConfirmed
from tests.integration.change_files import ChangeFile
from tests.stage.stage import wait_until

FILE = "ticket_id,cluster\nINC{0},QOA\n"


class Broker:
    """Takes messages as a link does, unless it is told not to; `during` happens while it is waited for."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, tuple[int, ...]]] = []
        self.refusing: set[str] = set()
        self.asked: list[str] = []
        self.during: Callable[[], None] = lambda: None

    def publish(self, outgoing: Outgoing) -> None:
        self.asked.append(outgoing.routing_key)
        self.during()
        if outgoing.routing_key in self.refusing:
            raise NotConfirmed("late", "no confirm in time")
        made: type[GeocodeTickets | CaptureHistory] = (
            GeocodeTickets if outgoing.routing_key == "geocode" else CaptureHistory
        )
        self.taken.append((outgoing.routing_key, made.model_validate_json(outgoing.body).requests))


def relay(pool: Pool, broker: Broker, waits: Callable[[Queue], bool] = lambda _kind: False) -> Relay:
    return Relay(pool, broker.publish, nowhere, waits)


def unsent(pool: Pool) -> list[str]:
    with postgres.transaction(pool) as connection:
        query = "SELECT kind FROM ingest.outbox WHERE sent_at IS NULL AND handled_at IS NULL ORDER BY request_id"
        return [row["kind"] for row in connection.execute(query).fetchall()]


def test_no_transaction_is_open_while_the_broker_is_waited_for(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    broker = Broker()
    open_ones: list[int] = []

    def look() -> None:
        with postgres.transaction(pool) as connection:
            connection.execute("SET LOCAL ROLE NONE")
            query = """SELECT count(*) AS open FROM pg_stat_activity
                       WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"""
            (row,) = connection.execute(query).fetchall()
            open_ones.append(row["open"])

    broker.during = look
    assert relay(pool, broker).send() == 2
    assert open_ones == [0, 0]


def test_all_there_is_is_sent_and_not_the_oldest_thousand(pool: Pool, apply: Any) -> None:
    with postgres.transaction(pool) as connection:
        connection.execute("INSERT INTO ingest.outbox (kind) SELECT 'geocode' FROM generate_series(1, 2100)")
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    broker = Broker()
    assert relay(pool, broker).send() == 2102
    assert unsent(pool) == []
    assert [(kind, len(requests)) for kind, requests in broker.taken] == [
        ("geocode", 1000), ("history", 1), ("geocode", 1000), ("geocode", 101),
    ]  # fmt: skip


def test_a_request_that_is_asked_anew_while_it_is_sent_is_sent_once_more(pool: Pool, apply: Any) -> None:
    applied = apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    broker = Broker()

    def ask_anew() -> None:
        with postgres.transaction(pool) as connection:
            request = {"file_ids": [applied.file.file_id], "kinds": ["geocode"]}
            postgres.rows(connection, "merge", "request_follow_ons", request)
        broker.during = lambda: None

    broker.during = ask_anew
    relaying = relay(pool, broker)
    assert relaying.send() == 2
    assert unsent(pool) == ["geocode"]
    assert relaying.send() == 1, "for who asked anew"
    assert [kind for kind, _ in broker.taken] == ["geocode", "history", "geocode"]


def test_what_nothing_was_done_for_is_sent_once_more(pool: Pool) -> None:
    """A message can be gone with its queue; and what waits there, and seems to stand for it, can be a stranger's."""
    with postgres.transaction(pool) as connection:
        connection.execute(
            """INSERT INTO ingest.outbox (kind, created_at, sent_at)
               SELECT 'geocode', now() - interval '2 hours', now() - interval '59 minutes'
               FROM generate_series(1, 2)"""
        )
    broker = Broker()
    relaying = relay(pool, broker)
    assert relaying.send(also_stuck=True) == 0, "something may be done for it yet"
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.outbox SET sent_at = now() - interval '61 minutes'")
    assert relaying.send() == 0
    assert relaying.send(also_stuck=True) == 1, "one stands for all"
    assert [kind for kind, _ in broker.taken] == ["geocode"]
    assert relaying.send(also_stuck=True) == 0, "for an hour"
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.outbox SET sent_at = now() - interval '2 hours', handled_at = now()")
    assert relaying.send(also_stuck=True) == 0, "all is done"


def test_what_is_for_later_is_not_sent_before(pool: Pool) -> None:
    with postgres.transaction(pool) as connection:
        connection.execute("INSERT INTO ingest.outbox (kind, due_at) VALUES ('geocode', now() + interval '1 hour')")
    broker = Broker()
    assert relay(pool, broker).send() == 0
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.outbox SET due_at = now()")
    assert relay(pool, broker).send() == 1


def test_a_queue_that_takes_nothing_holds_up_no_other_kind_and_is_tried_by_the_sweep(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    broker = Broker()
    broker.refusing = {"geocode"}
    relaying = relay(pool, broker)
    assert relaying.send() == 1
    assert unsent(pool) == ["geocode"]
    apply(ChangeFile("2026-06-25T142001", FILE.format(2)))
    assert relaying.send() == 1
    assert broker.asked == ["geocode", "history", "history"], "nobody waits for it again"
    assert relaying.send(also_stuck=True) == 0
    broker.refusing = set()
    assert relaying.send() == 0
    assert relaying.send(also_stuck=True) == 2
    apply(ChangeFile("2026-06-25T142002", FILE.format(3)))
    assert relaying.send() == 2


@pytest.mark.promise("Exactly once")
def test_threads_that_relay_at_once_send_each_request_once(pool: Pool, apply: Any) -> None:
    """And those who waited for one that got stuck do not wait for the broker as well."""
    broker = Broker()
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(60)

    broker.during = wait
    relaying = relay(pool, broker)
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(relaying.send)
        assert begun.wait(60)
        others = [threads.submit(relaying.send) for _ in range(2)]
        wait_until(lambda: all(other.running() for other in others), "they wait for the first")
        go_on.set()
        assert first.result(60) + sum(other.result(60) for other in others) == 2
    assert sorted(broker.asked) == ["geocode", "history"]


def test_where_a_message_of_the_kind_waits_it_stands_for_what_comes_later(pool: Pool, apply: Any) -> None:
    broker = Broker()
    waiting: set[Queue] = set()
    relays = relay(pool, broker, waiting.__contains__)
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    relays.send()
    waiting.add(Queue.GEOCODE)
    apply(ChangeFile("2026-06-25T142100", FILE.format(2)))
    relays.send()
    assert [kind for kind, _ in broker.taken] == ["geocode", "history", "history"]
    assert unsent(pool) == []

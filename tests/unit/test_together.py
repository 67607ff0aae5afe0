"""Which deliveries are begun together, and what becomes of those that are not."""

import json
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from consumer.fail_points import nowhere
from consumer.feeds.declared import packaged_feeds
from consumer.files.handler import FilesHandler
from publisher.broker.consuming import Delivery
from publisher.broker.topology import Queue
from publisher.errors import DatabaseDown
from publisher.spans import Span
from publisher.trace import Trace
from tests.stage.feeds import key_at


class Asked(Exception):
    pass


@dataclass
class Pool:
    """Counts who wants a connection, and gives none."""

    error: Exception
    asked: int = 0

    def getconn(self) -> None:
        self.asked += 1
        raise self.error


def handler(pool: Pool) -> FilesHandler:
    bucket = cast("Any", type("Named", (), {"name": "isptickets"}))
    nothing = cast("Any", None)
    return FilesHandler(
        cast("Any", pool), bucket, packaged_feeds(), lambda _: None, settings=nothing, failures=nothing, reached=nowhere
    )


def delivery(number: int, **other: Any) -> Delivery:
    stored = {"bucket": {"name": "isptickets"}, "object": {"key": key_at(number), "eTag": "e", "size": 100}}
    body = json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": stored}]}).encode()
    made = Delivery(Queue.FILES, body, {}, False, cast("Any", None), number, Span(Trace.of(body)))
    return replace(made, **other)


@pytest.mark.parametrize(
    ("deliveries", "begins"),
    [
        ([delivery(1)], True),
        ([delivery(1), delivery(2)], True),
        ([delivery(1), delivery(2), delivery(3, redelivered=True)], True),
        ([delivery(1, redelivered=True)], False),
        ([delivery(1, headers={"fleettickets-attempts": 1})], False),
        ([delivery(1, body=b"{}")], False),
        # The others would wait for it, who do nothing together.
        ([delivery(1), delivery(2, redelivered=True)], False),
        ([delivery(1), delivery(1)], False),
    ],
)
def test_what_is_begun_together(deliveries: list[Delivery], begins: bool) -> None:
    pool = Pool(Asked())
    assert handler(pool).handle_together(deliveries) == [None] * len(deliveries)
    assert pool.asked == begins


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_away_is_said_before_each_is_tried_by_itself(count: int) -> None:
    with pytest.raises(DatabaseDown):
        handler(Pool(DatabaseDown("postgres", "gone"))).handle_together([delivery(number) for number in range(count)])

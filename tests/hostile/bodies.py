"""Messages that are no events, or events that are not what they say."""

import json
from collections.abc import Callable
from typing import Any

from tests.hostile.hostility import Act, Hostility, publish
from tests.stage.feeds import csv
from tests.stage.store import CHANGES

MB = 1 << 20


def _bad(name: str, body: Callable[[Act], bytes], *reasons: str) -> Hostility:
    """It has to become a dead letter; each body is one of its own by the act's number."""
    return Hostility(name, "AMQP", lambda act: act.bad_body(body(act), *reasons))


def _passed_over(name: str, body: Callable[[Act], bytes]) -> Hostility:
    return Hostility(name, "AMQP", lambda act: act.publish(body(act)))


def _either(name: str, *bodies: Callable[[Act], bytes]) -> Hostility:
    def play(act: Act) -> None:
        for body in bodies:
            made = body(act)
            act.record.indifferent.add(made)
            act.publish(made)

    return Hostility(name, "AMQP", play)


def own(act: Act, key: str, **values: Any) -> bytes:
    """An event in this project's own form."""
    event = {"type": "ChangeFileArrived", "bucket": act.stage.bucket.name, "keys": [key], "seen_by": "poller"}
    return json.dumps(event | values).encode()


def _own_with(name: str, **values: Any) -> Hostility:
    """Two dozen of them, about a file that is there and others that are not: more than the breaker takes."""

    def play(act: Act) -> None:
        there = act.good_file(announced=False)
        act.record.told.add(there)
        for key in (there, *(act.key() for _ in range(24))):
            body = own(act, key, **values)
            act.record.indifferent.add(body)
            act.publish(body)

    return Hostility(f"own events with {name}", "AMQP", play)


def _other(act: Act, bucket: str = "elsewhere", **values: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(act.stage.bucket.event(f"{CHANGES}2026-06-25T142000.csv"))
    event["Records"][0]["s3"]["bucket"]["name"] = bucket
    event["Records"][0] |= values
    return event


def _sns(message: bytes, depth: int) -> bytes:
    for _ in range(depth):
        message = json.dumps({"Type": "Notification", "Message": message.decode()}).encode()
    return message


def _many_others_and_a_good_one(act: Act) -> None:
    good = act.good_file(announced=False)
    event = _other(act)
    event["Records"] = event["Records"] * 300 + json.loads(act.event(good))["Records"]
    act.publish(json.dumps(event).encode())


def _eight_that_are_none(act: Act) -> None:
    """As many as one consumer takes in hand, and one more for each."""
    for number in range(24):
        act.bad_body(f"no event, {act.number}-{number}".encode())
    act.others_go_on("bodies that are no events are decided")


def _by_webhook(act: Act) -> None:
    """What is no event is taken from a store, too, which would repeat it for ever."""
    bodies = [f"not json by webhook, {act.number}".encode(), b'{"act":%d,"Records":[1%s]}' % (act.number, b",1" * 1000)]
    for body in bodies:
        act.record.dead_bodies[body] = ()
        act.insist(lambda body=body: act.world.crew.receiver.post(body).raise_for_status())  # type: ignore[misc]
    odd = own(act, act.good_file(announced=False), size=1e30)
    act.record.indifferent.add(odd)
    act.insist(lambda: act.world.crew.receiver.post(odd).raise_for_status())


def _expiring(act: Act) -> None:
    """A message may die of age in its queue, and is a dead letter then, or be passed over before."""
    event = json.dumps(_other(act)).encode()
    act.record.indifferent.add(event)
    act.insist(lambda: publish(act.world.stranger, [event] * 20, expiration="1", priority=255, timestamp=2**63))


HOSTILITIES = [
    _bad("no JSON", lambda act: f"not json, {act.number}".encode()),
    _bad("no UTF-8", lambda act: b"\xff\xfe%d" % act.number),
    _bad("a number with 5,000 digits", lambda act: b'{"act":%d,"n":%s}' % (act.number, b"9" * 5000)),
    _bad("a million ones as records", lambda act: b'{"act":%d,"Records":[1%s]}' % (act.number, b",1" * (MB // 2))),
    _bad("brackets, 100,000 deep", lambda act: b'{"act":%d,"Records":' % act.number + b"[" * 100_000),
    _bad(
        "eight megabytes", lambda act: b'{"act":%d,"Records":[%s]}' % (act.number, b'{"a":[]},' * (8 * MB // 9) + b"{}")
    ),
    _bad("a key with NUL", lambda act: _keyed(act, f"{CHANGES}\0{act.number}.csv")),
    _bad("half a character as key", lambda act: _keyed(act, f"{CHANGES}\ud800{act.number}.csv")),
    _bad("SNS in SNS, twenty deep", lambda act: _sns(f"not json, {act.number}".encode(), 8)),
    Hostility("two dozen bodies that are no events", "AMQP", _eight_that_are_none),
    _either("nothing", lambda _: b""),
    _either("JSON that is no object", lambda _: b"null", lambda _: b"[]", lambda _: b'"x"', lambda _: b"NaN"),
    _either("SNS in SNS in SNS", lambda act: _sns(json.dumps(_other(act)).encode(), 3)),
    _either(
        "1,200 records of another bucket",
        lambda act: json.dumps({"act": act.number, "Records": _other(act)["Records"] * 1200}).encode(),
    ),
    _either("a time of another kind", lambda act: json.dumps(_other(act, eventTime={"a": [act.number]})).encode()),
    _passed_over("another bucket", lambda act: json.dumps(_other(act)).encode()),
    _passed_over("a removal", lambda act: json.dumps(_other(act, eventName="ObjectRemoved:Delete")).encode()),
    _passed_over("an event's name of a stranger", lambda act: json.dumps(_other(act, eventName="\0" * 999)).encode()),
    Hostility("300 records of another bucket and a good one", "AMQP", _many_others_and_a_good_one),
    _own_with("a size of 10^30", size=10**30),
    _own_with("a size of 1e30", size=1e30),
    _own_with("a size below nothing", size=-(2**70)),
    _own_with("a time before all zones", event_time="0001-01-01T00:00:00+14:00"),
    _own_with("a time after all zones", event_time="9999-12-31T23:59:59-14:00"),
    _own_with("an ETag of 200 wide characters", etag="\U0001f600" * 200),
    Hostility("bodies that are no events, by webhook", "TOKEN", _by_webhook),
    Hostility("events that expire", "AMQP", _expiring),
    Hostility("a good file, announced a hundred times", "AMQP", lambda act: act.announce(_good(act), times=100)),
]


def _keyed(act: Act, key: str) -> bytes:
    event: dict[str, Any] = json.loads(act.stage.bucket.event(key))
    return json.dumps(event).encode()


def _good(act: Act) -> str:
    return act.good_file(csv([act.ticket(), act.ticket()]))

"""Notification bodies, as each store sends them and as none does."""

import contextlib
import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.arrivals.messages import ChangeFileArrived
from publisher.arrivals.store_events import MAX_BYTES, MAX_RECORDS, IgnoredEvent, NotAnEvent, read_event
from publisher.errors import Permanent
from tests.bodies import BUCKET, KEY, body

RAW = KEY
ENCODED = quote_plus(KEY)
STORES = ("rustfs_amqp", "rustfs_webhook", "minio", "versitygw", "ceph", "aws_s3", "aws_sns", "aws_eventbridge")
AT = datetime(2026, 6, 25, 11, 20, 3, tzinfo=UTC)
ETAG = "6f5902ac237024bdd0c176cb93063dc4"


def record(name: str, key: str, source: str, **fields: Any) -> dict[str, Any]:
    return {
        "eventSource": source,
        "eventName": name,
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, **fields}},
    }


def records(*found: dict[str, Any]) -> bytes:
    return json.dumps({"Records": found}).encode()


@pytest.mark.parametrize(
    ("name", "etag", "size", "at"),
    [
        ("rustfs_amqp", ETAG, 48213, AT.replace(microsecond=412000)),
        ("rustfs_webhook", ETAG, 48213, AT.replace(microsecond=412000)),
        ("minio", ETAG, 48213, AT.replace(microsecond=412000)),
        ("versitygw", ETAG, 48213, AT),
        ("ceph", "ac3ef48caa08fa3ed5e025da69edc645", 7, datetime(2026, 11, 23, 14, 28, 54, 929694, tzinfo=UTC)),
        ("ceph_multipart_begun", "", 0, datetime(2026, 11, 23, 14, 28, 54, 929694, tzinfo=UTC)),
        ("aws_s3", "d41d8cd98f00b204e9800998ecf8427e", 1024, AT.replace(microsecond=412000)),
        ("aws_sns", "d41d8cd98f00b204e9800998ecf8427e", 1024, AT.replace(microsecond=412000)),
        ("aws_eventbridge", "b1946ac92492d2347c6235b4d2611184", 5, AT),
    ],
)
def test_every_store_announces_the_same_key(name: str, etag: str, size: int, at: datetime) -> None:
    (arrived,) = read_event(body(name))
    assert isinstance(arrived, ChangeFileArrived)
    assert (arrived.bucket, arrived.keys[0], arrived.seen_by) == (BUCKET, KEY, "notification")
    assert (arrived.etag, arrived.size, arrived.event_time) == (etag, size, at)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("rustfs_amqp_removed", ["ObjectRemoved:Delete"]),
        ("aws_test_event", ["test event"]),
        ("aws_sns_test_event", ["test event"]),
        ("versitygw_test_event", ["test event"]),
    ],
)
def test_what_a_store_sends_besides_is_ignored_with_a_reason(name: str, reasons: list[str]) -> None:
    assert read_event(body(name)) == [IgnoredEvent(reason) for reason in reasons]


def test_a_body_of_several_records_is_read_one_by_one() -> None:
    parts, copy, removal, tagging = read_event(body("aws_s3_several"))
    assert isinstance(parts, ChangeFileArrived)
    assert (parts.keys[0], parts.etag, parts.size) == (KEY, "3858f62230ac3c915f300c664312c63f-7", 104857601)
    assert isinstance(copy, ChangeFileArrived)
    assert copy.keys[0] == KEY.replace("changes", "processed")
    assert [removal, tagging] == [IgnoredEvent("ObjectRemoved:Delete"), IgnoredEvent("ObjectTagging:Put")]


@pytest.mark.parametrize("key", ["%2B and + and %20", "ü/☂ 100%.csv", "a&b=c;d.csv", "~!'()*", "%E2%98"])
@pytest.mark.parametrize("name", STORES)
def test_a_key_arrives_unharmed_from_every_store(name: str, key: str) -> None:
    (arrived,) = read_event(body(name, "another", key))
    assert isinstance(arrived, ChangeFileArrived)
    assert (arrived.bucket, arrived.keys[0]) == ("another", key)


@given(st.sampled_from(STORES), st.text(min_size=1, max_size=40).filter(lambda key: "\0" not in key))
def test_any_key_arrives_unharmed(name: str, key: str) -> None:
    (arrived,) = read_event(body(name, "another", key))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.keys[0] == key


def test_the_other_reading_of_a_key_stays_a_candidate() -> None:
    (arrived,) = read_event(records(record("ObjectCreated:Put", "a%2Bb", "ceph:s3")))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.keys == ("a%2Bb", "a+b")


def test_our_own_message_survives_the_journey() -> None:
    arrived = ChangeFileArrived(bucket="isptickets", keys=(RAW,), etag="e", size=3, seen_by="poller")
    assert read_event(arrived.model_dump_json().encode()) == [arrived]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (records(record("ObjectRemoved:Delete", RAW, "ceph:s3")), "ObjectRemoved:Delete"),
        (records(record("s3:ObjectCreated:PutRetention", ENCODED, "rustfs:s3")), "ObjectCreated:PutRetention"),
        (b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}', "test event"),
        (b'{"Records": []}', "event without records"),
        (b'{"detail-type": "Object Deleted", "detail": {"bucket": {"name": "b"}}}', "EventBridge Object Deleted"),
    ],
)
def test_what_announces_no_arrival_is_ignored_with_a_reason(event: bytes, reason: str) -> None:
    assert read_event(event) == [IgnoredEvent(reason)]


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"[" * 100_000,
        b'{"Records": [{}]}',
        b'{"Records": [7]}',
        records(record("ObjectCreated:Put", "", "ceph:s3")),
        records(record("ObjectCreated:Put", "a\0b", "ceph:s3")),
        records(record("ObjectCreated:Put", "k" * 1025, "ceph:s3")),
        records(record("ObjectCreated:Put", "\ud800", "ceph:s3")),
        b'{"type": "ChangeFileArrived", "bucket": "b", "keys": [], "seen_by": "poller"}',
        b'{"Type": "Notification", "Message": "no json"}',
        b'{"detail-type": "Object Created", "detail": {}}',
    ],
)
def test_a_body_that_is_no_event_is_refused_with_a_reason(event: bytes) -> None:
    with pytest.raises(NotAnEvent) as refusal:
        read_event(event)
    assert refusal.value.reason == "not an event"
    assert refusal.value.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["Records", "s3", "bucket", "object", "key", "name", "eventName", "data", "Type", "Message", "type"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@st.composite
def spoilt_bodies(draw: st.DrawFn) -> bytes:
    """A store's body with one thing in it exchanged for anything, and perhaps cut off."""
    event = json.loads(body(draw(st.sampled_from((*STORES, "aws_s3_several", "aws_test_event")))))
    at: Any = event
    while True:
        place = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        inner = at[place]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            at[place] = draw(JSON)
            break
        at = inner
    spoilt = json.dumps(event).encode()
    return spoilt[: draw(st.integers(0, len(spoilt)))] if draw(st.booleans()) else spoilt


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | spoilt_bodies())
def test_no_body_does_anything_but_parse_be_ignored_or_be_refused(event: bytes) -> None:
    with contextlib.suppress(Permanent):
        found = read_event(event)
        assert found
        assert all(arrived.keys for arrived in found if isinstance(arrived, ChangeFileArrived))
        assert all(ignored.reason for ignored in found if isinstance(ignored, IgnoredEvent))


@pytest.mark.parametrize("size", ["48213", 48213])
def test_sizes_come_as_numbers_and_as_strings(size: object) -> None:
    (arrived,) = read_event(records(record("ObjectCreated:Put", RAW, "ceph:s3", size=size)))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.size == 48213


@pytest.mark.parametrize("size", [None, "many", -1, 1e400, [], 2**70])
def test_a_size_that_makes_no_sense_is_no_reason_to_lose_the_file(size: object) -> None:
    (arrived,) = read_event(records(record("ObjectCreated:Put", RAW, "ceph:s3", size=size)))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.size is None


def test_a_reading_of_a_key_that_cannot_be_is_dropped_and_the_other_kept() -> None:
    (arrived,) = read_event(records(record("ObjectCreated:Put", "%00.csv", "ceph:s3")))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.keys == ("%00.csv",)


def test_an_etag_beyond_reason_is_no_reason_to_lose_the_file() -> None:
    (arrived,) = read_event(records(record("ObjectCreated:Put", RAW, "ceph:s3", eTag="e" * 9000)))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.etag == ""


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-06-25T11:20:03", "yesterday", 1782386403, None],
)
def test_a_time_that_no_clock_shows_is_none_and_the_key_is_taken_all_the_same(time: Any) -> None:
    sent = record("s3:ObjectCreated:Put", ENCODED, "rustfs:s3") | {"eventTime": time}
    (arrived,) = read_event(records(sent))
    assert isinstance(arrived, ChangeFileArrived)
    assert (arrived.keys[0], arrived.event_time) == (KEY, None)


def test_a_broken_record_is_told_of_beside_the_good_ones() -> None:
    good = record("ObjectCreated:Put", ENCODED, "aws:s3")
    first, second, broken = read_event(records(good, {"eventName": 1}, good))
    assert isinstance(first, ChangeFileArrived)
    assert first == second
    assert isinstance(broken, NotAnEvent)


@pytest.mark.parametrize(
    "event",
    [
        b'{"Records":[' + b"1," * (MAX_BYTES // 2 - 10) + b"1]}",
        b'{"Records":[' + b"1," * 4_000_000 + b"1]}",
        b'{"Records":[' + b"{}," * MAX_RECORDS + b"{}]}",
        b"[" * (8 << 20),
    ],
    ids=["as large as is read", "8 MB", "too many", "deep"],
)
def test_a_body_of_nothing_costs_no_memory_to_speak_of(event: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NotAnEvent):
            read_event(event)
        assert tracemalloc.get_traced_memory()[1] < 40 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_more_good_records_than_any_store_sends_are_refused_and_as_many_as_may_be_are_read() -> None:
    good = record("ObjectCreated:Put", ENCODED, "aws:s3")
    assert len(read_event(records(*[good] * MAX_RECORDS))) == MAX_RECORDS
    with pytest.raises(NotAnEvent, match="more than 1,000 records"):
        read_event(records(*[good] * (MAX_RECORDS + 1)))


def test_the_reasons_of_ignored_events_are_a_fixed_set() -> None:
    named = [record(f"s3:Object{number}:x", KEY, "ceph:s3") for number in range(MAX_RECORDS)]
    assert set(read_event(records(*named))) == {IgnoredEvent("another event")}
    assert read_event(b'{"detail-type": "of a stranger", "detail": {}}') == [IgnoredEvent("another event")]


@pytest.mark.parametrize(
    ("spoilt", "read"),
    [
        ({"size": 1e30}, {"size": None}),
        ({"size": 2**63}, {"size": None}),
        ({"event_time": "0001-01-01T00:00:00+14:00"}, {"event_time": None}),
        ({"event_time": "2026-06-25T11:20:03"}, {"event_time": None}),
        ({"etag": "e" * 9000}, {"etag": ""}),
        ({"etag": "a\0b"}, {"etag": ""}),
        ({"keys": ["a\0b", RAW]}, {"keys": (RAW,)}),
    ],
)
def test_what_makes_no_sense_in_an_event_of_ours_is_left_out_as_in_a_stores(
    spoilt: dict[str, object], read: dict[str, object]
) -> None:
    own = {"type": "ChangeFileArrived", "bucket": "b", "keys": [RAW], "seen_by": "poller", "etag": "e", "size": 3}
    (arrived,) = read_event(json.dumps(own | spoilt).encode())
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.model_dump() | read == arrived.model_dump()

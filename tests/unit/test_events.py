"""Notification bodies, written by hand after what each store sends."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import Permanent
from publisher.events import IgnoredEvent, NotAnEvent, read_event
from publisher.messages import ChangeFileArrived

RAW = "automations/inc/changes/2026-06-25 14:20:00+03:00.csv"
ENCODED = "automations%2Finc%2Fchanges%2F2026-06-25+14%3A20%3A00%2B03%3A00.csv"


def record(name: str, key: str, source: str, **fields: Any) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "eventTime": "2026-06-25T11:20:03.412Z",
        "eventName": name,
        "s3": {"bucket": {"name": "isptickets"}, "object": {"key": key, **fields}},
    }


def body(*records: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({**more, "Records": list(records)}).encode()


CEPH = record("ObjectCreated:Put", RAW, "ceph:s3", size=7, eTag="ac3e", versionId="")
RUSTFS = record("s3:ObjectCreated:Put", ENCODED, "rustfs:s3", size="48213", eTag="6f59")
WRAPPED = {"object_name": ENCODED, "bucket_name": "isptickets", "event_name": "s3:ObjectCreated:Put", "data": RUSTFS}
EVENTBRIDGE = {
    "detail-type": "Object Created",
    "time": "2026-06-25T11:20:03Z",
    "detail": {"bucket": {"name": "isptickets"}, "object": {"key": RAW, "size": 5, "etag": "b194"}},
}


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(body(CEPH), id="Ceph, raw key"),
        pytest.param(body(RUSTFS, EventName="s3:ObjectCreated:Put", Key=f"isptickets/{RAW}"), id="RustFS webhook"),
        pytest.param(body(WRAPPED, EventName="s3:ObjectCreated:Put"), id="RustFS AMQP, wrapped"),
        pytest.param(body(record("s3:ObjectCreated:Copy", ENCODED, "minio:s3")), id="MinIO"),
        pytest.param(body(record("ObjectCreated:CompleteMultipartUpload", ENCODED, "aws:s3")), id="AWS"),
        pytest.param(body(record("s3:ObjectCreated:Put", RAW, "aws:s3")), id="VersityGW, raw key"),
        pytest.param(json.dumps(EVENTBRIDGE).encode(), id="EventBridge, raw key"),
        pytest.param(
            json.dumps(
                {"Type": "Notification", "Message": body(record("ObjectCreated:Put", ENCODED, "aws:s3")).decode()}
            ),
            id="AWS through SNS",
        ),
    ],
)
def test_every_store_announces_the_same_key(event: bytes) -> None:
    (arrived,) = read_event(event)
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.bucket == "isptickets"
    assert arrived.keys[0] == RAW
    assert arrived.seen_by == "notification"


def test_the_other_reading_of_a_key_stays_a_candidate() -> None:
    (arrived,) = read_event(body(record("ObjectCreated:Put", "a%2Bb", "ceph:s3")))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.keys == ("a%2Bb", "a+b")


def test_several_records_are_several_arrivals() -> None:
    events = read_event(body(CEPH, record("ObjectRemoved:Delete", RAW, "ceph:s3"), RUSTFS))
    assert [type(event) for event in events] == [ChangeFileArrived, IgnoredEvent, ChangeFileArrived]


def test_our_own_message_survives_the_journey() -> None:
    arrived = ChangeFileArrived(bucket="isptickets", keys=(RAW,), etag="e", size=3, seen_by="poller")
    assert read_event(arrived.model_dump_json().encode()) == [arrived]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (body(record("ObjectRemoved:Delete", RAW, "ceph:s3")), "ObjectRemoved:Delete"),
        (body(record("s3:ObjectCreated:PutRetention", ENCODED, "rustfs:s3")), "ObjectCreated:PutRetention"),
        (b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}', "test event"),
        (b'{"Records": []}', "event without records"),
        (json.dumps({**EVENTBRIDGE, "detail-type": "Object Deleted"}).encode(), "EventBridge Object Deleted"),
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
        body(record("ObjectCreated:Put", "", "ceph:s3")),
        body(record("ObjectCreated:Put", "a\0b", "ceph:s3")),
        body(record("ObjectCreated:Put", "k" * 1025, "ceph:s3")),
        body(record("ObjectCreated:Put", "\ud800", "ceph:s3")),
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


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_body_does_anything_but_parse_be_ignored_or_be_refused(event: bytes) -> None:
    with contextlib.suppress(Permanent):
        assert read_event(event)


@pytest.mark.parametrize("size", ["48213", 48213])
def test_sizes_come_as_numbers_and_as_strings(size: object) -> None:
    (arrived,) = read_event(body(record("ObjectCreated:Put", RAW, "ceph:s3", size=size)))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.size == 48213


@pytest.mark.parametrize("size", [None, "many", -1, 1e400, [], 2**70])
def test_a_size_that_makes_no_sense_is_no_reason_to_lose_the_file(size: object) -> None:
    (arrived,) = read_event(body(record("ObjectCreated:Put", RAW, "ceph:s3", size=size)))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.size is None


def test_a_reading_of_a_key_that_cannot_be_is_dropped_and_the_other_kept() -> None:
    (arrived,) = read_event(body(record("ObjectCreated:Put", "%00.csv", "ceph:s3")))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.keys == ("%00.csv",)


def test_an_etag_beyond_reason_is_no_reason_to_lose_the_file() -> None:
    (arrived,) = read_event(body(record("ObjectCreated:Put", RAW, "ceph:s3", eTag="e" * 9000)))
    assert isinstance(arrived, ChangeFileArrived)
    assert arrived.etag == ""

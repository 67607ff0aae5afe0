"""One reader for the notification bodies of every store. Pure: bytes in, arrivals out.

Shapes: RustFS by AMQP/MQTT/NATS (each record wrapped in `data`) and by webhook, MinIO, Ceph RGW, VersityGW,
AWS S3 plain, through SNS and through EventBridge, and this project's own `ChangeFileArrived`.
Lenient on what it does not use, strict on what it uses.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from pydantic import ValidationError

from publisher.arrivals.messages import ChangeFileArrived
from publisher.errors import Permanent

NOT_AN_EVENT = "not an event"
"""The reason of a dead letter that is one for its body, not for the files that the body may name."""

MAX_BYTES = 1_000_000
"""The largest body that is read: stores send a kilobyte for each record. Its objects can take forty times as much."""
MAX_RECORDS = 1000

_ARRIVALS = frozenset({"Put", "Post", "Copy", "CompleteMultipartUpload"})
_OTHERS = frozenset(
    {"ObjectCreated:PutRetention", "ObjectCreated:PutLegalHold", "ObjectRemoved:Delete",
     "ObjectRemoved:DeleteMarkerCreated", "ObjectRemoved:DeleteAllVersions", "ObjectRemoved:NoOP",
     "ObjectAccessed:Get", "ObjectAccessed:Head", "ObjectTagging:Put", "ObjectTagging:Delete", "ObjectAcl:Put",
     "ObjectRestore:Post", "ObjectRestore:Completed", "ObjectRestore:Delete", "LifecycleExpiration:Delete",
     "LifecycleExpiration:DeleteMarkerCreated", "LifecycleTransition:", "IntelligentTiering:",
     "ObjectTransition:Failed", "ObjectTransition:Complete"}
)  # fmt: skip
"""Events of stores that bring no file, each counted under its name; any other name is a stranger's text."""
_MAX_ENVELOPES = 3
_MAX_KEY_BYTES = 1024
_MAX_ETAG = 200
_SANE_YEARS = range(1970, 9000)
"""In which a store's clock can be. Times at the ends of the calendar are none in other zones, and in Postgres."""


class NotAnEvent(Permanent):
    """The body is no event of any store we know: dead letter."""

    def __init__(self, detail: str) -> None:
        super().__init__(NOT_AN_EVENT, detail)


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """An event that asks for nothing: acknowledged and counted under `reason`."""

    reason: str


Event = ChangeFileArrived | IgnoredEvent | NotAnEvent


def read_event(body: bytes) -> list[Event]:
    """Read one notification body; one entry for each record in it, and NotAnEvent for the first that is broken.

    Raises: NotAnEvent, when there is nothing else in it, or so much that no store has written it.
    """
    if len(body) > MAX_BYTES:
        raise NotAnEvent(f"the body is larger than {MAX_BYTES:,} bytes")
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAnEvent("the body is not JSON") from None
    return _read(event, _MAX_ENVELOPES)


def _read(event: Any, envelopes_left: int) -> list[Event]:
    match event:
        case {"type": "ChangeFileArrived"}:
            return [_own(event)]
        case {"Type": "Notification", "Message": str(message)}:
            if not envelopes_left:
                raise NotAnEvent("SNS envelopes nested too deep")
            try:
                inner = json.loads(message)
            except (ValueError, RecursionError):
                raise NotAnEvent("the SNS message is not JSON") from None
            return _read(inner, envelopes_left - 1)
        case {"detail-type": str(kind), "detail": dict(detail)}:
            return [_eventbridge(kind, detail, event.get("time"))]
        case {"Event": "s3:TestEvent"}:
            return [IgnoredEvent("test event")]
        case {"Records": list(records)}:
            return _records(records)
        case _:
            raise NotAnEvent("neither Records nor any other shape that a store sends")


def _records(records: list[Any]) -> list[Event]:
    if len(records) > MAX_RECORDS:
        raise NotAnEvent(f"more than {MAX_RECORDS:,} records")
    found: list[Event] = []
    broken: NotAnEvent | None = None
    for record in records:
        try:
            found.append(_record(record))
        except NotAnEvent as error:
            broken = broken or error
    if broken is not None:
        if not found:
            raise broken
        found.append(broken)
    return found or [IgnoredEvent("event without records")]


def _own(event: dict[str, Any]) -> ChangeFileArrived:
    match event:
        case {"bucket": str(bucket), "keys": [str(key)] | [str(key), str()], "seen_by": str(seen_by)}:
            keys = (key, str(event["keys"][-1]))
            time = event.get("event_time")
            return _arrival(bucket, keys, event.get("etag"), event.get("size"), time, seen_by=seen_by)
        case _:
            raise NotAnEvent("a ChangeFileArrived without bucket, keys and seen_by")


def _eventbridge(kind: str, detail: dict[str, Any], time: Any) -> ChangeFileArrived | IgnoredEvent:
    if kind != "Object Created":
        known = kind in {"Object Deleted", "Object Tags Added", "Object Tags Deleted", "Object ACL Updated"}
        return IgnoredEvent(f"EventBridge {kind}" if known else "another event")
    match detail:
        case {"bucket": {"name": str(bucket)}, "object": {"key": str(key), **rest}}:
            return _arrival(bucket, (key, unquote_plus(key)), rest.get("etag"), rest.get("size"), time)
        case _:
            raise NotAnEvent("EventBridge event without bucket name and object key")


def _record(record: Any) -> ChangeFileArrived | IgnoredEvent:
    if isinstance(record, dict) and isinstance(record.get("data"), dict):
        record = record["data"]  # RustFS wraps the event for AMQP, MQTT and NATS, not for webhooks
    match record:
        case {
            "eventName": str(name),
            "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key), **rest}},
        }:
            pass
        case _:
            raise NotAnEvent("a record without eventName, bucket name and object key")
    family, _, kind = name.removeprefix("s3:").partition(":")
    if family != "ObjectCreated" or kind not in _ARRIVALS:
        return IgnoredEvent(f"{family}:{kind}" if f"{family}:{kind}" in _OTHERS else "another event")
    raw, decoded = key, unquote_plus(key)
    keys = (raw, decoded) if _sends_raw_keys(record, name) else (decoded, raw)
    return _arrival(bucket, keys, rest.get("eTag"), rest.get("size"), record.get("eventTime"))


def _sends_raw_keys(record: dict[str, Any], event_name: str) -> bool:
    source = str(record.get("eventSource", ""))
    # VersityGW calls itself aws:s3 but, unlike AWS, prefixes the event's name.
    return source.startswith("ceph:") or (source == "aws:s3" and event_name.startswith("s3:"))


def _arrival(
    bucket: str, keys: tuple[str, str], etag: Any, size: Any, time: Any, *, seen_by: str = "notification"
) -> ChangeFileArrived:
    storable = tuple(dict.fromkeys(filter(_is_storable, keys)))
    if not storable:
        raise NotAnEvent("a key that no store can have: empty, over 1,024 bytes, or with NUL or half a character in it")
    try:
        return ChangeFileArrived.model_validate(
            {
                "bucket": bucket,
                "keys": storable,
                "etag": etag.strip('"')
                if isinstance(etag, str) and len(etag) <= _MAX_ETAG and _is_storable(etag)
                else "",
                "size": _size(size),
                "seen_by": seen_by,
                "event_time": _time(time),
            }
        )
    except ValidationError as error:
        raise NotAnEvent(f"a record with a wrong {error.errors()[0]['loc'][0]}") from None


def _is_storable(key: str) -> bool:
    """Whether a store can have named an object so, and Postgres can keep it as text."""
    try:
        return 0 < len(key.encode()) <= _MAX_KEY_BYTES and "\0" not in key
    except UnicodeEncodeError:
        return False


def _size(size: Any) -> int | None:
    """Sizes come as numbers and, from some stores, as strings of digits; it is only a hint."""
    try:
        number = int(size)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**63 else None


def _time(time: Any) -> datetime | None:
    """Give the instant, None for what is none; it is only told, never decided by."""
    try:
        parsed = datetime.fromisoformat(time)
    except (TypeError, ValueError):
        return None
    return parsed if parsed.tzinfo and parsed.year in _SANE_YEARS else None

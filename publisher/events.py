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

from publisher.errors import Permanent
from publisher.messages import ChangeFileArrived

NOT_AN_EVENT = "not an event"
"""The reason of a dead letter that is one for its body, not for the files that the body may name."""

_ARRIVALS = frozenset({"Put", "Post", "Copy", "CompleteMultipartUpload"})
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
    """Read one notification body; one entry for each record in it, NotAnEvent where that one is broken.

    Raises: NotAnEvent, when there is nothing else in it.
    """
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
    found: list[Event] = []
    broken: list[NotAnEvent] = []
    for record in records:
        try:
            found.append(_record(record))
        except NotAnEvent as error:
            broken.append(error)
    if broken and not found:
        raise broken[0]
    return [*found, *broken] or [IgnoredEvent("event without records")]


def _ignored(what: str) -> IgnoredEvent:
    """The reason is kept and counted, so what a stranger wrote in it has to be text."""
    return IgnoredEvent("".join(char if char.isprintable() else "?" for char in what[:80]))


def _own(event: dict[str, Any]) -> ChangeFileArrived:
    try:
        arrived = ChangeFileArrived.model_validate(event)
    except ValidationError as error:
        raise NotAnEvent(f"ChangeFileArrived with a wrong {error.errors()[0]['loc']}") from None
    if not all(map(_is_storable, arrived.keys)) or (arrived.etag and not _is_storable(arrived.etag)):
        raise NotAnEvent("a key that no store can have")
    return arrived


def _eventbridge(kind: str, detail: dict[str, Any], time: Any) -> ChangeFileArrived | IgnoredEvent:
    if kind != "Object Created":
        return _ignored(f"EventBridge {kind}")
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
        return _ignored(f"{family}:{kind}")
    raw, decoded = key, unquote_plus(key)
    keys = (raw, decoded) if _sends_raw_keys(record, name) else (decoded, raw)
    return _arrival(bucket, keys, rest.get("eTag"), rest.get("size"), record.get("eventTime"))


def _sends_raw_keys(record: dict[str, Any], event_name: str) -> bool:
    source = str(record.get("eventSource", ""))
    # VersityGW calls itself aws:s3 but, unlike AWS, prefixes the event's name.
    return source.startswith("ceph:") or (source == "aws:s3" and event_name.startswith("s3:"))


def _arrival(bucket: str, keys: tuple[str, str], etag: Any, size: Any, time: Any) -> ChangeFileArrived:
    storable = tuple(dict.fromkeys(filter(_is_storable, keys)))
    if not storable:
        raise NotAnEvent("a key that no store can have: empty, over 1,024 bytes, or with NUL or half a character in it")
    try:
        return ChangeFileArrived(
            bucket=bucket,
            keys=storable,
            etag=etag.strip('"') if isinstance(etag, str) and len(etag) <= _MAX_ETAG and _is_storable(etag) else "",
            size=_size(size),
            seen_by="notification",
            event_time=_time(time),
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

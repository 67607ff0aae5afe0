"""A made-up change file through the consumer's own statements, as its role and on its connection; then rolled back."""

import io
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import NoReturn

from consumer.fail_points import nowhere
from consumer.feeds.feed import Feed, FollowOn
from consumer.files.attempt import Candidate, Opened, attempt
from consumer.files.outcomes import Applied
from consumer.files.versions import Asked, Sighting, Trouble
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from publisher.arrivals.keys import ChangeFileKey, read_key

_FOLDER = "doctor/"


_VALUES = {
    "cluster": ("doctor", "doctor"),
    "latitude": ("-1.26", ""),
    "longitude": ("36.8", ""),
    "created_at_service": ("2000-01-01 00:00", "2000-01-01 00:00"),
    "closed_at": ("2000-01-01 01:00", ""),
    "mttr": ("60", ""),
}
"""Of two tickets, where the feed has such a column."""


def rehearsed_file(feed: Feed, name: str) -> bytes:
    """Two tickets that nobody else has, one of them closed, and a row that is none; with all that files need have."""
    there = [column for column in feed.columns if column in {*_VALUES, *feed.always} - {feed.id}]
    empty = ("", "")
    lines = [
        [feed.id, *there],
        *([f"doctor-{name}-{ticket}", *(_VALUES.get(column, empty)[ticket] for column in there)] for ticket in (0, 1)),
        ["a row that is none"] * (len(there) + 2),
    ]
    return "".join(f"{','.join(fields)}\n" for fields in lines).encode()


def rehearse(pool: Pool, feed: Feed, name: str, body: bytes) -> bool:
    """Claim, stage, merge, closures, rejects, outbox and watermark. Gives whether each had its effect; none stays.

    Locks are waited for no longer than seconds.
    Raises: HeldByAnother, DependencyDown, Permanent, Refused, each caused by what PostgreSQL said.
    """
    key = read_key(f"{_FOLDER}2000-01-01T000000.csv", _FOLDER)
    assert isinstance(key, ChangeFileKey)  # noqa: S101 - it is of our own making
    now = datetime.now(UTC)
    sighting = Sighting(feed, f"doctor-{name}", key, name, len(body), now, None, now, "poller")
    every_reject = ApplySettings.model_validate({"FLEETTICKETS_MAX_REJECT_SHARE": 1})
    opened = Opened(sighting, io.BytesIO(body).read)
    candidate = Candidate(sighting, Asked.BY_ITS_EVENT, every_reject, lambda: nullcontext(opened), _raised)
    with database.transaction(pool, keep=False) as connection:
        database.row(connection, "doctor", "bound_rehearsal")
        outcome = attempt(connection, candidate, nowhere)
        if not isinstance(outcome, Applied):
            return False
        expected = {
            "feed": feed.name, "file_id": outcome.file.file_id, "etag": name,
            "closures": int(FollowOn.HISTORY in feed.follow_ons), "requests": len(feed.follow_ons),
        }  # fmt: skip
        found = database.row(connection, "doctor", "rehearsed", expected, feed=feed)
        return bool(found and found["is_whole"])


def _raised(_connection: Connection, _sighting: Sighting, trouble: Trouble) -> NoReturn:
    raise trouble.error

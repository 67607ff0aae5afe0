"""Change files that exist nowhere but in a test."""

import contextlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.fail_points import Reached, nowhere
from consumer.feeds.declared import packaged_feeds
from consumer.files.applying import ToApply, apply_files
from consumer.files.ledger import lock_key, lock_keys
from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from consumer.files.versions import Asked, SeenBy, Sighting
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import ApplySettings
from publisher.arrivals.keys import ChangeFileKey, read_key
from publisher.errors import KeyInHand

CHANGES = "automations/inc/changes/"
ALLOWING = {"FLEETTICKETS_MISSING_COLUMNS": "allow"}
"""Files name no more columns than their test is about."""


@dataclass(frozen=True)
class ChangeFile:
    """A change file: the timestamp in its key, and what a GET would give."""

    name: str
    content: str | bytes
    etag: str = "etag"
    modified: datetime = field(default=datetime(2026, 6, 25, tzinfo=UTC))

    @property
    def bytes(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content


def sighting_of(file: ChangeFile, seen_at: datetime | None = None, seen_by: SeenBy = "poller") -> Sighting:
    key = read_key(f"{CHANGES}{file.name}.csv", CHANGES)
    assert isinstance(key, ChangeFileKey)
    seen_at = seen_at or datetime.now(UTC)
    feed, size = packaged_feeds().named("inc"), len(file.bytes)
    return Sighting(feed, "isptickets", key, file.etag, size, file.modified, None, seen_at, seen_by)


def apply_together(
    pool: Pool, files: Sequence[ChangeFile], reached: Reached = nowhere
) -> list[Applied | AlreadyApplied | Duplicate]:
    """Apply several in one transaction, as they wait together."""
    settings = ApplySettings.model_validate(ALLOWING)
    with postgres.transaction(pool) as connection:
        lock_keys(connection, "isptickets", [sighting_of(file).key.key for file in files])
        versions = [
            ToApply(sighting_of(file), io.BytesIO(file.bytes).read, settings, Asked.BY_ITS_EVENT) for file in files
        ]
        return apply_files(connection, versions, reached)


def apply_to(
    pool: Pool,
    file: ChangeFile,
    *,
    again: bool = False,
    settings: ApplySettings | None = None,
    seen_at: datetime | None = None,
    seen_by: SeenBy = "poller",
) -> Applied | AlreadyApplied | Duplicate:
    """Apply one change file in a transaction of its own, without bucket or broker, once nobody else has its key."""
    sighting = sighting_of(file, seen_at, seen_by)
    key = sighting.key
    while True:
        with contextlib.suppress(KeyInHand), postgres.transaction(pool) as connection:
            lock_key(connection, sighting.bucket, key.key)
            version = ToApply(
                sighting,
                io.BytesIO(file.bytes).read,
                settings or ApplySettings.model_validate(ALLOWING),
                Asked.BY_A_PERSON if again else Asked.BY_ITS_EVENT,
            )
            (applied,) = apply_files(connection, [version], nowhere)
            return applied
        time.sleep(0.01)

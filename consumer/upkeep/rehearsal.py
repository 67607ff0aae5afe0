"""A made-up change file through the consumer's own statements, as its role and on its connection; then rolled back."""

import io
import uuid
from datetime import UTC, datetime

from consumer.fail_points import nowhere
from consumer.files.applying import Applied, Sighting, apply_file, lock_key
from consumer.postgres import database
from consumer.postgres.database import Pool
from consumer.settings import ApplySettings
from publisher.arrivals.keys import ChangeFileKey, read_key

_FOLDER = "doctor/"


def rehearse(pool: Pool) -> bool:
    """Claim, stage, merge, closures, rejects, outbox and watermark. Gives whether each had its effect; none stays.

    Locks are waited for no longer than seconds.
    Raises: HeldByAnother, DependencyDown, Refused, each caused by what PostgreSQL said.
    """
    name = uuid.uuid4().hex
    body = (
        "ticket_id,cluster,latitude,longitude,created_at_service,closed_at,mttr\n"
        f"doctor-{name}-1,doctor-{name},-1.26,36.8,2000-01-01 00:00,2000-01-01 01:00,60\n"
        f"doctor-{name}-2,doctor-{name},,,2000-01-01 00:00,,\n"
        "a row that is none\n"
    ).encode()
    key = read_key(f"{_FOLDER}2000-01-01T000000.csv", _FOLDER)
    assert isinstance(key, ChangeFileKey)  # noqa: S101 - it is of our own making
    now = datetime.now(UTC)
    sighting = Sighting(f"doctor-{name}", _FOLDER, key, name, len(body), now, None, now, "poller")
    every_reject = ApplySettings.model_validate({"FLEETTICKETS_MAX_REJECT_SHARE": 1})
    with database.transaction(pool, keep=False) as connection:
        database.row(connection, "doctor", "bound_rehearsal")
        lock_key(connection, sighting.bucket, key.key)
        outcome = apply_file(
            connection, sighting, io.BytesIO(body).read, every_reject, again=False, released=False, at=nowhere
        )
        if not isinstance(outcome, Applied):
            return False
        found = database.row(connection, "doctor", "rehearsed", {"file_id": outcome.file.file_id, "etag": name})
        return bool(found and found["is_whole"])

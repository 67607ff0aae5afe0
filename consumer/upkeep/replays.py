"""What the ledger has of files whose dead letters were sent back to work."""

from collections.abc import Iterable, Mapping
from typing import Any

from consumer.postgres import database
from consumer.postgres.database import Connection
from publisher.broker import dead_letters
from publisher.broker.dead_letters import DeadLetter
from publisher.broker.replays import Fate, Replayed
from publisher.broker.topology import Queue
from publisher.terminal import moment

_Standing = Mapping[int, Mapping[str, Any]]
"""The versions of one key, by their numbers."""


class LedgerOfReplays:
    """Compares how each key stands with how it stood before its letter was sent back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before: dict[tuple[str, str], _Standing] = {}
        self._keys: dict[str, tuple[str, str]] = {}

    def begin(self, letter: DeadLetter) -> bool:
        """Only of files of a bucket anything is known.

        Raises: DependencyDown.
        """
        bucket = dead_letters.bucket_of(letter) if letter.queue is Queue.FILES else None
        if bucket is None:
            return False
        place = (bucket, letter.key.replace("\0", ""))
        self._keys[letter.id] = place
        if place not in self._before:
            self._before[place] = self._standings(bucket, [place[1]]).get(place[1], {})
        return True

    def outcomes(self) -> dict[str, Replayed]:
        """Of each letter. Raises: DependencyDown."""
        found: dict[tuple[str, str], Replayed] = {}
        for bucket in {bucket for bucket, _ in self._before}:
            keys = [key for one, key in self._before if one == bucket]
            now = self._standings(bucket, keys)
            for key in keys:
                found[bucket, key] = outcome(self._before[bucket, key], now.get(key, {}))
        return {letter: found[place] for letter, place in self._keys.items()}

    def _standings(self, bucket: str, keys: Iterable[str]) -> dict[str, dict[int, Mapping[str, Any]]]:
        standings: dict[str, dict[int, Mapping[str, Any]]] = {}
        with database.translated_errors():
            parameters = {"bucket": bucket, "keys": list(keys)}
            for row in database.rows(self._connection, "replays", "standings", parameters):
                standings.setdefault(row["key"], {})[row["file_id"]] = row
        return standings


def outcome(before: _Standing, now: _Standing) -> Replayed:
    """What a replay has come to, by what has changed since of its key."""
    changed = [row for number, row in now.items() if before.get(number, {}).get("mark") != row["mark"]]
    for row in changed:
        if row["applied_at"] != before.get(row["file_id"], {}).get("applied_at"):
            told = f"{row['rows_inserted']} new, {row['rows_updated']} updated, {row['rows_rejected']} rejected"
            return Replayed(Fate.APPLIED, f"{row['decision']}, {told}")
    for row in changed:
        why = f"{row['reason']}: {row['last_error']}"
        match row["state"]:
            case "failed" if row["retry_at"] is not None:
                return Replayed(Fate.UNDECIDED, f"{why}; it is tried again at {moment(row['retry_at'])}")
            case "failed" if row["dead_lettered_at"] is not None:
                return Replayed(Fate.FAILED, why)
            case "failed" | "seen":
                return Replayed(Fate.UNDECIDED, "it is in somebody's hand")
    for row in changed:
        return Replayed(Fate.NOTHING, row["reason"] or row["decision"])
    return Replayed(Fate.UNDECIDED, "nobody has decided it yet")

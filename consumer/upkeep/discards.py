"""Letting go of a dead letter for good, with the reason kept on record: a person's, or that its file was mended.

The record is written first and the letter settled second: a crash in between leaves a letter that is on record already,
and discarding it once more changes nothing. Where nobody is there to do that, the ledger is told third, so that until
then somebody looks for the letter again. The object stays in the bucket; nothing deletes it.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from psycopg.types.json import Jsonb

from consumer.fail_points import Reached
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.upkeep.views import OpenChannel
from publisher.broker import dead_letters
from publisher.broker.dead_letters import DeadLetter
from publisher.broker.topology import Queue
from publisher.errors import HeldByAnother

if TYPE_CHECKING:
    from datetime import datetime

MENDED = "mended: another version of its key was applied since"
_LOOKS = 5


def record(connection: Connection, letter: DeadLetter, reason: str) -> None:
    """Keep the letter and the reason in the database, and tell the ledger. Recording one twice keeps one.

    Raises: DependencyDown.
    """
    parameters = _parameters(letter, reason)
    with database.translated_errors(), connection.transaction():
        database.rows(connection, "discards", "keep_discard", parameters)
        database.rows(connection, "discards", "mark_discarded", parameters)


def _parameters(letter: DeadLetter, reason: str) -> dict[str, object]:
    return {
        "queue": letter.queue.value,
        "bucket": dead_letters.bucket_of(letter),
        "key": _storable(letter.key),
        "etag": None if letter.etag is None else _storable(letter.etag),
        "reason": reason,
        "died_of": _storable(letter.reason),
        "error": _storable(letter.error),
        "fingerprint": _storable(letter.fingerprint),
        "attempts": letter.attempts,
        "dead_at": letter.dead_at,
        "headers": Jsonb({_storable(name): _storable(str(value)) for name, value in letter.headers.items()}),
        "body": letter.body,
    }


class MendedLetters:
    """Lets go of the letters of versions that nobody misses any more, since another one of their key was applied.

    For one thread.
    """

    def __init__(self, pool: Pool, open_channel: OpenChannel, bucket: str, reached: Reached) -> None:
        self._pool = pool
        self._reached = reached
        self._open_channel = open_channel
        self._bucket = bucket
        # Of those that somebody has replayed there is no letter; in somebody's hand it would not be seen just now.
        self._in_vain: Counter[tuple[int, datetime]] = Counter()

    def settle(self) -> None:
        """Looks at the dead letters only where the ledger has a version of which there may be one.

        Raises: DependencyDown.
        """
        with database.transaction(self._pool) as connection:
            found = database.rows(connection, "discards", "mended", {"bucket": self._bucket})
        wanted = {
            (row["key"], row["etag"]): (row["file_id"], row["dead_lettered_at"])
            for row in found
            if self._in_vain[row["file_id"], row["dead_lettered_at"]] < _LOOKS
        }
        if not wanted:
            return
        try:
            with self._open_channel() as channel, dead_letters.browsing(channel, Queue.FILES, patience=0) as held:
                for letter in held:
                    version = (_storable(letter.key), letter.etag or "")
                    if version in wanted and letter.etag is not None and self._is_of_bucket(letter):
                        self._let_go(letter, held.settle)
        except HeldByAnother:  # who has them in hand just now
            return
        with database.transaction(self._pool) as connection:
            let_go = {"file_ids": [file_id for file_id, _ in wanted.values()], "reason": MENDED}
            database.rows(connection, "discards", "mark_let_go", let_go)
        self._in_vain.update(wanted.values())

    def _is_of_bucket(self, letter: DeadLetter) -> bool:
        return dead_letters.bucket_of(letter) == self._bucket

    def _let_go(self, letter: DeadLetter, settle: Callable[[DeadLetter], None]) -> None:
        with database.transaction(self._pool) as connection:
            database.rows(connection, "discards", "keep_discard", _parameters(letter, MENDED))
        self._reached("mended letter recorded, not settled")
        settle(letter)
        self._reached("mended letter settled, not marked")
        structlog.get_logger().info(
            "letter settled", key=letter.key, id=letter.id, trace_id=letter.trace.id, detail=MENDED
        )


def _storable(text: str) -> str:
    """The text as Postgres can keep it: it has no NUL, which a stranger's header may."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")

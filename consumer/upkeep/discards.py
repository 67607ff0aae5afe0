"""Letting go of a dead letter for good, with the reason kept on record.

The record is written first and the letter settled second: a crash in between leaves a letter that is on record already,
and discarding it once more changes nothing. The object stays in the bucket; nothing deletes it.
"""

from psycopg.types.json import Jsonb

from consumer.postgres import database
from consumer.postgres.database import Connection
from publisher.broker import dead_letters
from publisher.broker.dead_letters import DeadLetter


def record(connection: Connection, letter: DeadLetter, reason: str) -> None:
    """Keep the letter and the reason in the database, and tell the ledger. Recording one twice keeps one.

    Raises: DependencyDown.
    """
    parameters = {
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
    with database.translated_errors(), connection.transaction():
        database.rows(connection, "discards", "keep_discard", parameters)
        database.rows(connection, "discards", "mark_discarded", parameters)


def _storable(text: str) -> str:
    """The text as Postgres can keep it: it has no NUL, which a stranger's header may."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")

"""`dead-letters discard`: letting go of a dead letter for good, with the reason kept on record.

The record is written first and the letter settled second: a crash in between leaves a letter that is on record already,
and discarding it once more changes nothing. The object stays in the bucket; nothing deletes it.
"""

import contextlib
from typing import Annotated

import typer
from psycopg.types.json import Jsonb

from consumer import database, migrate
from consumer.database import Connection, Role
from consumer.settings import DatabaseSettings
from publisher import broker, dead_letters
from publisher.cli import AsJson, stop_on_signals
from publisher.dead_letter_commands import (
    LOCK,
    DryRun,
    Every,
    Limit,
    NewerThan,
    OfGroup,
    OfId,
    OfKey,
    OfQueue,
    OlderThan,
    holding,
    required,
    telling,
)
from publisher.dead_letters import DeadLetter, Selection
from publisher.errors import Misconfigured
from publisher.settings import load
from publisher.topology import Queue


def add_commands(to: typer.Typer) -> None:
    """Add the command to those of the publisher."""
    to.command("discard")(discard_letters)


def discard_letters(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why nobody needs them; kept on record.")],
    queue: OfQueue = Queue.FILES,
    letter_id: OfId = None,
    key: OfKey = None,
    group: OfGroup = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = None,
    every_letter: Every = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let go of dead letters for good. Body, headers and the reason stay in ingest.discards; the file in the bucket.

    Each is on record before it leaves the queue, so an interruption loses none. The same file sent again with other
    bytes is a new version and is applied as any other. What was done is told also when an error ends it. An --id or
    --key that no letter has is exit status 1.
    """
    if not reason.strip():
        raise Misconfigured("--reason is empty: say why nobody needs them")
    chosen = required(Selection(letter_id, key, group, older_than, newer_than, limit), every=every_letter)
    done = "would discard" if dry_run else "discarded"
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection:
        migrate.require_migrated(connection)
        stop = stop_on_signals()
        with (
            holding(queue, "discard") as (channel, held),
            contextlib.nullcontext() if dry_run else broker.alone(channel, LOCK),
            telling(done, as_json=as_json) as outcome,
        ):
            for letter in chosen.of(held):
                if stop.is_set():
                    break
                if not dry_run:
                    record(connection, letter, reason.strip())
                    held.settle(letter)
                outcome.add(letter)


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

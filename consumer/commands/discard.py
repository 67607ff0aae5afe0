"""`dead-letters discard`."""

from typing import Annotated

import typer

from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from consumer.upkeep.discards import record
from publisher.broker.dead_letters import Selection
from publisher.broker.topology import Queue
from publisher.commands.dead_letters import (
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
from publisher.errors import Misconfigured
from publisher.program import AsJson, stop_on_signals
from publisher.settings import load


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
            holding(queue, "discard") as (_, held),
            telling(done, as_json=as_json) as outcome,
        ):
            for letter in chosen.of(held):
                if stop.is_set():
                    break
                if not dry_run:
                    record(connection, letter, reason.strip())
                    held.settle(letter)
                outcome.add(letter)

"""`reseed`."""

import json
from typing import Annotated

import typer

from consumer.commands.served import served_feeds
from consumer.feeds.feed import Feed
from consumer.files import ledger
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Connection, Role
from consumer.settings import DatabaseSettings
from publisher.program import AsJson, OfFeeds
from publisher.settings import load
from publisher.terminal import printable


def reseed(
    reason: Annotated[str, typer.Option(help="Kept with the epoch.")] = "reseed",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Begin a new epoch of each feed, for the cut-over to a new bucket.

    Files claimed from then on outrank every row written before, whatever instant their names say: a new bucket whose
    files are stamped older than what is in the database is then applied instead of being held back. It cannot be
    undone.
    """
    feeds = served_feeds(feed)
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        migrate.require_migrated(connection)
        feed_tables.require(connection, feeds.served)
        if not yes:
            for one in feeds:
                _tell(connection, one)
            typer.confirm("Let every file claimed from now on outrank all that is there?", abort=True, err=True)
        with connection.transaction():
            epochs = {one.name: ledger.begin_epoch(connection, one.name, reason) for one in feeds}
    if as_json:
        typer.echo(json.dumps({"epochs": epochs}))
    for name, epoch in epochs.items() if not as_json else ():
        typer.echo(f"{name}: epoch {epoch} has begun")


def _tell(connection: Connection, feed: Feed) -> None:
    now = ledger.current_epoch(connection, feed.name)
    watermark = database.row(connection, "status", "watermark", {"feed": feed.name}) or {}
    began = f"epoch {now.epoch} began {now.began_at:%Y-%m-%d %H:%M} ({printable(now.reason)})"
    known = f"watermark {printable(str(watermark.get('key')))}, {watermark.get('row_count') or 0} tickets"
    typer.echo(f"{feed.name}: {began}; {known}", err=True)

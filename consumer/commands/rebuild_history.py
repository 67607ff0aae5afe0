"""`rebuild-history`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from consumer.commands.printing import shown
from consumer.commands.served import served_feeds
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.settings import ApplySettings, DatabaseSettings
from consumer.upkeep.rebuild import Rebuild, Rebuilt
from publisher import program
from publisher.errors import Misconfigured
from publisher.program import EXIT_FAILED, AsJson, OfFeeds
from publisher.settings import BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import printable

_SHOWN = 20


def rebuild_history(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many files it would read.")] = False,
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Read from the archive what tickets were before their history was kept.

    The history of a feed begins with the first file that is applied while FLEETTICKETS_KEEP_VERSIONS_DAYS is not 0.
    This reads the files that were applied before, the newest first, as far back as that many days, and puts each
    content in its place. Tickets, ledger and bucket stay as they are. It is safe beside running consumers, can be
    interrupted or killed and goes on where it was; what it has read it does not read again. Files of the same
    tickets wait for some seconds at a time.

    Exit status 1 when a file could not be read, or when it was interrupted: what is older than that stays unknown.
    """
    database_settings, bucket_settings, settings = load(DatabaseSettings), load(BucketSettings), load(ApplySettings)
    if not settings.keep_versions_days:
        raise Misconfigured("FLEETTICKETS_KEEP_VERSIONS_DAYS is 0: no history is kept")
    feeds = served_feeds(feed)
    stop = program.stop_on_signals(second_aborts=True)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
        feed_tables.require(connection, feeds.served)
    with database.open_pool(database_settings, 1, "rebuild") as pool, program.progress(as_json=as_json) as bar:
        bucket = Bucket(bucket_settings, feeds.folders)
        bucket.require()
        rebuild = Rebuild(pool, bucket, datetime.now(UTC) - timedelta(days=settings.keep_versions_days), stop)
        counts = {one.name: rebuild.count(one) for one in feeds}
        if dry_run:
            _tell_counts(counts, as_json=as_json)
            return
        task = bar.add_task("reading", total=sum(counts.values()))
        results = [rebuild.run(one, lambda files: bar.advance(task, files)) for one in feeds]
    if as_json:
        typer.echo(json.dumps({"feeds": [result.model_dump(mode="json") for result in results]}))
    else:
        _tell(results)
        if stop.is_set():
            typer.echo("interrupted; run it again to go on")
    if stop.is_set() or any(result.unread for result in results):
        raise typer.Exit(EXIT_FAILED)


def _tell_counts(counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"files": counts}))
        return
    for name, files in counts.items():
        typer.echo(f"{name}: {files} files to be read")


def _tell(results: list[Rebuilt]) -> None:
    for result in results:
        since = f"nothing is missing since {shown(result.since)}" if result.since else "nothing is missing"
        typer.echo(
            f"{result.feed}: {result.files} files read, {result.rows} rows, {result.changed} of them news; {since}"
        )
        for file in result.unread[:_SHOWN]:
            typer.echo(f"    not read: {printable(file.key)}: {printable(file.reason)}")
        if len(result.unread) > _SHOWN:
            typer.echo(f"    and {len(result.unread) - _SHOWN} more that were not read")

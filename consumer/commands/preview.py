"""`preview`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from consumer.commands.printing import print_json, shown, words_of_changed, words_of_rejected
from consumer.commands.served import one_feed, served_feeds
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.settings import ApplySettings, DatabaseSettings
from consumer.upkeep.preview import ColumnJudged, Preview, preview_file, preview_key
from publisher import program
from publisher.errors import Misconfigured
from publisher.program import EXIT_FAILED, AsJson
from publisher.settings import BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import printable


def preview(
    file: Annotated[
        str, typer.Argument(metavar="FILE|KEY", help="A local CSV file, or a key of the bucket.", show_default=False)
    ],
    feed: Annotated[
        str | None,
        typer.Option("--feed", metavar="NAME", help="Whose a local file is, where several feeds are served."),
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="As if it were let go without columns that its exporter always writes."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what a file would do, by doing it and undoing it: nothing stays.

    Shown are the header, column by column; what would become of the rows and lines; the first rejected rows; the first
    tickets that would change, with their values before and after; and what tickets would lose: closings, and values of
    typed columns. A local file is taken as `import-csv` takes it, a key in changes/ or processed/ as `drain` does.

    Exit status 1 when the file would be refused, or when tickets would lose something; 0 otherwise, also for rejected
    rows and for rows that a later change has overtaken.
    """
    database_settings, settings = load(DatabaseSettings), load(ApplySettings)
    path = Path(file)
    is_local = path.is_file()
    feeds = served_feeds([feed] if feed else [])
    whose = [one_feed(feed)] if is_local else feeds.served
    if not is_local and feeds.of_key(file) is None:
        raise Misconfigured(f"{file!r} is neither a file here nor a key in changes/ or processed/ of a feed")
    bucket_settings = None if is_local else load(BucketSettings)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
        feed_tables.require(connection, whose)
    with database.open_pool(database_settings, 1, "preview") as pool:
        if bucket_settings is None:
            with program.progress(as_json=as_json, in_bytes=True) as bar:
                task = bar.add_task("trying", total=path.stat().st_size)
                told = preview_file(
                    pool,
                    whose[0],
                    path,
                    settings,
                    may_lack_columns=allow_missing,
                    told=lambda size: bar.advance(task, size),
                )
        else:
            bucket = Bucket(bucket_settings, feeds.folders)
            told = preview_key(pool, bucket, feeds, file, settings, may_lack_columns=allow_missing)
    (print_json if as_json else print_preview)(told)
    if told.is_bad:
        raise typer.Exit(EXIT_FAILED)


def print_preview(told: Preview) -> None:
    typer.echo(printable(f"{told.file}: {told.verdict}{_why(told)}"))
    if told.columns:
        _print_columns(told.columns)
    for line in (*_counts(told), *words_of_rejected(told.rejected), *_changed(told)):
        typer.echo(printable(line))
    for danger in told.dangers:
        typer.echo(printable(f"DANGER: {danger}"))
    typer.echo("nothing was changed")


def _counts(told: Preview) -> Iterator[str]:
    for name, counts in (("rows", told.rows), ("lines", told.lines)):
        if counts is not None:
            of_which = ", ".join(f"{n:,} {what}" for what, n in counts if n and what not in {"read", "never"})
            yield f"{name}: {counts.read:,} read{f', of which {of_which}' if of_which else ''}"
    if told.rows and told.rows.never:
        yield f"dates that mean never: {told.rows.never:,}"


def _changed(told: Preview) -> Iterator[str]:
    return words_of_changed(told.changed, told.rows.updated if told.rows else 0)


def _why(told: Preview) -> str:
    if told.decision:
        return f"; it would be applied as {told.decision}, of {shown(told.time)}"
    return f", {told.reason}{f': {told.detail}' if told.detail else ''}"


def _print_columns(columns: list[ColumnJudged]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for column in columns:
        name = "(no column)" if column.name is None else column.name or "(no name)"
        kept = {"id": "the id", "typed": "typed", "raw": "in raw alone", "dropped": "not kept"}[column.kept]
        cells = (f"    {name}", f"-> {column.column}", kept, ", ".join(column.remarks))
        table.add_row(*(escape(printable(cell)) for cell in cells))
    program.show(table)

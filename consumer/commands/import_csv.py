"""`import-csv`."""

from pathlib import Path
from typing import Annotated

import typer

from consumer.commands.drained import Apply, Worked, conclude, tell_each
from consumer.commands.served import one_feed
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.settings import ApplySettings, DatabaseSettings
from consumer.upkeep.drain import import_csv
from publisher import program
from publisher.program import AsJson
from publisher.settings import load


def import_local_file(
    file: Annotated[Path, typer.Argument(help="A CSV file in the form of a change file.")],
    apply: Apply = False,
    feed: Annotated[
        str | None, typer.Option("--feed", metavar="NAME", help="Whose file it is, where several feeds are served.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply one local CSV file.

    Its name gives the instant of the changes in it, as a key does (2026-06-25T142000.csv); with any other name it is
    the file's time of change. Importing the same bytes twice does nothing the second time.

    Exit status 1 when it fails; without --apply as `preview` has it: when the file would be refused, or when tickets
    would lose something.
    """
    database_settings, settings = load(DatabaseSettings), load(ApplySettings)
    whose = one_feed(feed)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
        feed_tables.require(connection, [whose])
    with (
        database.open_pool(database_settings, 1, "import") as pool,
        program.progress(as_json=as_json, in_bytes=True) as bar,
    ):
        task = bar.add_task("importing" if apply else "trying", total=file.stat().st_size if file.is_file() else None)
        outcome = import_csv(pool, whose, file, settings, apply=apply, told=lambda size: bar.advance(task, size))
    worked = Worked([(file.name, outcome)], apply)
    if not as_json:
        tell_each(worked)
    conclude(worked, as_json=as_json)

"""`reseed`."""

import json
from typing import Annotated

import typer

from consumer.files import ledger
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from publisher.program import AsJson
from publisher.settings import load
from publisher.terminal import printable


def reseed(
    reason: Annotated[str, typer.Option(help="Kept with the epoch.")] = "reseed",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Begin a new epoch, for the cut-over to a new bucket.

    Files claimed from then on outrank every row written before, whatever instant their names say: a new bucket whose
    files are stamped older than what is in the database is then applied instead of being held back. It cannot be
    undone.
    """
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        migrate.require_migrated(connection)
        now = ledger.current_epoch(connection)
        watermark = database.row(connection, "status", "watermark") or {}
        if not yes:
            typer.echo(f"epoch {now.epoch} began {now.began_at:%Y-%m-%d %H:%M} ({printable(now.reason)})", err=True)
            typer.echo(
                f"watermark {printable(str(watermark.get('key')))}, {watermark.get('row_count') or 0} tickets", err=True
            )
            typer.confirm("Let every file claimed from now on outrank all that is there?", abort=True, err=True)
        epoch = ledger.begin_epoch(connection, reason)
    typer.echo(json.dumps({"epoch": epoch}) if as_json else f"epoch {epoch} has begun")

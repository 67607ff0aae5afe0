"""`capture-history`."""

import json

import typer

from consumer.follow_ons import history
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from publisher.program import AsJson, Quiet, require_quiet_alone
from publisher.settings import load


def capture_history(quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Record closures and today's backlog now, for every file applied so far.

    A consumer does so behind each file by itself; where `drain` applies them, it is to be run after it.
    """
    require_quiet_alone(quiet=quiet, as_json=as_json)
    settings = load(DatabaseSettings)
    with database.connect(settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
    with database.open_pool(settings, 1, "capture") as pool:
        covered = len(history.capture(pool, unasked=True))
    if quiet:
        return
    typer.echo(json.dumps({"requests": covered}) if as_json else f"captured; {covered} open requests are covered by it")

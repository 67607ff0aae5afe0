"""`migrate`."""

import json
from typing import Annotated

import typer
from psycopg.errors import Diagnostic

from consumer.commands.served import served_feeds
from consumer.postgres import database, migrate
from consumer.settings import (
    DatabaseSettings,
)
from publisher.program import EXIT_FAILED, AsJson
from publisher.settings import load


def migrate_database(
    only_status: Annotated[bool, typer.Option("--status", help="Show what is pending; exit 1 if anything is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database to the current schema. Safe to repeat, and to run from several places at once.

    A database made by the batch import keeps its objects and rows: what is in place is recorded as adopted.
    """
    with database.connect(load(DatabaseSettings), None) as connection:
        if only_status:
            steps = migrate.status(connection)
            _show_steps(steps, migrate.ahead(connection), as_json=as_json)
            migrate.require_not_ahead(connection)
            if any(step.how is None or step.edited for step in steps):
                raise typer.Exit(EXIT_FAILED)
            return
        done: list[dict[str, str]] = []

        def report(name: str, how: str) -> None:
            done.append({"name": name, "how": how})
            if not as_json:
                typer.echo(f"{name}: {how}")

        connection.add_notice_handler(_tell_of_warning)
        count = migrate.migrate(connection, report, served_feeds().declared)
    typer.echo(json.dumps({"migrations": done}) if as_json else f"{count} migrations done; the schema is current")


def _tell_of_warning(found: Diagnostic) -> None:
    # What a migration tells the operator, and not PostgreSQL's own notices of what is there already.
    if found.severity_nonlocalized == "WARNING":
        typer.echo(f"note: {found.message_primary}", err=True)


def _show_steps(steps: list[migrate.Step], ahead: list[str], *, as_json: bool) -> None:
    if as_json:
        told = [{"name": step.name, "how": step.how, "edited": step.edited, "is_ours": True} for step in steps]
        told += [{"name": name, "how": "run", "edited": False, "is_ours": False} for name in ahead]
        typer.echo(json.dumps(told))
    else:
        for step in steps:
            when = f"{step.how} {step.applied_at:%Y-%m-%d %H:%M:%S %Z}" if step.applied_at else "pending"
            typer.echo(f"{step.name:28} {when}{'  EDITED since' if step.edited else ''}")
        for name in ahead:
            typer.echo(f"{name:28} of a newer version of the program")

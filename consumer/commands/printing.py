"""Values as JSON for a script, and as lines for a person."""

import json
from datetime import UTC, datetime

import typer
from rich.markup import escape
from rich.table import Table

from consumer.upkeep.views import View
from publisher import program
from publisher.terminal import printable


def print_json(view: View) -> None:
    """On one line."""
    typer.echo(json.dumps(view.model_dump(mode="json")))


def print_fields(view: View, leaving_out: set[str]) -> None:
    """Each that has a value and is no zero count, one below the other."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in view:
        if value not in (None, "", 0) and name not in leaving_out:
            table.add_row(f"    {name}", escape(printable(shown(value))))
    program.console().print(table)


def shown(value: object) -> str:
    """Times in UTC, to the second."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)

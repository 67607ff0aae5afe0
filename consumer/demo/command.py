"""The command `demo`."""

from typing import Annotated

import typer
from rich.console import Console

from consumer.demo.children import Signalled, interruptible
from consumer.demo.feed import FEWEST_FILES, FEWEST_ROWS
from consumer.demo.play import Options, play
from consumer.demo.view import Summary, as_json, print_summary, view_for
from publisher.program import EXIT_FAILED, AsJson


def demo(
    *,
    files: Annotated[
        int, typer.Option(min=2 * FEWEST_FILES, max=5000, help="Change files to play, of both feeds.")
    ] = 60,
    rows: Annotated[int, typer.Option(min=FEWEST_ROWS, max=20_000, help="Rows in each of them.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other feeds.")] = 254,
    rate: Annotated[float, typer.Option(min=0.1, help="Files put in a second; the store has its own limit.")] = 8,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services up to look at.")] = False,
    as_json_: AsJson = False,
) -> None:
    """Play the made-up feeds of a Kenyan provider into real services, live, and compare the end with what they imply.

    Incidents and change requests arrive at once; with many files, three to one.

    Uses the services that DATABASE_URL, RABBITMQ_URL and RUSTFS_ENDPOINT name, with a database, a virtual host and a
    bucket of its own, and starts private ones for what is not set. Exit status 0 only if every comparison holds.
    """
    # With --json, stdout is the script's alone.
    console = Console(stderr=as_json_)

    def report(summary: Summary) -> None:
        if as_json_:
            typer.echo(as_json(summary))
        else:
            print_summary(console, summary)

    try:
        with interruptible():
            ok = play(Options(files, rows, seed, rate, keep), view_for(console), report)
    except Signalled as stopped:
        typer.echo("stopped", err=True)
        raise typer.Exit(stopped.exit_code) from None
    if not ok:
        raise typer.Exit(EXIT_FAILED)

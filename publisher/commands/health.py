"""`health`."""

from collections.abc import Sequence
from typing import Annotated

import requests
import typer

_SECONDS = 5
_EXIT_FAILED = 1


def ask_health(
    port: Annotated[int, typer.Argument(min=1, max=65535, help="That of --metrics; of serve and webhook, --port.")],
    host: Annotated[str, typer.Option(help="Where it runs.")] = "127.0.0.1",
    live: Annotated[
        bool, typer.Option("--live", help="Ask whether it lives, and not whether it has all that it works with.")
    ] = False,
) -> None:
    """Ask a process that runs for long how it is; for a container's health check.

    Exit status 0 when it is well, 1 when it is not, or does not answer within five seconds.
    """
    page = "livez" if live else "readyz"
    named = f"[{host}]" if ":" in host else host
    try:
        with requests.Session() as session:
            session.trust_env = False  # what is here is asked by way of no proxy, whatever the environment has
            answer = session.get(f"http://{named}:{port}/{page}", timeout=_SECONDS)
    except requests.RequestException:
        typer.echo(f"nothing answers at {host} port {port}", err=True)
        raise typer.Exit(_EXIT_FAILED) from None
    typer.echo(answer.text.strip(), err=not answer.ok)
    if not answer.ok:
        raise typer.Exit(_EXIT_FAILED)


def alone(arguments: Sequence[str]) -> None:
    """The command without the program that it is part of, so that nothing else is read in."""
    command = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    command.command()(ask_health)
    command(list(arguments), prog_name="fleettickets health")

"""`python -m consumer`: the consumer's half of the program."""

import typer

from consumer import cli as commands
from publisher import cli

program = typer.Typer(no_args_is_help=True, add_completion=False, help="From message to rows.")
commands.add_commands(program)

if __name__ == "__main__":
    cli.run(program)

"""`python -m publisher`: the publisher's half of the program."""

import typer

from publisher import cli, dead_letter_commands, notification_command

program = typer.Typer(no_args_is_help=True, add_completion=False, help="From bucket to broker.")
cli.add_commands(program)
notification_command.add_commands(program)
dead_letter_commands.add_commands(program)

if __name__ == "__main__":
    cli.run(program)

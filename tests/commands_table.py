"""The tables of docs/commands.md: every command as its own help has it, in the groups of `fleettickets --help`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from typer.models import DefaultPlaceholder, TyperInfo

from consumer.program import program


@dataclass(frozen=True, slots=True)
class Command:
    """What can be called: its words behind `fleettickets`."""

    name: str
    panel: str
    function: Callable[..., Any]

    @property
    def told(self) -> str:
        """The first sentence of its help."""
        text = " ".join((self.function.__doc__ or "").partition("\n\n")[0].split())
        return text.removesuffix(".")


def commands() -> Iterator[Command]:
    for made in program.registered_commands:
        assert made.callback is not None
        yield Command(_named(made.name, made.callback), str(made.rich_help_panel), made.callback)
    for group in program.registered_groups:
        yield from _of_group(group)


def _of_group(group: TyperInfo) -> Iterator[Command]:
    assert group.typer_instance is not None
    for made in group.typer_instance.registered_commands:
        assert made.callback is not None
        yield Command(f"{group.name} {_named(made.name, made.callback)}", str(group.rich_help_panel), made.callback)


def _named(name: str | DefaultPlaceholder | None, function: Callable[..., Any]) -> str:
    return name if isinstance(name, str) else function.__name__.replace("_", "-")


def tables() -> str:
    found = list(commands())
    panels = dict.fromkeys(command.panel for command in found)
    return "\n".join(f"### {panel}\n\n{_table([one for one in found if one.panel == panel])}" for panel in panels)


def _table(found: list[Command]) -> str:
    rows = [f"| `{command.name}` | {command.told} |\n" for command in found]
    return "".join(["| command | |\n", "| --- | --- |\n", *rows])

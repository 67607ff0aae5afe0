"""How every command of the program runs and ends: one line for an error, codes for cron, signals, progress."""

import _thread
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from publisher import log
from publisher.arrivals.folders import Folder
from publisher.broker.replays import OpenReplays
from publisher.errors import FleetticketsError, Misconfigured
from publisher.heartbeat import Beating
from publisher.settings import LogSettings, load
from publisher.sources.poller import OpenSettled
from publisher.terminal import fitting, printable

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2
EXIT_COULD_NOT_LOOK = 3
EXIT_UNDECIDED = 3
_ENDLESS = 10_000
_TELLING = {"doctor", "--help", "-h", "--version"}
"""What tells of a wrong setting itself, or needs none."""

OfFeeds = Annotated[
    list[str] | None,
    typer.Option("--feed", metavar="NAME", help="Only this feed; may be given more than once.", show_default=False),
]
MetricsAt = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="[HOST:]PORT",
        help="Show Prometheus metrics, /livez and /readyz there; without a host, to this machine alone.",
    ),
]  # fmt: skip
Textfile = Annotated[
    Path | None,
    typer.Option(
        "--textfile", metavar="FILE", help="Also write what was found as Prometheus metrics, for node_exporter."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text for a person.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing while all is well, for cron.")]
WithoutBroker = Annotated[
    bool,
    typer.Option("--without-broker", help="Leave out what RabbitMQ would say: there is none here, or it is away."),
]


@dataclass(frozen=True, slots=True)
class Known:
    """What the commands of this package are told by the program that they are part of."""

    folders: Callable[[Iterable[str]], Sequence[Folder]]
    """Of the feeds of these names, or of all that are served. Raises: Misconfigured."""
    open_settled: OpenSettled
    """What is known of files that wait."""
    replays: OpenReplays
    """What becomes of dead letters that are sent back."""
    require_database: Callable[[], None]
    """At the start of who does without a database as well, and asks it where there is one. Raises: Misconfigured."""
    beating: Beating
    """Has what runs for long say now and then that it lives."""
    watching: Callable[[Sequence[str]], AbstractContextManager[None]]
    """Has what runs for long tell somebody of trouble, of feeds as with `folders`. Raises: Misconfigured."""


def run(program: typer.Typer, known: Known) -> NoReturn:
    """Run a program of commands; an error of ours is one line on stderr, never a traceback."""
    log.configure()
    try:
        if not _TELLING & set(sys.argv):
            log.configure(level=load(LogSettings).level)
        program(obj=known)
    except Misconfigured as error:
        print(printable(f"fleettickets: {error}"), file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_MISCONFIGURED)
    except FleetticketsError as error:
        print(printable(f"fleettickets: {error}"), file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def require_quiet_alone(*, quiet: bool, as_json: bool, for_long: bool = False) -> None:
    """Refuse `--quiet` beside what it contradicts.

    Raises: Misconfigured.
    """
    if quiet and (as_json or for_long):
        raise Misconfigured("--quiet is for a look that ends, told to nobody while all is well: without --json")


def console() -> Console:
    """A console that cuts and wraps nothing where a script or a pager reads."""
    return Console() if sys.stdout.isatty() else Console(width=_ENDLESS)


def say(text: str, below: str = "") -> None:
    """Print a line, nothing cut or padded. At the edge of a terminal it goes on in the next one, behind `below`."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(fitting(text, width, below))


def say_pairs(pairs: Sequence[tuple[str, str]], before: str = "") -> None:
    """Names and what is to be said of each, beside each other."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, text in pairs:
        say(f"{before}{name:<{width}}  {text}", " " * (len(before) + width + 2))


def show(table: Table) -> None:
    """Print a table, with nothing behind the last word of a line."""
    shown = console()
    with shown.capture() as captured:
        shown.print(table)
    typer.echo("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()), nl=False)


def progress(*, as_json: bool, in_bytes: bool = False) -> Progress:
    """A bar for work that takes long, where there is a terminal; beside JSON it goes to stderr."""
    on = Console(stderr=as_json)
    done = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    return Progress(*columns, console=on, transient=True, disable=not on.is_terminal)


def stop_on_signals(*, second_aborts: bool = False) -> Event:
    """An event that SIGTERM and SIGINT set; for work that a person waits for, a second Ctrl-C does not wait for it.

    A handler may come in the middle of anything, of the event's own work too, whose lock it then must not wait for.
    """
    stop = Event()

    def set_stop(number: int, _frame: object) -> None:
        if second_aborts and number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        _thread.start_new_thread(stop.set, ())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, set_stop)
    return stop

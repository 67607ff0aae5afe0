"""`rejects`: rows that could not be tickets, to be looked at and handed to whoever writes the exporter."""

import csv
import json
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.markup import escape
from rich.table import Table

from consumer.commands.served import served_feeds
from consumer.feeds.feed import Feed
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Connection, Role
from consumer.settings import DatabaseSettings
from consumer.upkeep import rejects as rejected
from consumer.upkeep.rejects import Chosen, RejectedRow, RejectGroup
from publisher import program
from publisher.commands.dead_letters import age
from publisher.errors import FleetticketsError, Misconfigured
from publisher.program import EXIT_FAILED, AsJson, OfFeeds
from publisher.settings import load
from publisher.terminal import duration, printable

_SHOWN = 20
_SHOWN_CHARS = 500
"""Of a row as it stood, to a person; --json has all that is kept."""
_COLUMNS = ("feed", "key", "line", "lines", "ticket_id", "reason", "at", "is_refused", "is_settled", "raw")
_FORMULA = re.compile(r"""(?:^|(?<=[;\t\r\n]))(?=[ "']*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
"""Where a spreadsheet could take what follows for a formula: it may part the columns at other marks than we do."""

OfFile = Annotated[
    str | None, typer.Option("--file", metavar="FILE", help="Only those of this file: its key, or its bare name.")
]
OfGroup = Annotated[str | None, typer.Option("--group", help="Only those with this fingerprint of the reason.")]
OlderThan = Annotated[
    timedelta | None,
    typer.Option("--older-than", parser=age, metavar="AGE", help="Only those rejected longer ago: 90s, 2h, 3d."),
]
NewerThan = Annotated[
    timedelta | None,
    typer.Option("--newer-than", parser=age, metavar="AGE", help="Only those rejected since: 15m, 1d."),
]
WithSettled = Annotated[bool, typer.Option("--all", help="Those that are settled as well.")]

rejects = typer.Typer(
    no_args_is_help=True,
    help="Rejected rows: look at them, and hand them to whoever writes the exporter.\n\n"
    "One is settled, and shown with --all only, once a later change of its ticket was applied, or its file counts no "
    "more: mended under the same key, its dead letter discarded, or passed over.",
)


@rejects.command("list")
def list_rejects(
    *,
    file: OfFile = None,
    group: OfGroup = None,
    feed: OfFeeds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    with_settled: WithSettled = False,
    as_json: AsJson = False,
) -> None:
    """List rejected rows in groups of one reason: how many, since when, an example.

    Of a file that was refused whole the first hundred are kept. Exit status 1 when the ledger has no such --file.
    """
    chosen = Chosen(None, group, older_than, newer_than, with_settled)
    with _asked(feed, file, chosen) as asked:
        found = asked.groups
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found]))
    elif not found:
        typer.echo(_nothing(chosen, file))
    else:
        _print_groups(found, with_settled=with_settled)


@rejects.command("show")
def show_rejects(
    *,
    file: OfFile = None,
    group: OfGroup = None,
    feed: OfFeeds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    with_settled: WithSettled = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The first N of them at most.")] = _SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show rejected rows as they stood, with file, line, ticket and reason. Exit status 1 when there are none."""
    chosen = Chosen(None, group, older_than, newer_than, with_settled)
    with _asked(feed, file, chosen) as asked:
        found = asked.first(limit)
        total = sum(one.rows for one in asked.groups)
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found]))
    else:
        for one in found:
            _print_row(one)
        if total > len(found):
            typer.echo(f"and {total - len(found)} more: --limit N, or rejects export")
    if not found:
        if not as_json:
            typer.echo(_nothing(chosen, file))
        raise typer.Exit(EXIT_FAILED)


@rejects.command("export")
def export_rejects(
    *,
    to: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write CSV to this file; - is the standard output.")
    ] = None,
    file: OfFile = None,
    group: OfGroup = None,
    feed: OfFeeds = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    with_settled: WithSettled = False,
    as_json: AsJson = False,
) -> None:
    """Write all of them as they stood, with file, line and reason, to be handed to the exporter's team.

    A spreadsheet opens the CSV without executing what is in it: what could be taken for a formula, at the beginning of
    a value or behind a semicolon, tab or line end in it, has an apostrophe before it. --json has each as it is. A FILE
    is written whole or not at all, and replaced.
    """
    if (to is None) == (not as_json):
        raise Misconfigured("say which: --csv FILE, or --json")
    chosen = Chosen(None, group, older_than, newer_than, with_settled)
    with _asked(feed, file, chosen) as asked, program.progress(as_json=True) as bar:
        total = None if bar.disable else sum(one.rows for one in asked.groups)
        rows = bar.track(asked.rows(), total=total, description="rows")
        if to is None:
            _write_json(rows, sys.stdout)
        elif to == "-":
            _write_csv(rows, sys.stdout, printable if sys.stdout.isatty() else str)
        else:
            with _written_whole(Path(to)) as written:
                count = _write_csv(rows, written)
            bar.stop()
            typer.echo(f"{count} rejected rows in {printable(to)}")


class NoSuchFile(FleetticketsError):
    """Somebody named a file that the ledger does not have."""

    def __init__(self, given: str) -> None:
        super().__init__(f"the ledger has no file {given!r}; see: fleettickets explain KEY")


class _Asked:
    """What there is of the chosen rows, in the feeds that were asked about."""

    def __init__(self, connection: Connection, chosen: list[tuple[Feed, Chosen]]) -> None:
        self._connection = connection
        self._chosen = chosen

    @property
    def groups(self) -> list[RejectGroup]:
        found = chain.from_iterable(rejected.groups(self._connection, feed, chosen) for feed, chosen in self._chosen)
        return sorted(found, key=lambda one: (-one.rows, one.oldest, one.feed, one.fingerprint))

    def first(self, limit: int) -> list[RejectedRow]:
        found: list[RejectedRow] = []
        for feed, chosen in self._chosen:
            found += rejected.rows(self._connection, feed, chosen, limit - len(found))
        return found

    def rows(self) -> Iterator[RejectedRow]:
        for feed, chosen in self._chosen:
            yield from rejected.rows(self._connection, feed, chosen)


@contextmanager
def _asked(names: list[str] | None, file: str | None, chosen: Chosen) -> Iterator[_Asked]:
    """Raises: Misconfigured, DependencyDown, NoSuchFile."""
    feeds = served_feeds(names)
    with database.connect(load(DatabaseSettings), Role.READ) as connection:
        migrate.require_migrated(connection)
        feed_tables.require(connection, feeds.served)
        if file is None:
            yield _Asked(connection, [(feed, chosen) for feed in feeds])
            return
        found = [(feed, replace(chosen, files=rejected.files_called(connection, feed, file))) for feed in feeds]
        known = [(feed, of_file) for feed, of_file in found if of_file.files]
        if not known:
            raise NoSuchFile(file)
        yield _Asked(connection, known)


def _nothing(chosen: Chosen, file: str | None) -> str:
    which = "" if chosen.with_settled else "open "
    is_narrowed = file is not None or chosen != Chosen(with_settled=chosen.with_settled)
    return f"no {which}rejects{' that fit' if is_narrowed else ''}"


def _print_groups(found: list[RejectGroup], *, with_settled: bool) -> None:
    settled = ("settled",) if with_settled else ()
    table = Table(
        "feed", "group", "rows", *settled, "files", "oldest", "newest", "reason", "the oldest's file and line", box=None
    )
    for one in found:
        refused = f" ({one.of_refused_files} of refused files)" if one.of_refused_files else ""
        table.add_row(
            one.feed, one.fingerprint, f"{one.rows}{refused}", *(str(one.settled) for _ in settled), str(one.files),
            _ago(one.oldest), _ago(one.newest), escape(printable(one.reason)),
            escape(printable(f"{one.key} line {one.line}")),
        )  # fmt: skip
    program.show(table)
    typer.echo("\nthe rows: rejects show --group GROUP; to hand them on: rejects export --group GROUP --csv FILE")


def _print_row(row: RejectedRow) -> None:
    lines = f"lines {row.line}-{row.line + row.lines - 1}" if row.lines > 1 else f"line {row.line}"
    told = [row.key, lines]
    if row.ticket_id is not None:
        told.append(f"ticket {row.ticket_id}")
    if row.is_refused:
        told.append("of a refused file")
    if row.is_settled:
        told.append("settled")
    raw = row.raw if len(row.raw) <= _SHOWN_CHARS else f"{row.raw[:_SHOWN_CHARS]}…"
    typer.echo(printable(", ".join(told)))
    typer.echo(f"    {printable(row.reason)}\n    {printable(raw)}")


def _write_json(rows: Iterable[RejectedRow], to: TextIO) -> None:
    """One list, a row on each line."""
    before = "["
    for row in rows:
        to.write(f"{before}{json.dumps(row.model_dump(mode='json'))}")
        before = ",\n"
    to.write("[]\n" if before == "[" else "]\n")


def _write_csv(rows: Iterable[RejectedRow], to: TextIO, shown: Callable[[str], str] = str) -> int:
    """Gives how many there are. Every value is in quotes, so that each mark in it is its own."""
    writer = csv.writer(to, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(_COLUMNS)
    count = 0
    for row in rows:
        values = row.model_dump(mode="json")
        writer.writerow([shown(as_text(values[name])) for name in _COLUMNS])
        count += 1
    return count


def as_text(value: Any) -> str:
    """As a spreadsheet shows it and takes it for no formula; without the apostrophes it is what it was.

    An apostrophe is put wherever one of = + - @ could begin a value, which a reader takes away again at just these
    places: before each of these marks at the beginning, or behind a semicolon, tab or line end, spaces, quotes and
    other apostrophes between them or not.
    """
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return _FORMULA.sub("'", text)


@contextmanager
def _written_whole(path: Path) -> Iterator[TextIO]:
    """What is written beside and takes the name in the end: nobody ever reads half of it.

    Raises: Misconfigured.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise Misconfigured(f"{path} is no file; - is the standard output")
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with beside.open("x", encoding="utf-8", newline="") as file:
                yield file
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror or error}") from None


def _ago(moment: datetime) -> str:
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"

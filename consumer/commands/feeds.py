"""`feeds`: what is declared, whether it is right, and the declaration of a new one."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.markup import escape
from rich.table import Table

from consumer.feeds.declared import (
    Declaration,
    declarations,
    declared_feeds,
    operators_files,
    packaged_feeds,
    parse_feed,
    read_feed,
    require_apart,
)
from consumer.feeds.feed import Feed
from consumer.files.guessing import Trial, guessed_declaration, reasons, tried
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.postgres.feed_tables import Made
from consumer.settings import ApplySettings, DatabaseChoice, DatabaseSettings, FeedsSettings
from publisher import program
from publisher.errors import FleetticketsError, Misconfigured, Permanent
from publisher.program import EXIT_FAILED, EXIT_MISCONFIGURED, AsJson
from publisher.settings import load
from publisher.terminal import printable

feeds = typer.Typer(
    no_args_is_help=True,
    help="Feeds are declared in files, NAME.toml: where their change files lie, which column is the id, what the "
    "others hold. Those of your own are in the folder FLEETTICKETS_FEEDS_DIR.\n\n"
    "A new one, from a sample of its files: `new NAME --from SAMPLE.csv --apply`, look at it, `check`, then "
    "`fleettickets migrate`; see docs/feeds.md.",
)


@feeds.command("list")
def list_feeds(as_json: AsJson = False) -> None:
    """Every feed that is declared, and those that the database has rows of and nobody declares any more.

    Rows are counted where DATABASE_URL is set; of a table with more than 100,000 it is told how many there are about,
    as ~123,456. Exit status 1 when the database cannot be asked.
    """
    settings = load(FeedsSettings)
    known = declarations(settings)
    served = {feed.name for feed in declared_feeds(settings)}
    made, fault = _asked()
    listed = [_listed(declaration, served, made) for declaration in known]
    names = {declaration.feed.name for declaration in known}
    gone = [
        {"name": name, "prefix": found.prefix, "table": f"tickets.{name}", **_rows(found)}
        for name, found in (made or {}).items()
        if name not in names
    ]
    if as_json:
        typer.echo(json.dumps({"feeds": listed, "undeclared": gone, "fault": fault}))
    else:
        _print_list(listed, gone)
    if fault is not None:
        if not as_json:
            typer.echo(printable(f"rows cannot be told: {fault}"), err=True)
        raise typer.Exit(EXIT_FAILED)


@feeds.command("check")
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Declarations; without any, all that are declared.")
    ] = None,
    sample: Annotated[
        Path | None, typer.Option("--sample", help="With one FILE: a change file, to see what of it would be accepted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge declarations, without a database. Each wrong one is one line with file and field; exit status 2 then.

    With --sample every row of a change file is judged as it would be when it arrives; exit status 1 where the file
    would fail whole.
    """
    if sample is not None and len(files or ()) != 1:
        raise Misconfigured("--sample goes with one FILE, the declaration to read it by")
    settings = load(FeedsSettings)
    judged, faults = _judged(files or operators_files(settings))
    # What is put beside the others has to be apart from them.
    others, _ = _judged(operators_files(settings)) if files else ([], [])
    together = {feed.name: feed for feed in [*packaged_feeds(), *others, *judged]}
    try:
        require_apart(together.values())
    except Misconfigured as error:
        faults.append(str(error))
    names = [feed.name for feed in judged] if files else sorted(together)
    trial = _tried(judged[0], sample) if sample is not None and not faults else None
    if as_json:
        typer.echo(json.dumps({"right": names, "faults": faults, "sample": _as_json(trial) if trial else None}))
    else:
        for fault in faults:
            typer.echo(printable(fault), err=True)
        if not faults:
            typer.echo(f"right: {', '.join(names)}")
        if trial and sample:
            _print_trial(sample, trial)
    if faults:
        raise typer.Exit(EXIT_MISCONFIGURED)
    if trial and trial.refused:
        if sample and not as_json:
            typer.echo(printable(f"{sample.name}: it would fail whole: {trial.refused}"), err=True)
        raise typer.Exit(EXIT_FAILED)


@feeds.command("new")
def new(  # noqa: PLR0917 - its parameters are its options
    name: Annotated[str, typer.Argument(help="What the feed is called, as its table is: tickets.NAME.")],
    sample: Annotated[Path, typer.Option("--from", metavar="SAMPLE.csv", help="A change file, or the top of one.")],
    prefix: Annotated[
        str | None, typer.Option("--prefix", help="Where its keys begin.", show_default="automations/NAME/")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", metavar="COLUMN", help="Which column tells whose row it is.", show_default="guessed"),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write it to FLEETTICKETS_FEEDS_DIR, not over a file.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a declaration guessed from a sample: the id, and what each column holds, with what each guess goes by.

    What is ambiguous is `any`: kept in raw, not looked at, without a column of the table. Dates as 01/31/2024 are not
    read and are `any`, too.
    """
    settings = load(FeedsSettings)
    known = [declaration.feed for declaration in declarations(settings)]
    if any(feed.name == name for feed in known):
        raise Misconfigured(f"a feed {name!r} is declared already; see: fleettickets feeds list")
    if apply and settings.folder is None:
        raise Misconfigured("--apply writes to the folder FLEETTICKETS_FEEDS_DIR, which is not set")
    where = f"automations/{name}/" if prefix is None else prefix
    # A wrong name is told before a long file is read.
    parse_feed(
        f"{name}.toml", f"name = {json.dumps(name)}\nprefix = {json.dumps(where)}\nid = 'x'\ncolumns.x = 'text'\n"
    )
    with _opened(sample) as file:
        text = guessed_declaration(name, where, id_column, sample.name, file)
    feed = parse_feed(f"{name}.toml", text)
    require_apart([*known, feed])
    written = _written(settings.folder / f"{name}.toml", text) if apply and settings.folder else None
    if as_json:
        declared = feed.model_dump(mode="json", exclude_defaults=True)
        typer.echo(json.dumps({"declaration": text, "feed": declared, "file": str(written) if written else None}))
    elif written:
        typer.echo(printable(f"wrote {written}; look at it, then: fleettickets feeds check, and fleettickets migrate"))
    else:
        typer.echo(text, nl=False)


@feeds.command("sql")
def show_sql(name: Annotated[str, typer.Argument(help="A feed that is declared.")], as_json: AsJson = False) -> None:
    """Print the statements by which `migrate` makes a feed's table, as psql takes them.

    To look at: `migrate` also records the declaration and gives the roles their rights. Each can be repeated.
    """
    statements = feed_tables.as_text(declared_feeds(load(FeedsSettings).model_copy(update={"names": ()})).named(name))
    typer.echo(json.dumps(statements) if as_json else "\n\n".join(f"{statement};" for statement in statements))


def _asked() -> tuple[dict[str, Made] | None, str | None]:
    """What the database has, and why it cannot be told; neither, where there is none to ask."""
    if not load(DatabaseChoice).is_made:
        return None, None
    try:
        with database.connect(load(DatabaseSettings), Role.READ) as connection:
            migrate.require_migrated(connection)
            return feed_tables.made(connection), None
    except FleetticketsError as error:
        return None, str(error)


def _listed(declaration: Declaration, served: set[str], made: dict[str, Made] | None) -> dict[str, Any]:
    feed = declaration.feed
    return {
        "name": feed.name,
        "prefix": feed.prefix,
        "declared_in": str(declaration.file) if declaration.file else None,
        "served": feed.name in served,
        "table": f"tickets.{feed.name}",
        "is_made": feed.name in made if made is not None else None,
        **_rows(made.get(feed.name) if made else None),
    }


def _rows(made: Made | None) -> dict[str, Any]:
    return {"rows": made and made.rows, "rows_are_estimated": made is not None and made.is_estimated}


def _print_list(listed: list[dict[str, Any]], gone: list[dict[str, Any]]) -> None:
    table = Table("feed", "prefix", "declared in", "served here", "table", "rows", box=None, pad_edge=False)
    for feed in listed:
        table.add_row(
            feed["name"],
            escape(printable(feed["prefix"] or "/")),
            escape(printable(feed["declared_in"] or "the program")),
            "yes" if feed["served"] else "no",
            feed["table"],
            "not made: fleettickets migrate" if feed["is_made"] is False else _shown(feed),
        )
    for feed in gone:
        prefix = escape(printable(feed["prefix"] or "/"))
        table.add_row(feed["name"], prefix, "nowhere any more", "no", feed["table"], _shown(feed))
    program.show(table)
    if gone:
        names = ", ".join(feed["name"] for feed in gone)
        typer.echo(f"declared nowhere any more: {names}; rows stay as they are, and files wait in changes/")


def _shown(feed: dict[str, Any]) -> str:
    return "" if feed["rows"] is None else f"{'~' if feed['rows_are_estimated'] else ''}{feed['rows']:,}"


def _judged(files: list[Path]) -> tuple[list[Feed], list[str]]:
    """The feeds of the declarations that are right, and a line for each that is not."""
    right, faults = [], []
    for file in files:
        try:
            right.append(read_feed(file))
        except Misconfigured as error:
            faults.append(str(error))
    return right, faults


def _tried(feed: Feed, sample: Path) -> Trial:
    settings = load(ApplySettings)
    allows = settings.missing_columns == "allow"
    with _opened(sample) as file:
        return tried(feed, file.read, max_reject_share=settings.max_reject_share, allows_missing=allows)


def _as_json(trial: Trial) -> dict[str, Any]:
    return {
        "rows": trial.rows,
        "accepted": trial.accepted,
        "tickets": trial.tickets,
        "rejected": [{"reason": reason, "rows": count, "first_line": line} for reason, count, line in reasons(trial)],
        "dropped": dict(trial.dropped),
        "refused": {"reason": trial.refused.reason, "detail": trial.refused.detail} if trial.refused else None,
    }


def _print_trial(sample: Path, trial: Trial) -> None:
    counts = f"{trial.accepted:,} accepted, of {trial.tickets:,} tickets; {trial.rejected.total():,} rejected"
    typer.echo(printable(f"{sample.name}: {trial.rows:,} rows: {counts}; {trial.dropped.total():,} dropped"))
    for reason, count, line in reasons(trial):
        typer.echo(printable(f"  {count:,} rejected: {reason}, first on line {line:,}"))
    for what, count in trial.dropped.items():
        typer.echo(f"  {count:,} dropped: {what}")


@contextmanager
def _opened(sample: Path) -> Iterator[BinaryIO]:
    """A file that the operator named. What is wrong with it is for him to change.

    Raises: Misconfigured.
    """
    try:
        with sample.open("rb") as file:
            yield file
    except OSError as error:
        raise Misconfigured(f"{sample}: {error.strerror or error}") from None
    except Permanent as error:
        raise Misconfigured(f"{sample}: {error}") from None


def _written(path: Path, text: str) -> Path:
    """Written beside and then given its name, which is taken or not: nobody ever reads half of it.

    Raises: Misconfigured, when there is such a file, or the folder takes none.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with beside.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror or error}") from None
    return path

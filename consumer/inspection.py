"""The commands that look and change nothing: verify, explain, doctor."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from consumer import database, doctor, migrate
from consumer import explain as explaining
from consumer import verify as verifying
from consumer.database import Role
from consumer.doctor import Level
from consumer.explain import Life, Row, TicketLife
from consumer.settings import DatabaseSettings
from consumer.verify import MEANING, Contents, Verdict
from publisher import cli
from publisher.bucket import Bucket
from publisher.cli import EXIT_FAILED, AsJson
from publisher.errors import Misconfigured
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.terminal import printable

_LONG_AGO = 3650 * 86400


def add_commands(to: typer.Typer) -> None:
    """Add these commands to a program."""
    to.command("verify")(verify)
    to.command("explain")(explain)
    to.command("doctor")(show_doctor)


def verify(  # noqa: PLR0917 - its parameters are its options
    content: Annotated[
        bool, typer.Option("--content", help="Also read archived objects and compare their SHA-256 with the ledger.")
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="With --content: only what was archived since then.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --content: read only so many, chosen at random.")
    ] = None,
    old: Annotated[
        float, typer.Option(min=0, max=_LONG_AGO, help="Seconds after which what is unfinished counts as stuck.")
    ] = verifying.OLD_SECONDS,
    examples: Annotated[int, typer.Option(min=0, max=100_000, help="How many of each kind are named.")] = 10,
    without_broker: Annotated[
        bool, typer.Option("--without-broker", help="Leave dead letters and queues out; RABBITMQ_URL is not needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare changes/, processed/, the ledger and the dead letters: is every object and every row accounted for?

    Exit status 0 when everything is, 1 when something is not, with each discrepancy under the name of its kind, for
    cron. It changes nothing and is right beside running consumers: what is on its way is no discrepancy, and what
    looks like one is looked at twice. --content reads the archive; on a large one, let cron sample it: --limit 1000.
    """
    if not content and (since is not None or limit is not None):
        raise Misconfigured("--since and --limit go with --content")
    database_settings, bucket_settings = load(DatabaseSettings), load(BucketSettings)
    broker_settings = None if without_broker else load(BrokerSettings)
    if since is not None:
        since = since.astimezone(UTC)
    began = datetime.now(UTC)
    # Who only reads may have no temporary tables, which this needs.
    with database.connect(database_settings, Role.INGEST) as connection, _progress() as bar:
        migrate.require_migrated(connection)
        bucket = Bucket(bucket_settings)
        bucket.require()
        listing = bar.add_task("listing", total=None)
        reading = bar.add_task("reading", total=None, visible=False)
        verdict = verifying.verify(
            connection,
            bucket,
            broker_settings,
            verifying.Progress(
                listed=lambda objects: bar.update(listing, completed=objects),
                read=lambda done, total: bar.update(reading, completed=done, total=total, visible=True),
            ),
            old_seconds=old,
            contents=Contents(since, limit) if content else None,
            examples=examples,
        )
    seconds = round((datetime.now(UTC) - began).total_seconds(), 1)
    if as_json:
        _print_json(_plain_verdict(verdict) | {"seconds": seconds})
    else:
        _print_verdict(verdict, seconds, with_letters=not without_broker)
    if verdict.found:
        raise typer.Exit(EXIT_FAILED)


def explain(
    key: Annotated[
        str | None, typer.Argument(help="A key in changes/ or processed/, or its bare name.", show_default=False)
    ] = None,
    ticket: Annotated[str | None, typer.Option("--ticket", metavar="ID", help="A ticket instead of a file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the life of one file, or of one ticket.

    Of a file: what the bucket has of it, each version that the ledger has with decision, state, times and counts, its
    rejected rows, its requests and dead letters, and what happens next. Of a ticket: the file and line that last wrote
    it, its closures and who told of them, and rejected rows that name it. Exit status 1 when nothing is known of it or
    a part cannot be read.
    """
    if (key is None) == (ticket is None):
        raise Misconfigured("say which: a KEY, or --ticket ID")
    if ticket is not None:
        with database.connect(load(DatabaseSettings), Role.READ) as connection:
            migrate.require_migrated(connection)
            told = explaining.explain_ticket(connection, ticket.replace("\0", ""))
        if as_json:
            _print_json(asdict(told))
        else:
            _print_ticket(told)
        if not told.is_known:
            raise typer.Exit(EXIT_FAILED)
        return
    life = explaining.explain_key(key or "")
    if as_json:
        _print_json(asdict(life))
    else:
        _print_life(life)
    if life.faults or not life.is_known:
        raise typer.Exit(EXIT_FAILED)


def show_doctor(
    poller_only: Annotated[
        bool, typer.Option("--poller-only", help="It is meant that the bucket announces nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine each dependency: version, what it can do, and what to do if it cannot.

    One line each for Postgres, PostGIS, migrations, RabbitMQ with its queues as they are in force, the store and what
    it does with conditional copies and deletes, and the bucket's notifications. The store is tried with a small object
    in doctor/ beside changes/, which is removed again. Exit status 1 when anything is wrong.
    """
    findings = doctor.examine(poller_only=poller_only)
    if as_json:
        _print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            do = f"; {finding.do}" if finding.do else ""
            typer.echo(printable(f"{finding.level.value:5}  {finding.about:{width}}  {finding.found}{do}"))
    if any(finding.level is Level.WRONG for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _progress() -> Progress:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _plain_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "accounted_for": not verdict.found,
        "discrepancies": {
            found.kind.value: {
                "count": found.count,
                "meaning": MEANING[found.kind][0],
                "do": MEANING[found.kind][1],
                "examples": found.examples,
            }
            for found in verdict.found
        },
        "objects": asdict(verdict.listed),
        "contents_read": verdict.contents_read,
        "notes": verdict.notes,
    }


def _print_verdict(verdict: Verdict, seconds: float, *, with_letters: bool) -> None:
    for found in verdict.found:
        meaning, do = MEANING[found.kind]
        typer.echo(f"{found.kind.value}: {found.count} - {meaning}")
        for example in found.examples:
            typer.echo(f"    {printable(example['subject'])}: {printable(example['detail'])}")
        if found.count > len(found.examples):
            typer.echo(f"    and {found.count - len(found.examples)} more")
        typer.echo(f"    what to do: {do}")
    rows = verdict.notes["ledger_rows"]
    read = f", {verdict.contents_read} contents read" if verdict.contents_read else ""
    typer.echo(
        f"{verdict.listed.changes} objects in changes/, {verdict.listed.processed} in processed/, "
        f"{rows} ledger rows{read}, {seconds} s"
    )
    notes = [f"{count} {name.replace('_', ' ')}" for name, count in verdict.notes.items() if count]
    if worth_knowing := [note for note in notes if not note.endswith("ledger rows")]:
        typer.echo(f"accounted for: {', '.join(worth_knowing)}")
    if not with_letters:
        typer.echo("not looked at: dead letters and queues")
    total = sum(found.count for found in verdict.found)
    typer.echo(f"{total} discrepancies" if total else "everything is accounted for")


def _print_life(life: Life) -> None:
    typer.echo(printable(life.key))
    for part, fault in life.faults.items():
        typer.echo(f"{part} cannot be read: {printable(fault)}")
    if "bucket" not in life.faults:
        typer.echo(f"in changes/: {_words_of_object(life.changes) if life.changes else 'no'}")
        for found in life.processed:
            typer.echo(f"in processed/: {printable(found['key'])}, {_words_of_object(found)}")
    for version in life.versions:
        _print_version(version)
    for letter in life.dead_letters:
        typer.echo(f"dead letter {letter['id']}: {printable(letter['reason'])}: {printable(letter['error'])}")
    if not life.is_known and not life.faults:
        typer.echo("nothing is known of it")
    if life.next:
        typer.echo(f"next: {printable(life.next)}")


def _print_version(version: Row) -> None:
    typer.echo(f"version {version['file_id']}: {version['decision']}, {version['state']}")
    _print_fields(version, leaving_out={"file_id", "decision", "state", "rejects", "requests"})
    for request in version["requests"]:
        typer.echo(f"    {request['kind']} request: {_progress_of(request)}")
    for reject in version["rejects"]:
        typer.echo(f"    rejected line {reject['line']}: {printable(reject['reason'])}")
    if version["rows_rejected"] > len(version["rejects"]):
        typer.echo(f"    and {version['rows_rejected'] - len(version['rejects'])} more rejected lines")


def _words_of_object(found: Row) -> str:
    return f"{found['size']} bytes, etag {printable(found['etag'])}, {found['modified']:%Y-%m-%d %H:%M:%S %Z}"


def _progress_of(request: Row) -> str:
    if request["handled_at"]:
        return f"handled {_shown(request['handled_at'])}"
    return f"sent {_shown(request['sent_at'])}" if request["sent_at"] else "waits to be sent"


def _print_ticket(told: TicketLife) -> None:
    typer.echo(printable(told.ticket_id))
    if told.ticket:
        _print_fields(told.ticket, leaving_out={"ticket_id"})
    if told.writer and told.writer["file_id"] is None:
        typer.echo("last written before the ledger, which counts as the old watermark:")
    elif told.writer:
        typer.echo(f"last written by line {told.writer['line']} of {printable(told.writer['key'])}:")
    if told.writer:
        _print_fields(told.writer, leaving_out=set())
    for closure in told.closures:
        by = f"line {closure['line']} of {printable(closure['key'])}" if closure["key"] else "the history capture"
        typer.echo(f"closed {_shown(closure['closed_at'])}, as told by {by}")
    for reject in told.rejects:
        typer.echo(f"rejected line {reject['line']} of {printable(reject['key'])}: {printable(reject['reason'])}")
    if not told.is_known:
        typer.echo("nothing is known of it")


def _print_fields(row: Row, leaving_out: set[str]) -> None:
    """Each that has a value and is no zero count, one below the other."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in row.items():
        if value not in (None, "", 0) and name not in leaving_out:
            table.add_row(f"    {name}", escape(printable(_shown(value))))
    cli.console().print(table)


def _shown(value: object) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)

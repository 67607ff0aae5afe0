"""`verify`."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from consumer.commands.printing import print_json
from consumer.commands.served import served_feeds
from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import ArchiveSettings, DatabaseSettings, VerdictSettings
from consumer.upkeep import verify as verifying
from consumer.upkeep.verify import READERS, Contents, Discrepancy, DiscrepancyKind, OnProgress, Verification
from publisher.broker import channels
from publisher.errors import Misconfigured
from publisher.program import (
    EXIT_COULD_NOT_LOOK,
    EXIT_FAILED,
    AsJson,
    OfFeeds,
    Quiet,
    WithoutBroker,
    require_quiet_alone,
    say,
)
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import by_folder, moment, printable

_LONG_AGO = 3650 * 86400


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
    without_broker: WithoutBroker = False,
    feed: OfFeeds = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare changes/, processed/, the ledger and the dead letters: is every object and every row accounted for?

    Exit status 0 when everything is, 1 when something is not, with each discrepancy under the name of its kind, for
    cron; 3 when nothing was found and a part could not be looked at. No part is waited for longer than
    FLEETTICKETS_STATUS_SECONDS. It changes nothing and is right beside running consumers: what is on its way is no
    discrepancy, and what looks like one is looked at twice. --content reads the archive; on a large one, let cron
    sample it: --limit 1000.
    """
    require_quiet_alone(quiet=quiet, as_json=as_json)
    if not content and (since is not None or limit is not None):
        raise Misconfigured("--since and --limit go with --content")
    database_settings, bucket_settings = load(DatabaseSettings), load(BucketSettings)
    open_channel = None if without_broker else partial(channels.confirming_channel, load(BrokerSettings), "verify")
    feeds = served_feeds(feed)
    if since is not None:
        since = since.astimezone(UTC)
    patience = load(VerdictSettings).answer_seconds
    # Who only reads may have no temporary tables, which this needs.
    connect = partial(
        database.connect, database_settings, Role.INGEST, purpose="verify", patience=patience, works_long=True
    )
    with _progress() as bar:
        listing = bar.add_task("listing", total=None)
        reading = bar.add_task("reading", total=None, visible=False)
        verification = verifying.verify(
            connect,
            Bucket(bucket_settings, feeds.folders, slow=READERS),
            feeds,
            open_channel,
            OnProgress(
                listed=lambda objects: bar.update(listing, completed=objects),
                read=lambda done, total: bar.update(reading, completed=done, total=total, visible=True),
            ),
            answer_seconds=patience,
            old_seconds=old,
            archive_days=load(ArchiveSettings).days,
            contents=Contents(since, limit) if content else None,
            examples=examples,
        )
    if quiet and verification.accounted_for:
        return
    for name in verification.undeclared_feeds:
        typer.echo(f"note: {name} is declared nowhere any more; its rows and files are not compared", err=True)
    if as_json:
        print_json(verification)
    else:
        _print_verification(verification, with_letters=not without_broker)
    match verification.accounted_for:
        case False:
            raise typer.Exit(EXIT_FAILED)
        case None:
            raise typer.Exit(EXIT_COULD_NOT_LOOK)


def _progress() -> Progress:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_verification(verification: Verification, *, with_letters: bool) -> None:
    for kind, found in verification.discrepancies.items():
        _print_discrepancy(kind, found)
    for part, fault in verification.faults.items():
        say(f"{part} cannot be looked at: {printable(fault)}", "    ")
    if verification.objects is None or verification.notes is None:
        typer.echo("nothing was compared")
        return
    read = f", {verification.contents_read} contents read" if verification.contents_read else ""
    say(
        f"{verification.objects.changes} objects in changes/, {verification.objects.processed} in processed/, "
        f"{verification.notes.ledger_rows} ledger rows{read}, {verification.seconds} s"
    )
    notes = [f"{count} {name.replace('_', ' ')}" for name, count in verification.notes if count]
    if worth_knowing := [note for note in notes if not note.endswith("ledger rows")]:
        say(f"accounted for: {', '.join(worth_knowing)}", "    ")
    for loss in verification.acknowledged:
        when = moment(loss.acknowledged_at)
        say(
            f"    {printable(loss.subject)}: {printable(loss.reason)} ({printable(loss.acknowledged_by)}, {when})",
            "        ",
        )
    if not with_letters:
        typer.echo("not looked at: dead letters, queues, and what waits for a consumer to send or finish it")
    total = sum(found.count for found in verification.discrepancies.values())
    if verification.accounted_for is None:
        typer.echo("everything is accounted for, as far as it could be looked at")
    else:
        typer.echo(f"{total} discrepancies" if total else "everything is accounted for")


def _print_discrepancy(kind: DiscrepancyKind, found: Discrepancy) -> None:
    say(f"{kind.value}: {found.count} - {found.meaning}", "    ")
    for folder, named in by_folder((example.subject, example) for example in found.examples).items():
        if folder:
            typer.echo(f"    {printable(folder)}")
        before = "        " if folder else "    "
        for name, example in named:
            say(f"{before}{printable(name)}: {printable(example.detail)}", f"{before}    ")
    if found.count > len(found.examples):
        typer.echo(f"    and {found.count - len(found.examples)} more")
    say(f"    what to do: {found.do}", "        ")

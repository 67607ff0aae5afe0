"""`explain`."""

from typing import Annotated

import typer

from consumer.commands.printing import print_fields, print_json, shown, words_of_notes
from consumer.commands.served import served_feeds
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings, VerdictSettings
from consumer.upkeep import explain as explaining
from consumer.upkeep.explain import Letter, Life, Reject, Request, StoredObject, TicketLife, Version
from consumer.upkeep.lineage import Lineage, TicketChange
from publisher.broker import channels
from publisher.commands.dead_letters import replayed
from publisher.errors import Misconfigured
from publisher.program import EXIT_FAILED, AsJson, OfFeeds, say
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import folder_and_name, moment, printable


def explain(
    key: Annotated[
        str | None, typer.Argument(help="A key in changes/ or processed/, or its bare name.", show_default=False)
    ] = None,
    ticket: Annotated[str | None, typer.Option("--ticket", metavar="ID", help="A ticket instead of a file.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="With --ticket: also every value that it ever had, and who told it.")
    ] = False,
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Tell the life of one file, or of one ticket.

    Of a file: what the bucket has of it, each version that the ledger has with decision, state, times and counts of
    lines and rows, what was odd about its columns, its rejected rows, its requests and dead letters, and what happens
    next. Of a ticket: the file and line that last wrote it, its closures and who told of them, and its rejected rows.
    With --history each change of it as well: the file, its line and instant, and each column with what it was before
    and what it became, in the order of the files' own times, whenever they came.

    Exit status 1 when nothing is known of it or a part cannot be read. No part is waited for longer than
    FLEETTICKETS_STATUS_SECONDS.
    """
    if (key is None) == (ticket is None):
        raise Misconfigured("say which: a KEY, or --ticket ID")
    if history and ticket is None:
        raise Misconfigured("--history goes with --ticket")
    feeds = served_feeds(feed)
    patience = load(VerdictSettings).answer_seconds
    if ticket is not None:
        with _connect(patience) as connection, database.naming_holders(connection):
            migrate.require_migrated(connection)
            bare = ticket.replace("\0", "")
            tickets = [explaining.explain_ticket(connection, bare, one, with_history=history) for one in feeds]
        known = [life for life in tickets if life.is_known]
        if len(known) > 1:
            raise Misconfigured(f"feeds {' and '.join(life.feed for life in known)} have it: say which, --feed NAME")
        told = known[0] if known else tickets[0]
        if as_json:
            print_json(told)
        else:
            _print_ticket(told)
        if not told.is_known:
            raise typer.Exit(EXIT_FAILED)
        return
    life = explaining.explain_key(
        # A setting that is missing is as bad as what it would lead to, and no worse: the rest is told.
        lambda: _connect(patience),
        Bucket(load(BucketSettings), feeds.folders),
        lambda: channels.confirming_channel(load(BrokerSettings), "explain", channels.LOOKING_HEARTBEAT),
        feeds,
        key or "",
        answer_seconds=patience,
    )
    if as_json:
        print_json(life)
    else:
        _print_life(life)
    if life.faults or not life.is_known:
        raise typer.Exit(EXIT_FAILED)


def _connect(patience: float) -> database.Connection:
    return database.connect(load(DatabaseSettings), Role.READ, purpose="explain", patience=patience)


_OF_ITS_WAY = frozenset(
    {"first_seen_at", "opened_at", "staged_at", "applied_at", "archived_at", "done_at", "dead_lettered_at", "retry_at"}
)
"""Moments that a file's latency is between."""


def _print_life(life: Life) -> None:
    typer.echo(printable(life.key))
    for part, fault in life.faults.items():
        say(f"{part} cannot be read: {printable(fault)}", "    ")
    if "bucket" not in life.faults:
        say(f"in changes/: {_words_of_object(life.changes) if life.changes else 'no'}", "    ")
        for found in life.processed:
            _, name = folder_and_name(found.key)
            say(f"in processed/: {printable(name)}, {_words_of_object(found)}", "    ")
    for version in life.versions:
        _print_version(version)
    for letter in life.dead_letters:
        say(f"dead letter {letter.id}: {printable(letter.reason)}: {printable(letter.error)}", "    ")
        say(f"    {_words_of_letter(letter)}", "    ")
    if not life.is_known and not life.faults:
        typer.echo("nothing is known of it")
    if life.next:
        say(f"next: {printable(life.next)}", "    ")


def _print_version(version: Version) -> None:
    typer.echo(f"version {version.file_id}: {version.decision}, {version.state}")
    left_out = {"file_id", "decision", "state", "notes", "reject_kinds", "rejects", "requests", "loss"}
    print_fields(version, leaving_out=left_out, to_the_millisecond=_OF_ITS_WAY)
    if loss := version.loss:
        by = f"{loss.acknowledged_by}, {moment(loss.acknowledged_at)}"
        say(f"    its object is gone, acknowledged: {printable(loss.reason)} ({printable(by)})", "        ")
    for told in words_of_notes(version.notes.model_dump(exclude={"rejects"})) if version.notes else ():
        say(f"    {printable(told)}", "        ")
    for kind, count in version.reject_kinds.items():
        say(f"    {count} rejected: {printable(kind)}", "        ")
    for request in version.requests:
        say(f"    {request.kind} request: {_progress_of(request)}", "        ")
    for reject in version.rejects:
        say(f"    rejected line {reject.line}{_settled(reject)}: {printable(reject.reason)}", "        ")
    more = max(version.rows_rejected, sum(version.reject_kinds.values())) - len(version.rejects)
    if more > 0:
        typer.echo(f"    and {more} more rejected rows")


def _settled(reject: Reject) -> str:
    return ", settled since" if reject.is_settled else ""


def _words_of_object(found: StoredObject) -> str:
    return f"{found.size} bytes, etag {printable(found.etag)}, {moment(found.modified)}"


def _words_of_letter(letter: Letter) -> str:
    since = moment(letter.dead_at, milliseconds=True) if letter.dead_at else "a time that is not known"
    return f"{letter.attempts} attempts, {replayed(letter.replays)}, dead since {since}"


def _progress_of(request: Request) -> str:
    if request.handled_at:
        return f"handled {moment(request.handled_at, milliseconds=True)}"
    return f"sent {moment(request.sent_at, milliseconds=True)}" if request.sent_at else "waits to be sent"


def _print_ticket(told: TicketLife) -> None:
    typer.echo(printable(told.ticket_id))
    if told.ticket:
        print_fields(told.ticket, leaving_out={"ticket_id"})
    if told.writer and told.writer.file_id is None:
        typer.echo("last written before the ledger, which counts as the old watermark:")
    elif told.writer:
        typer.echo(f"last written by line {told.writer.line} of {printable(told.writer.key or '')}:")
    if told.writer:
        print_fields(told.writer, leaving_out=set())
    for closure in told.closures:
        by = f"line {closure.line} of {printable(closure.key)}" if closure.key else "the history capture"
        say(f"closed {shown(closure.closed_at)}, as told by {by}", "    ")
    for reject in told.rejects:
        say(
            f"rejected line {reject.line} of {printable(reject.key)}{_settled(reject)}: {printable(reject.reason)}",
            "    ",
        )
    if told.history:
        _print_history(told.history)
    if not told.is_known:
        typer.echo("nothing is known of it")


def _print_history(history: Lineage) -> None:
    if not history.is_kept:
        say("its history is not kept: FLEETTICKETS_KEEP_VERSIONS_DAYS is 0, or no file has come since it was set")
    elif history.since:
        older = "fleettickets rebuild-history reads what is older from the archive, as far back as it is kept"
        say(f"its history, of which nothing is missing since {shown(history.since)}; {older}:")
    else:
        typer.echo("its history:")
    for change in history.changes:
        say(f"  {_moment_of(change)}", "    ")
        if change.is_as_told is False:
            say("    these are not the values of that row: something else than a file has changed them since", "    ")
        for value in change.values:
            became = f"{_word(value.old)} -> {_word(value.new)}" if not change.is_first else _word(value.new)
            say(f"    {printable(value.column)}: {printable(became)}", "        ")


def _moment_of(change: TicketChange) -> str:
    if change.key is None:
        return "since before anything is known:" if change.is_first else "at a time that is not known:"
    late = ", which came late" if change.decision == "late" else ""
    line = f"line {change.line} of " if change.line else ""
    when = shown(change.key_time) if change.key_time else "before the ledger"
    return f"{when}, by {line}{printable(change.key)}{late}:"


def _word(value: object) -> str:
    return "(none)" if value is None else str(value)

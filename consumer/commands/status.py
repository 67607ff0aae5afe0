"""`status`."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from consumer.commands.alerts import required_receiver, watcher_for
from consumer.commands.looked import looking_at
from consumer.commands.printing import print_json, shown, words_of_notes
from consumer.commands.served import served_feeds
from consumer.upkeep.counting import tell_state
from consumer.upkeep.rejects import OpenRejects
from consumer.upkeep.status import (
    LATELY_DAYS,
    Alerts,
    BucketPart,
    DatabasePart,
    Freshness,
    Geocoding,
    LastFile,
    Lately,
    ProcessRow,
    Stages,
    Status,
    UndeclaredColumns,
    Wait,
)
from consumer.upkeep.watching import Watcher
from publisher import metrics, program
from publisher.errors import FleetticketsError, WatchedByAnother
from publisher.program import AsJson, OfFeeds, Quiet, Textfile, WithoutBroker
from publisher.terminal import duration, printable

_SHOWN_COLUMNS = 5
_SHOWN_PROCESSES = 12
_WATCH_SECONDS = 5.0


def show_status(
    *,
    feed: OfFeeds = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew until Ctrl-C, which ends with exit status 0.")
    ] = False,
    textfile: Textfile = None,
    alert: Annotated[
        bool,
        typer.Option("--alert", help="Also tell FLEETTICKETS_ALERT_URL what is wrong, and what is over; for cron."),
    ] = False,
    without_broker: WithoutBroker = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say whether files flow, and if not, why and what to do; below it stands all that was found.

    That is backlog, lag, queues, dead letters, what of the files wants mending, the last files and the last error.

    Exit status 0 when files flow, 3 when somebody has to look, 1 when a part could not be read. No part is waited for
    longer than FLEETTICKETS_STATUS_SECONDS.

    With --alert each cause of trouble is told once, and once more when it is over: run it each minute where neither a
    consumer nor a poller runs for long, or to be told that none does. While one of them watches, it leaves that to it.
    Exit status 1 also when the receiver takes no alert.
    """
    program.require_quiet_alone(quiet=quiet, as_json=as_json, for_long=watch)
    feeds = served_feeds(feed)
    looking, limits = looking_at(feeds, "status", without_broker=without_broker)
    stop = program.stop_on_signals() if watch else Event()
    watcher = watcher_for(required_receiver(feeds, stop), limits) if alert else None
    if watch:
        while not stop.is_set():
            status = looking.status(limits)
            _show(status, as_json=as_json, anew=True)
            _write(status, textfile)
            _alert(watcher, status)
            stop.wait(_WATCH_SECONDS)
        return
    status = looking.status(limits)
    if status.verdict.exit or not quiet:
        _show(status, as_json=as_json)
    _write(status, textfile)
    is_told = _alert(watcher, status)
    if status.verdict.exit or not is_told:
        raise typer.Exit(status.verdict.exit or program.EXIT_FAILED)


def _alert(watcher: Watcher | None, status: Status) -> bool:
    """Note what was found, and tell what is to be told; False where that could not be done, and why is on stderr."""
    if watcher is None:
        return True
    try:
        watcher.require_turn()
    except WatchedByAnother:
        return True  # what runs for long tells it
    except FleetticketsError as error:
        typer.echo(printable(f"no alert can be noted: {error}"), err=True)
        return False
    try:
        watcher.note(status)
        watcher.tell()
    except WatchedByAnother:
        return True
    except FleetticketsError as error:
        typer.echo(printable(f"not all alerts were told, and will be at the next look: {error}"), err=True)
        return False
    finally:
        watcher.give_back()
    return True


def _show(status: Status, *, as_json: bool, anew: bool = False) -> None:
    if as_json:
        print_json(status)
        return
    if anew:
        program.console().clear()  # of a terminal alone
    for line in (status.verdict.line, status.verdict.advice):
        program.say(printable(line))
    typer.echo()
    _print_status(status)


def _write(status: Status, textfile: Path | None) -> None:
    if textfile is not None:
        tell_state(status)
        metrics.write(textfile, metrics.STATE)


class _Rows:
    """What there is to say, each under its name."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def add_row(self, name: str, text: str) -> None:
        self.rows.append((name, text))


def _print_status(status: Status) -> None:
    table = _Rows()
    for part, fault in status.faults.items():
        table.add_row(part, f"cannot be read: {printable(fault)}")
    if status.bucket:
        _add_backlog(table, status.bucket, status.database)
    for name, queue in status.broker.queues.items() if status.broker else ():
        table.add_row(
            f"queue {name}", f"{queue.ready} ready, {queue.consumers} consumers, {queue.dead_letters} dead letters"
        )
    _add_processes(table, status.processes or ())
    if status.trouble:
        _add_alerts(table, status.trouble.alerts)
    if status.database:
        _add_database(table, status.database)
    program.say_pairs(table.rows)


def _add_backlog(table: _Rows, bucket: BucketPart, database: DatabasePart | None) -> None:
    judged = database.backlog if database else None
    age = (judged or bucket).oldest_waiting_seconds
    oldest = f", the oldest for {duration(age)}" if age is not None else ""
    if judged is None:
        table.add_row("backlog", f"unknown; {bucket.waiting} files lie in {bucket.bucket}{oldest}")
        return
    table.add_row("backlog", f"{judged.files} files wait in {bucket.bucket}{oldest}")
    if judged.set_aside:
        aside = sorted(judged.set_aside.items())
        table.add_row("set aside", ", ".join(f"{count} {why}" for why, count in aside))


def _add_processes(table: _Rows, found: Sequence[ProcessRow]) -> None:
    """Those that gave the last signs, in the order in which the verdict counts them."""
    shown = sorted(found, key=lambda one: one.beat_seconds)[:_SHOWN_PROCESSES]
    for one in found:
        if one in shown:
            table.add_row(one.kind, printable("; ".join(_told_of(one))))
    if len(found) > len(shown):
        table.add_row("processes", f"and {len(found) - len(shown)} more that have given no sign for longer")


def _told_of(one: ProcessRow) -> Iterator[str]:
    since = duration((datetime.now(UTC) - one.started_at).total_seconds())
    feeds = f", of {' and '.join(one.feeds)}" if one.feeds else ""
    yield f"{one.host} (pid {one.pid}), version {one.version}{feeds}, begun {since} ago"
    yield f"a sign {duration(one.beat_seconds)} ago"
    if one.paused_why is not None:
        yield f"paused for {duration(one.paused_seconds)}: {one.paused_why}"
    if one.in_hand is not None:
        yield f"in hand for {duration(one.in_hand_seconds)}: {one.in_hand}"
    if one.settled_seconds is not None:
        yield f"done with something {duration(one.settled_seconds)} ago"


def _add_database(table: _Rows, found: DatabasePart) -> None:
    for feed, fresh in found.feeds.items():
        _add_freshness(table, feed, fresh)
    unfinished = ", ".join(f"{count} {state}" for state, count in found.unfinished_files.items())
    table.add_row("unfinished", unfinished or "none")
    if found.dead_letters:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.dead_letters.items())
        table.add_row("dead letters", printable(f"{reasons}: dead-letters list"))
    for wait in found.waits:
        _add_wait(table, wait)
    for kind, requests in found.open_requests.items():
        table.add_row(f"{kind} requests", f"{requests.unhandled} open, {requests.unsent} of them not sent")
    _add_geocoding(table, found.geocoding)
    for feed, rejects in found.open_rejects.items():
        _add_rejects(table, feed, rejects)
    _add_undeclared(table, found.undeclared_columns)
    for feed, lately in found.lately.items():
        _add_lately(table, feed, lately)
    _add_stages(table, found.stages)
    for file in found.last_files:
        _add_file(table, file)
    if error := found.last_error:
        told = ": ".join(filter(None, (error.reason, error.last_error)))
        table.add_row("last error", printable(f"{error.key}: {told}"))


def _add_freshness(table: _Rows, feed: str, found: Freshness) -> None:
    if found.watermark is None:
        table.add_row(f"{feed} watermark", "none yet, no file was applied")
        return
    age = duration(found.watermark_age_seconds)
    table.add_row(f"{feed} watermark", f"{printable(found.watermark)}, {age} old")
    ago = duration(found.last_import_seconds)
    table.add_row(f"{feed} tickets", f"{found.tickets}, last import {ago} ago")


def _add_rejects(table: _Rows, feed: str, found: OpenRejects) -> None:
    if found.rows and found.oldest:
        more = " or more" if found.newest_alone else ""
        refused = f" ({found.of_refused_files} the first ones of refused files)" if found.of_refused_files else ""
        age = duration((datetime.now(UTC) - found.oldest).total_seconds())
        table.add_row(
            f"{feed} rejects",
            f"{found.rows}{more} open rows of {found.files} files{refused}, the oldest for {age}: rejects list",
        )


def _add_undeclared(table: _Rows, found: UndeclaredColumns) -> None:
    for column in found.newest[:_SHOWN_COLUMNS]:
        first = f"first in {column.key}, {shown(column.first_seen_at)}"
        table.add_row(f"{column.feed} undeclared", printable(f"{column.name}: {first}"))
    if found.count > _SHOWN_COLUMNS:
        table.add_row("undeclared", f"and {found.count - _SHOWN_COLUMNS} columns more")


def _add_lately(table: _Rows, feed: str, found: Lately) -> None:
    told = []
    if found.files_without_columns:
        missing, newest = ", ".join(found.missing_columns), found.newest_without
        told.append(f"{found.files_without_columns} files without {missing}, the last is {newest}")
    if found.dates_never:
        told.append(f"{found.dates_never} dates that mean never")
    if told:
        table.add_row(f"{feed}, {LATELY_DAYS} days", printable("; ".join(told)))


def _add_stages(table: _Rows, found: Stages) -> None:
    seconds = found.model_dump(exclude={"files", "delivered"}, exclude_none=True)
    if found.files and seconds:
        told = ", ".join(f"{stage} {1e3 * took:.0f}" for stage, took in seconds.items())
        table.add_row("stages", f"{told} ms, each from the one before, in the middle of the last {found.files} files")


def _add_alerts(table: _Rows, found: Alerts) -> None:
    if not (found.open or found.untold or found.watched_by):
        return
    untold = f", {found.untold} not told for {duration(found.untold_seconds)}" if found.untold else ""
    table.add_row("alerts", printable(f"{found.open} open{untold}; watched by {found.watched_by or 'nobody now'}"))


def _add_file(table: _Rows, file: LastFile) -> None:
    told = [f"{file.rows_inserted} new, {file.rows_updated} updated, {file.rows_rejected} rejected"]
    if file.lines_read is not None:
        told[0] += f" ({file.lines_rejected} of {file.lines_read} lines)"
    if file.dates_never:
        told.append(f"{file.dates_never} dates that mean never")
    told += words_of_notes(file.notes.model_dump()) if file.notes else ()
    table.add_row("last file", printable(f"{file.key}: {file.decision}, {file.state}, {'; '.join(told)}"))


def _add_wait(table: _Rows, wait: Wait) -> None:
    where = f" on {wait.relation}" if wait.relation else ""
    by = f"{wait.held_by_user}, pid {wait.held_by}" if wait.held_by else "nobody any more"
    told = f"{wait.application} (pid {wait.pid}) for {duration(wait.seconds)}{where}; held by {by}"
    table.add_row("waits for a lock", printable(told))


def _add_geocoding(table: _Rows, found: Geocoding) -> None:
    if found.share_with_place is not None:
        places = [f"{count} by {source}" for source, count in found.tickets_by_source.items()]
        if found.tickets_nowhere:
            places.append(f"{found.tickets_nowhere} nowhere")
        # Rounded down: all of them is all of them.
        placed = sum(found.tickets_by_source.values())
        share = placed * 10_000 // (placed + found.tickets_nowhere) / 10_000
        table.add_row("placed", f"{share:.2%} of the tickets: {', '.join(places)}")
    known = [
        f"{count} {kind} {status}" for kind, statuses in found.places.items() for status, count in statuses.items()
    ]
    table.add_row("gazetteer", ", ".join(known) or "empty")
    paused = f"; paused until {found.paused_until.isoformat()}: {found.paused_by}" if found.paused_until else ""
    asked = f"{found.requests_today} requests today, {found.requests_left_today} left"
    turn = f"; asked by {found.looked_up_by}" if found.looked_up_by else ""
    table.add_row("geocoder", printable(f"{asked}{paused}{turn}"))

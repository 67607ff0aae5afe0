"""`status`."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from consumer.commands.printing import print_json, shown, words_of_notes
from consumer.commands.served import served_feeds
from consumer.postgres import database
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings, GeocoderChoice, GeocoderLimits, GeocoderSettings, VerdictSettings
from consumer.upkeep.counting import tell_state
from consumer.upkeep.judging import Thresholds
from consumer.upkeep.rejects import OpenRejects
from consumer.upkeep.status import (
    LATELY_DAYS,
    BucketPart,
    DatabasePart,
    Freshness,
    GeocoderAccount,
    Geocoding,
    LastFile,
    Lately,
    Looking,
    Stages,
    Status,
    UndeclaredColumns,
    Wait,
)
from publisher import metrics, program
from publisher.broker import channels
from publisher.errors import Misconfigured
from publisher.program import AsJson, OfFeeds, Quiet, Textfile
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import duration, printable

_SHOWN_COLUMNS = 5
_WATCH_SECONDS = 5.0


def show_status(
    feed: OfFeeds = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew until Ctrl-C, which ends with exit status 0.")
    ] = False,
    textfile: Textfile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say whether files flow, and if not, why and what to do; below it stands all that was found.

    That is backlog, lag, queues, dead letters, what of the files wants mending, the last files and the last error.

    Exit status 0 when files flow, 3 when somebody has to look, 1 when a part could not be read. No part is waited for
    longer than FLEETTICKETS_STATUS_SECONDS.
    """
    program.require_quiet_alone(quiet=quiet, as_json=as_json, for_long=watch)
    database_settings, broker_settings, bucket_settings, settings = (
        load(DatabaseSettings), load(BrokerSettings), load(BucketSettings), load(VerdictSettings),
    )  # fmt: skip
    feeds = served_feeds(feed)
    patience = settings.answer_seconds
    looking = Looking(
        partial(database.connect, database_settings, Role.READ, purpose="status", patience=patience),
        partial(channels.confirming_channel, broker_settings, "status", channels.LOOKING_HEARTBEAT),
        Bucket(bucket_settings, feeds.folders),
        feeds.served,
        GeocoderAccount(_account(), load(GeocoderLimits).per_day),
        answer_seconds=patience,
    )
    limits = Thresholds(
        settings.stuck_seconds, settings.missing_seconds, settings.late_seconds, silent_times=settings.silent_times
    )
    if watch:
        stop = program.stop_on_signals()
        while not stop.is_set():
            status = looking.status(limits)
            _show(status, as_json=as_json, anew=True)
            _write(status, textfile)
            stop.wait(_WATCH_SECONDS)
        return
    status = looking.status(limits)
    if status.verdict.exit or not quiet:
        _show(status, as_json=as_json)
    _write(status, textfile)
    if status.verdict.exit:
        raise typer.Exit(status.verdict.exit)


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


def _account() -> str | None:
    """Whose pause is told; a wrong setting is the doctor's business."""
    try:
        return load(GeocoderSettings).account if load(GeocoderChoice).is_made else None
    except Misconfigured:
        return None


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
    if status.database:
        _add_database(table, status.database)
    program.say_pairs(table.rows)


def _add_backlog(table: _Rows, bucket: BucketPart, database: DatabasePart | None) -> None:
    # Without the ledger, what was set aside cannot be told from what waits.
    judged = database.backlog if database else None
    files, first = (judged.files, judged) if judged else (bucket.waiting, bucket)
    age = first.oldest_waiting_seconds
    oldest = f", the oldest for {duration(age)}" if age is not None else ""
    table.add_row("backlog", f"{files} files wait in {bucket.bucket}{oldest}")
    if judged and judged.set_aside:
        aside = sorted(judged.set_aside.items())
        table.add_row("set aside", ", ".join(f"{count} {why}" for why, count in aside))


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

"""`status`."""

import json
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from consumer.feeds.declared import served_feeds
from consumer.settings import (
    DatabaseSettings,
)
from consumer.upkeep.status import Status, read_status
from publisher import program
from publisher.program import EXIT_FAILED, AsJson, OfFeeds
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.terminal import printable


def show_status(feed: OfFeeds = None, as_json: AsJson = False) -> None:
    """Show backlog, lag, queues, dead letters, the last files and the last error.

    Exit status 1 when a part could not be read, so that cron or a health check can tell.
    """
    status = read_status(load(DatabaseSettings), load(BrokerSettings), load(BucketSettings), served_feeds(feed))
    if as_json:
        typer.echo(json.dumps(status.parts | {"faults": status.faults}))
    else:
        _print_status(status)
    if status.faults:
        raise typer.Exit(EXIT_FAILED)


def _print_status(status: Status) -> None:
    table = Table(show_header=False, box=None)
    for part, fault in status.faults.items():
        table.add_row(part, f"cannot be read: {escape(printable(fault))}")
    if found := status.parts.get("bucket"):
        # Without the ledger, what was set aside cannot be told from what waits.
        backlog = status.parts.get("database", {}).get("backlog") or {
            "files": found["waiting"],
            "set_aside": {},
            **found,
        }
        age = backlog["oldest_waiting_seconds"]
        oldest = f", the oldest for {program.duration(age)}" if age is not None else ""
        table.add_row("backlog", f"{backlog['files']} files wait in {found['bucket']}{oldest}")
        if backlog["set_aside"]:
            table.add_row(
                "set aside", ", ".join(f"{count} {why}" for why, count in sorted(backlog["set_aside"].items()))
            )
    for name, queue in status.parts.get("broker", {}).get("queues", {}).items():
        table.add_row(
            f"queue {name}",
            f"{queue['ready']} ready, {queue['consumers']} consumers, {queue['dead_letters']} dead letters",
        )
    if found := status.parts.get("database"):
        for name, fresh in found["feeds"].items():
            _add_freshness(table, name, fresh)
        unfinished = ", ".join(f"{count} {state}" for state, count in found["unfinished_files"].items())
        table.add_row("unfinished", unfinished or "none")
        _add_waits(table, found["waits"])
        for kind, requests in found["open_requests"].items():
            table.add_row(f"{kind} requests", f"{requests['unhandled']} open, {requests['unsent']} of them not sent")
        _add_geocoding(table, found["geocoding"])
        for file in found["last_files"]:
            counts = f"{file['rows_inserted']} new, {file['rows_updated']} updated, {file['rows_rejected']} rejected"
            table.add_row(
                "last file", f"{escape(printable(file['key']))}: {file['decision']}, {file['state']}, {counts}"
            )
        if error := found["last_error"]:
            table.add_row(
                "last error",
                f"{escape(printable(error['key']))}: {escape(printable(str(error['last_error'])))}",
            )
    program.console().print(table)


def _add_freshness(table: Table, feed: str, found: dict[str, Any]) -> None:
    if found["watermark"] is None:
        table.add_row(f"{feed} watermark", "none yet, no file was applied")
        return
    age = program.duration(found["watermark_age_seconds"])
    table.add_row(f"{feed} watermark", f"{escape(printable(found['watermark']))}, {age} old")
    ago = program.duration(found["last_import_seconds"])
    table.add_row(f"{feed} tickets", f"{found['tickets']}, last import {ago} ago")


def _add_waits(table: Table, waits: list[dict[str, Any]]) -> None:
    for wait in waits:
        where = f" on {wait['relation']}" if wait["relation"] else ""
        by = f"{wait['held_by_user']}, pid {wait['held_by']}" if wait["held_by"] else "nobody any more"
        told = f"{wait['application']} (pid {wait['pid']}) for {program.duration(wait['seconds'])}{where}; held by {by}"
        table.add_row("waits for a lock", escape(printable(told)))


def _add_geocoding(table: Table, found: dict[str, Any]) -> None:
    if found["share_with_place"] is not None:
        places = [f"{count} by {source}" for source, count in found["tickets_by_source"].items()]
        if found["tickets_nowhere"]:
            places.append(f"{found['tickets_nowhere']} nowhere")
        # Rounded down: all of them is all of them.
        placed = sum(found["tickets_by_source"].values())
        share = placed * 10_000 // (placed + found["tickets_nowhere"]) / 10_000
        table.add_row("placed", f"{share:.2%} of the tickets: {', '.join(places)}")
    known = [
        f"{count} {kind} {status}" for kind, statuses in found["places"].items() for status, count in statuses.items()
    ]
    table.add_row("gazetteer", ", ".join(known) or "empty")
    paused = f"; paused until {found['paused_until']}: {found['paused_by']}" if found["paused_until"] else ""
    asked = f"{found['requests_today']} requests today, {found['requests_left_today']} left"
    turn = f"; asked by {found['looked_up_by']}" if found["looked_up_by"] else ""
    table.add_row("geocoder", escape(printable(f"{asked}{paused}{turn}")))

"""The program `fleettickets`: the consumer's commands beside the publisher's. The one place that builds objects."""

import contextlib
import json
import os
from threading import Event
from typing import Annotated, Any

import structlog
import typer
from psycopg.errors import Diagnostic
from rich.markup import escape
from rich.table import Table

from consumer import by_hand, database, discarding, fail_points, geocode_commands, inspection, metrics, migrate
from consumer.breaker import Breaker
from consumer.database import Role
from consumer.demo.command import demo
from consumer.failures import failures_in_a_row
from consumer.files import FilesHandler
from consumer.geocoding import Gazetteer, GeocodeHandler
from consumer.history import HistoryHandler
from consumer.settings import (
    ApplySettings,
    DatabaseSettings,
    FailureSettings,
    GazetteerSettings,
    GeocoderChoice,
    GeocoderSettings,
    HistorySettings,
)
from consumer.status import Status, read_status
from consumer.verdicts import settled_by_ledger
from consumer.worker import Worker
from publisher import cli, dead_letter_commands, notification_command
from publisher.bucket import Bucket
from publisher.cli import EXIT_FAILED, AsJson
from publisher.errors import DependencyDown, FleetticketsError
from publisher.settings import BrokerSettings, BucketSettings, WorkSettings, load
from publisher.terminal import printable
from publisher.topology import Queue

program = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Trouble-ticket change files from a bucket into PostgreSQL the moment they arrive, exactly once.\n\n"
    "Settings come from the environment or a .env file: DATABASE_URL, RABBITMQ_URL, RUSTFS_ENDPOINT, "
    "RUSTFS_ACCESS_KEY, RUSTFS_SECRET_KEY, RUSTFS_BUCKET, RUSTFS_REGION and FLEETTICKETS_*; see docs/.",
)


def main() -> None:
    """The entry point of the installed program."""
    add_commands(program)
    cli.add_commands(program)
    notification_command.add_commands(program)
    dead_letter_commands.add_commands(program)
    discarding.add_commands(dead_letter_commands.letters)
    cli.run(program, settled_by_ledger)


def add_commands(to: typer.Typer) -> None:
    """Add the consumer's commands to a program."""
    to.command("migrate")(migrate_database)
    to.command("consume")(consume)
    to.command("status")(show_status)
    inspection.add_commands(to)
    by_hand.add_commands(to)
    geocode_commands.add_commands(to)
    to.command("demo")(demo)


def migrate_database(
    only_status: Annotated[bool, typer.Option("--status", help="Show what is pending; exit 1 if anything is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database to the current schema. Safe to repeat, and to run from several places at once.

    A database made by the batch import keeps its objects and rows: what is in place is recorded as adopted.
    """
    with database.connect(load(DatabaseSettings), None) as connection:
        if only_status:
            _show_steps(migrate.status(connection), as_json=as_json)
            return
        done: list[dict[str, str]] = []

        def report(name: str, how: str) -> None:
            done.append({"name": name, "how": how})
            if not as_json:
                typer.echo(f"{name}: {how}")

        connection.add_notice_handler(_tell_of_warning)
        count = migrate.migrate(connection, report)
    typer.echo(json.dumps({"migrations": done}) if as_json else f"{count} migrations done; the schema is current")


def _tell_of_warning(found: Diagnostic) -> None:
    # What a migration tells the operator, and not PostgreSQL's own notices of what is there already.
    if found.severity_nonlocalized == "WARNING":
        typer.echo(f"note: {found.message_primary}", err=True)


def consume(
    queue: Annotated[
        list[Queue] | None, typer.Option("--queue", help="Only this queue; may be given more than once.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Show Prometheus metrics at this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="The address to show them at; 0.0.0.0 is every one.")] = "127.0.0.1",
) -> None:
    """Apply change files as they arrive, archive them, capture history and geocode. Runs until SIGTERM or SIGINT.

    Any number may run at once. A signal finishes the files in hand and exits 0; anything not begun goes back. Without
    GEOCODER_API_KEY, geocode requests wait in their queue.
    """
    queues = list(dict.fromkeys(queue or Queue))
    with_geocoder = bool(queue) or load(GeocoderChoice).is_made
    geocoder_settings = load(GeocoderSettings) if Queue.GEOCODE in queues and with_geocoder else None
    if geocoder_settings is None:
        queues = [name for name in queues if name is not Queue.GEOCODE]
    database_settings, broker_settings = load(DatabaseSettings), load(BrokerSettings)
    bucket_settings, work = load(BucketSettings), load(WorkSettings)
    apply_settings, history_settings, gazetteer_settings = (
        load(ApplySettings), load(HistorySettings), load(GazetteerSettings),
    )  # fmt: skip
    limit = load(FailureSettings).in_a_row
    if metrics_port is not None:
        metrics.serve(metrics_host, metrics_port)
    stop = cli.stop_on_signals()
    at = fail_points.chosen(os.environ)
    if not _wait_for_schema(database_settings, stop):
        return
    # One connection for each file being applied or archived and one more for each that is long, one for history, one
    # for the sweep, one to geocode.
    with database.open_pool(database_settings, size=work.prefetch + work.files_in_hand + 3) as pool:
        before: dict[Queue, int] = {}
        with contextlib.suppress(DependencyDown):  # it was there a moment ago, and is waited for again
            before[Queue.FILES] = failures_in_a_row(pool)
        breakers = {queue: Breaker(limit, failed_before=before.get(queue, 0)) for queue in Queue}
        worker = Worker(broker_settings, work, queues, breakers, stop, bucket=bucket_settings.bucket)
        bucket = Bucket(bucket_settings, connections=work.prefetch + 2)
        _warn_of_bucket(bucket)
        files = FilesHandler(pool, bucket, worker.link, apply_settings, breaker=breakers[Queue.FILES], run=limit, at=at)
        geocoding = None
        if geocoder_settings is not None:
            gazetteer = Gazetteer(pool, gazetteer_settings, geocoder_settings, stop, at)
            geocoding = GeocodeHandler(pool, gazetteer, files.relay, at)
        worker.run(files, HistoryHandler(pool, history_settings, stop, at), geocoding)
    structlog.get_logger().info("stopped")


def _warn_of_bucket(bucket: Bucket) -> None:
    """Say early what is wrong with the bucket. No reason to end: it may be mended while files wait."""
    try:
        bucket.require()
    except FleetticketsError as error:
        structlog.get_logger().error("bucket", detail=str(error))


def _wait_for_schema(settings: DatabaseSettings, stop: Event) -> bool:
    """Wait for a migrated database; False when stopped before there is one."""
    delay = 0.5
    while not stop.is_set():
        try:
            with database.connect(settings, Role.INGEST) as connection:
                migrate.require_migrated(connection)
        except DependencyDown as error:
            structlog.get_logger().warning("waiting", detail=str(error), retry_in_s=delay)
            stop.wait(delay)
            delay = min(delay * 2, 15)
        else:
            return True
    return False


def show_status(as_json: AsJson = False) -> None:
    """Show backlog, lag, queues, dead letters, the last files and the last error.

    Exit status 1 when a part could not be read, so that cron or a health check can tell.
    """
    status = read_status(load(DatabaseSettings), load(BrokerSettings), load(BucketSettings))
    if as_json:
        typer.echo(json.dumps(status.parts | {"faults": status.faults}))
    else:
        _print_status(status)
    if status.faults:
        raise typer.Exit(EXIT_FAILED)


def _show_steps(steps: list[migrate.Step], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([{"name": step.name, "how": step.how, "edited": step.edited} for step in steps]))
    else:
        for step in steps:
            when = f"{step.how} {step.applied_at:%Y-%m-%d %H:%M:%S %Z}" if step.applied_at else "pending"
            typer.echo(f"{step.name:28} {when}{'  EDITED since' if step.edited else ''}")
    if any(step.how is None or step.edited for step in steps):
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
        oldest = f", the oldest for {cli.duration(age)}" if age is not None else ""
        table.add_row("backlog", f"{backlog['files']} files wait in {found['bucket']}/{found['prefix']}{oldest}")
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
        if found["watermark"] is None:
            table.add_row("watermark", "none yet, no file was applied")
        else:
            age = cli.duration(found["watermark_age_seconds"])
            table.add_row("watermark", f"{escape(printable(found['watermark']))}, {age} old")
            table.add_row(
                "tickets", f"{found['tickets']}, last import {cli.duration(found['last_import_seconds'])} ago"
            )
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
    cli.console().print(table)


def _add_waits(table: Table, waits: list[dict[str, Any]]) -> None:
    for wait in waits:
        where = f" on {wait['relation']}" if wait["relation"] else ""
        by = f"{wait['held_by_user']}, pid {wait['held_by']}" if wait["held_by"] else "nobody any more"
        told = f"{wait['application']} (pid {wait['pid']}) for {cli.duration(wait['seconds'])}{where}; held by {by}"
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

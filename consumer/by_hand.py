"""The commands for an operator's hand, when there is no broker or the bucket changes."""

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, assert_never

import typer

from consumer import database, fail_points, history, migrate
from consumer.applying import AlreadyApplied, Applied, Duplicate
from consumer.database import Role
from consumer.drain import Drain, Drained, begin_epoch, import_csv
from consumer.failures import Failure
from consumer.settings import ApplySettings, DatabaseSettings
from publisher import cli
from publisher.bucket import Bucket
from publisher.cli import EXIT_FAILED, AsJson
from publisher.keys import NotAChangeFile
from publisher.settings import BucketSettings, load
from publisher.terminal import printable

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without this, only show what would be done.")]


def add_commands(to: typer.Typer) -> None:
    """Add these commands to a program."""
    to.command("drain")(drain)
    to.command("import-csv")(import_local_file)
    to.command("reseed")(reseed)
    to.command("capture-history")(capture_history)


def drain(
    apply: Apply = False,
    with_reseed: Annotated[
        bool,
        typer.Option("--reseed", help="Begin a new epoch first, see `reseed`; repeated for the bucket, go on in it."),
    ] = False,
    from_archive: Annotated[
        bool,
        typer.Option(
            "--from-archive",
            help="Instead of changes/: apply the files of processed/ that the database lacks, after it was restored.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Apply the files in changes/ oldest to newest, without RabbitMQ.

    The same transaction, ledger and archive as a delivery, so it is safe beside running consumers, and what it has
    done they do not do again. Geocode and history requests wait in the outbox until a consumer has a broker. Without
    --apply everything happens in one transaction that is rolled back at the end; consumers wait for it meanwhile, and
    it for the files that they have in hand.

    SIGINT and SIGTERM end it after the file in hand, with exit status 1; what was applied by then stays. A second
    Ctrl-C ends it at once.

    With --from-archive it brings a database that was restored to an earlier state back to where the bucket is: it
    applies what `verify` calls unrecorded, each file in the epoch it was archived in, and leaves the objects where
    they are. It can be interrupted and repeated. See docs/operations.md.
    """
    database_settings, bucket_settings, settings = load(DatabaseSettings), load(BucketSettings), load(ApplySettings)
    at = fail_points.chosen(os.environ)
    stop = cli.stop_on_signals(second_aborts=True)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
    results: list[tuple[str, Drained]] = []
    with database.open_pool(database_settings, 2, "drain") as pool, cli.progress(as_json=as_json) as bar:
        bucket = Bucket(bucket_settings)
        bucket.require()
        run = Drain(pool, bucket, settings, apply, stop, with_reseed, at)
        if with_reseed:
            with database.connect(database_settings, Role.INGEST) as connection:
                _tell_of_epoch(run.begun_before(connection))
        task = bar.add_task("listing", total=None)

        def report(key: str, outcome: Drained) -> None:
            results.append((key, outcome))
            if apply and not as_json:
                line = printable(f"{key}: {_words(outcome)}")
                bar.console.print(line, soft_wrap=True, markup=False, highlight=False)
            bar.update(task, completed=len({key for key, _ in results}))

        def begin(files: int) -> None:
            bar.reset(task, description="draining" if apply else "trying", total=files)

        if from_archive:
            with database.connect(database_settings, Role.INGEST) as connection:
                missing, others = run.unapplied(connection, lambda listed: bar.update(task, completed=listed))
            begin(len(missing) + len(others))
            run.run_archived(missing, report)
        else:
            files, strays = run.waiting()
            others = [stray for stray, _ in strays]
            begin(len(files) + len(others))
            run.run(files, report)
            if not stop.is_set():
                run.leave_alone(strays)
        for other in others:
            report(other.key, other)
    # What was tried is told when it is undone: in the middle, a pager that does not read on would hold up all others.
    _conclude(results, apply=apply, as_json=as_json, stopped=stop.is_set(), are_told=apply)


def _tell_of_epoch(begun_before: dict[str, Any] | None) -> None:
    if begun_before is not None:
        typer.echo(
            f"goes on in epoch {begun_before['epoch']}, which a drain of this bucket began at "
            f"{begun_before['began_at']:%Y-%m-%d %H:%M} UTC; for one more: fleettickets reseed, then without --reseed",
            err=True,
        )


def import_local_file(
    file: Annotated[Path, typer.Argument(help="A CSV file in the form of a change file.")],
    apply: Apply = False,
    as_json: AsJson = False,
) -> None:
    """Apply one local CSV file.

    Its name gives the instant of the changes in it, as a key does (2026-06-25T142000.csv); with any other name it is
    the file's time of change. Importing the same bytes twice does nothing the second time.
    """
    database_settings, settings = load(DatabaseSettings), load(ApplySettings)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
    with (
        database.open_pool(database_settings, 1, "import") as pool,
        cli.progress(as_json=as_json, in_bytes=True) as bar,
    ):
        task = bar.add_task("importing" if apply else "trying", total=file.stat().st_size if file.is_file() else None)
        outcome = import_csv(pool, file, settings, apply=apply, told=lambda size: bar.advance(task, size))
    if not as_json:
        typer.echo(printable(f"{file.name}: {_words(outcome)}"))
    _conclude([(file.name, outcome)], apply=apply, as_json=as_json)


def reseed(
    reason: Annotated[str, typer.Option(help="Kept with the epoch.")] = "reseed",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Begin a new epoch, for the cut-over to a new bucket.

    Files claimed from then on outrank every row written before, whatever instant their names say: a new bucket whose
    files are stamped older than what is in the database is then applied instead of being held back. It cannot be
    undone.
    """
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        migrate.require_migrated(connection)
        now = database.row(connection, "ledger", "current_epoch") or {}
        watermark = database.row(connection, "status", "watermark") or {}
        if not yes:
            typer.echo(
                f"epoch {now['epoch']} began {now['began_at']:%Y-%m-%d %H:%M} ({printable(now['reason'])})", err=True
            )
            typer.echo(
                f"watermark {printable(str(watermark.get('key')))}, {watermark.get('row_count') or 0} tickets", err=True
            )
            typer.confirm("Let every file claimed from now on outrank all that is there?", abort=True, err=True)
        epoch = begin_epoch(connection, reason)
    typer.echo(json.dumps({"epoch": epoch}) if as_json else f"epoch {epoch} has begun")


def capture_history(as_json: AsJson = False) -> None:
    """Record closures and today's backlog now, for every file applied so far."""
    settings = load(DatabaseSettings)
    with database.connect(settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
    with database.open_pool(settings, 1, "capture") as pool:
        covered = history.capture(pool, unasked=True)
    typer.echo(json.dumps({"requests": covered}) if as_json else f"captured; {covered} open requests are covered by it")


def _words(outcome: Drained) -> str:
    match outcome:
        case Applied(decision=decision, counts=counts):
            shown = {name: count for name, count in asdict(counts).items() if count and name != "read"}
            return f"{decision}, {counts.read} rows: " + (
                ", ".join(f"{n} {name}" for name, n in shown.items()) or "none"
            )
        case AlreadyApplied():
            return "was applied before"
        case Duplicate(reason=reason):
            return f"left alone: {reason}"
        case NotAChangeFile(reason=reason):
            return f"left alone: {reason}"
        case Failure(reason=reason, detail=detail):
            return f"FAILS, {reason}: {detail}"
        case _:
            assert_never(outcome)


def _conclude(
    results: list[tuple[str, Drained]], *, apply: bool, as_json: bool, stopped: bool = False, are_told: bool = True
) -> None:
    failed = sum(isinstance(outcome, Failure) for _, outcome in results)
    if as_json:
        files = [_plain(key, outcome) for key, outcome in results]
        typer.echo(json.dumps({"applied": apply, "failed": failed, "stopped": stopped, "files": files}))
    else:
        rows: Counter[str] = Counter()
        for key, outcome in results:
            if not are_told:
                typer.echo(printable(f"{key}: {_words(outcome)}"))
            if isinstance(outcome, Applied):
                rows.update(asdict(outcome.counts))
        shown = ", ".join(f"{rows[name]} {name}" for name in ("inserted", "updated", "unchanged", "stale", "rejected"))
        typer.echo(f"{len(results)} files, {failed} failed; rows: {shown}")
        if stopped:
            typer.echo("stopped by a signal; there may be more files" + (": running it again goes on" if apply else ""))
        if not apply:
            typer.echo("nothing was changed; --apply does it")
    if failed or stopped:
        raise typer.Exit(EXIT_FAILED)


def _plain(key: str, outcome: Drained) -> dict[str, object]:
    plain: dict[str, object] = {"key": key, "outcome": _words(outcome)}
    if isinstance(outcome, Applied):
        plain |= {"decision": outcome.decision} | asdict(outcome.counts)
    if isinstance(outcome, Failure):
        plain |= {"reason": outcome.reason, "detail": outcome.detail}
    return plain

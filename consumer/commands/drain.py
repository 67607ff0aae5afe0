"""`drain`."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from consumer import fail_points
from consumer.commands.drained import Apply, Worked, conclude, tell_each, tell_metrics, words
from consumer.commands.served import served_feeds
from consumer.files.ledger import Epoch
from consumer.files.outcomes import Failure
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.settings import ApplySettings, DatabaseSettings
from consumer.upkeep.drain import Drain, Drained, Report
from publisher import program
from publisher.arrivals.keys import EAT, NotAChangeFile
from publisher.errors import Misconfigured
from publisher.program import AsJson, OfFeeds, Quiet, Textfile, require_quiet_alone
from publisher.settings import BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import printable


def drain(  # noqa: PLR0917 - its parameters are its options
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
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Leave files alone whose name tells an earlier time, in EAT, and have everybody ignore them.",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
        ),
    ] = None,
    feed: OfFeeds = None,
    textfile: Textfile = None,
    quiet: Quiet = False,
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

    With --since, for a bucket with years in it, the ledger has what is older as ignored: no poll brings it, no consumer
    applies it, `status` and `verify` do not miss it. An earlier --since takes up what is no more older than that.

    With --quiet only files that fail are told, and nothing where none does.

    Exit status 1 when a file fails; without --apply also when tickets would lose something by one, as `preview` has it.
    """
    require_quiet_alone(quiet=quiet, as_json=as_json)
    _require_use(textfile, since, apply=apply, from_archive=from_archive, quiet=quiet)
    database_settings, bucket_settings, settings = load(DatabaseSettings), load(BucketSettings), load(ApplySettings)
    feeds = served_feeds(feed)
    at = fail_points.chosen(os.environ)
    stop = program.stop_on_signals(second_aborts=True)
    with database.connect(database_settings, Role.INGEST) as connection:
        migrate.require_migrated(connection)
        feed_tables.require(connection, feeds.served)
    results: list[tuple[str, Drained]] = []
    older = 0
    with database.open_pool(database_settings, 2, "drain") as pool, program.progress(as_json=as_json) as bar:
        bucket = Bucket(bucket_settings, feeds.folders)
        bucket.require()
        run = Drain(pool, bucket, feeds, settings, apply, stop, with_reseed, at)
        if with_reseed:
            with database.connect(database_settings, Role.INGEST) as connection:
                for one in feeds:
                    _tell_of_epoch(run.begun_before(connection, one))
        task = bar.add_task("listing", total=None)

        def report(key: str, outcome: Drained) -> None:
            results.append((key, outcome))
            if apply and not as_json and (isinstance(outcome, Failure) or not quiet):
                line = printable(f"{key}: {words(outcome)}")
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
            others, older = _drain_waiting(run, since.replace(tzinfo=EAT) if since else None, begin, report)
        for other in others:
            report(other.key, other)
    # What was tried is told when it is undone: in the middle, a pager that does not read on would hold up all others.
    worked = Worked(results, apply, stop.is_set(), older)
    tell_metrics(worked, textfile)
    if not apply and not as_json:
        tell_each(worked)
    conclude(worked, as_json=as_json, quiet=quiet)


def _require_use(
    textfile: Path | None, since: datetime | None, *, apply: bool, from_archive: bool, quiet: bool
) -> None:
    """Raises: Misconfigured, for an option that would do nothing."""
    if quiet and not apply:
        raise Misconfigured("--quiet goes with --apply: what is only tried is to be seen")
    if textfile is not None and not apply:
        raise Misconfigured("--textfile is for --apply: without it nothing is done that could be counted")
    if since is not None and from_archive:
        raise Misconfigured("--since is for changes/, and --from-archive applies processed/")


def _drain_waiting(
    run: Drain, since: datetime | None, begin: Callable[[int], None], report: Report
) -> tuple[list[NotAChangeFile], int]:
    """Apply what lies in changes/; gives what is no change file, and how many files are older."""
    waiting = run.waiting(since)
    begin(len(waiting.files) + len(waiting.strays))
    if since is not None:
        run.leave_alone(waiting.older)
        run.take_up(waiting.files)
    run.run(waiting.files, report)
    if not run.stop.is_set():
        run.leave_alone(waiting.strays)
    return [stray for stray, _ in waiting.strays], len(waiting.older)


def _tell_of_epoch(begun_before: Epoch | None) -> None:
    if begun_before is not None:
        typer.echo(
            f"goes on in epoch {begun_before.epoch}, which a drain of this bucket began at "
            f"{begun_before.began_at:%Y-%m-%d %H:%M} UTC; for one more: fleettickets reseed, then without --reseed",
            err=True,
        )

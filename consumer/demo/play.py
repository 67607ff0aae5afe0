"""One run of the demo: bring up, play the feed, wait until it is through, compare, take down."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from consumer.demo import children, observing, services
from consumer.demo.checks import Check, Holdings, check, check_others
from consumer.demo.children import CODE, DemoFailed
from consumer.demo.feed import MadeFeed, make_feeds
from consumer.demo.observing import Whereabouts
from consumer.demo.oracle import ChangeFile, foretell
from consumer.demo.services import Services
from consumer.demo.stage import Stage, leave_settings, ready, where_to_look
from consumer.demo.view import Lines, Summary
from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database
from consumer.postgres.database import Connection, Role
from publisher.arrivals.messages import ChangeFileArrived
from publisher.broker import channels, publishing

_EXPORTERS = 4
_STALLED_SECONDS = 60.0
_LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    files: int
    rows: int
    seed: int
    rate: float
    keep: bool


@dataclass(slots=True)
class _Laps:
    seconds: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def end(self, name: str) -> float:
        now = time.monotonic()
        self.seconds[name], self.since = round(now - self.since, 2), now
        return self.seconds[name]


def play(plan: Options, view: Lines, report: Callable[[Summary], None]) -> bool:
    """Play all feeds; `report` gets the summary while the services still run. Gives whether every check held.

    Raises: Misconfigured, DemoFailed, DependencyDown, Refused, Signalled.
    """
    laps, logs = _Laps(), _log_folder()
    if services.missing():
        view.say("starting those private services that are not up yet")
    with services.running(logs / "stack.log", keep=plan.keep) as running:
        view.say(f"services: {_origin(running)} ({laps.end('services'):.1f} s)")
        with ready(running, logs) as stage:
            view.say(f"schema, topology and bucket made anew, consumer and poller at work ({laps.end('set up'):.1f} s)")
            view.say(f"arrivals are announced by {_announced_by(stage)}")
            view.say(f"logs: {logs}/")
            feeds = make_feeds(files=plan.files, rows=plan.rows, seed=plan.seed, until=datetime.now(UTC))
            began = datetime.now(UTC)
            with database.connect(stage.database, Role.READ) as connection, view.playing():
                progress = _Exporter(feeds, plan.rate, stage, view, connection).play()
            laps.end("play")
            # Stopped before anything is compared: what is there then is there to stay.
            children.stop(list(stage.processes))
            of_feeds: dict[str, Whereabouts] = {}
            checks: list[Check] = []
            dead = observing.dead_keys(stage.broker, began)
            for feed in feeds:
                of_feeds[feed.model.name], holdings = _holdings(stage, feed, dead)
                checks += check(feed, foretell(feed.files, feed.model), holdings)
            checks.append(_check_others(stage, dead))
            laps.end("compare")
            look = where_to_look(stage, running)
            if plan.keep or not running.started:
                look["commands"] = leave_settings(stage, logs / "look")
            summary = Summary(
                seed=plan.seed,
                files=plan.files,
                announced_by=_announced_by(stage),
                seconds=laps.seconds,
                progress=progress,
                feeds=of_feeds,
                checks=checks,
                logs=f"{logs}/",
                look=look,
                afterwards=_afterwards(running, keep=plan.keep),
            )
            report(summary)
    return summary.ok


class _Exporter:
    """Puts the files of all feeds at a steady rate and watches until all of them are through."""

    def __init__(
        self, feeds: Sequence[MadeFeed], rate: float, stage: Stage, view: Lines, connection: Connection
    ) -> None:
        self._feeds = feeds
        self._files = sum(len(feed.files) for feed in feeds)
        self._rate = rate
        self._stage = stage
        self._view = view
        self._connection = connection
        self._puts: list[Future[None]] = []
        self._stop = Event()

    def play(self) -> Whereabouts:
        """Raises: DemoFailed, DependencyDown."""
        files = [(feed, file) for feed in self._feeds for file in feed.files if file.key != feed.late]
        files.sort(key=_how_far_in)
        late = [(feed, file) for feed in self._feeds for file in feed.files if file.key == feed.late]
        threads = ThreadPoolExecutor(_EXPORTERS)
        try:
            began = time.monotonic()
            for number, (feed, file) in enumerate(files):
                self._puts.append(threads.submit(self._put, feed, file, began + number / self._rate))
            self._watch_until(len(files))
            # With everything newer in the database, they cannot but be late.
            self._puts += [threads.submit(self._put, feed, file, time.monotonic()) for feed, file in late]
            return self._watch_until(self._files)
        finally:
            self._stop.set()
            threads.shutdown(cancel_futures=True)

    def _put(self, feed: MadeFeed, file: ChangeFile, due: float) -> None:
        if self._stop.wait(max(0.0, due - time.monotonic())):
            return
        key = self._stage.folders[feed.model.name].changes + file.key
        self._stage.bucket.put(key, file.body)
        if file.key == feed.announced_twice:
            arrived = ChangeFileArrived(
                bucket=self._stage.settings.bucket, keys=(key,), seen_by="notification", event_time=datetime.now(UTC)
            )
            with channels.confirming_channel(self._stage.broker, "demo") as channel:
                publishing.publish(channel, publishing.arrival(arrived.model_dump_json().encode()))

    def _watch_until(self, files: int) -> Whereabouts:
        """Watch until `files` are through to their end, or nothing has moved for too long."""
        names = [feed.model.name for feed in self._feeds]
        reached, moved_at = -1, time.monotonic()
        while True:
            ended = [put for put in self._puts if put.done()]
            for put in ended:
                put.result()
            progress = observing.progress(self._connection, len(ended), names)
            self._view.show(progress, self._files)
            if progress.done + progress.dead == files and not progress.history_open:
                return progress
            moved = len(ended) + progress.applied + progress.done + progress.dead
            if moved != reached:
                reached, moved_at = moved, time.monotonic()
            for child in self._stage.processes:
                child.require_alive()
            if time.monotonic() - moved_at > _STALLED_SECONDS:
                raise DemoFailed(
                    f"nothing has moved for {_STALLED_SECONDS:.0f} s: of {files} files {len(ended)} are put, "
                    f"{progress.applied} applied, {progress.done} done, {progress.dead} dead letters, and "
                    f"{progress.history_open} history requests are open; see {self._stage.processes[0].log}"
                )
            time.sleep(_LOOK_EVERY)


def _how_far_in(file: tuple[MadeFeed, ChangeFile]) -> float:
    """Where a file stands among those of its feed: by it, all feeds last as long as the play."""
    feed, found = file
    return feed.files.index(found) / len(feed.files)


def _check_others(stage: Stage, dead: list[str]) -> Check:
    with database.connect(stage.database, Role.READ) as connection:
        files = observing.files_of_others(connection, list(stage.folders))
    changes = tuple(folder.changes for folder in stage.folders.values())
    return check_others(files, [key for key in dead if not key.startswith(changes)])


def _holdings(stage: Stage, feed: MadeFeed, dead: list[str]) -> tuple[Whereabouts, Holdings]:
    declared = packaged_feeds().named(feed.model.name)
    changes = declared.folder.changes
    with database.connect(stage.database, Role.READ) as connection:
        progress = observing.progress(connection, len(feed.files), [declared.name])
        tables = observing.tables(connection, declared, feed.model)
    return progress, Holdings(
        tables=tables,
        rows=progress.rows,
        dead=[key.removeprefix(changes) for key in dead if key.startswith(changes)],
        processed=stage.bucket.content(declared.folder.processed),
        waiting=list(stage.bucket.content(changes)),
    )


def _log_folder() -> Path:
    if not services.STACK.exists():
        return Path(tempfile.mkdtemp(prefix="fleettickets-demo-"))
    logs = CODE / ".local" / "demo"
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def _origin(running: Services) -> str:
    if running.started:
        return f"{', '.join(running.started)} started"
    return "those that are up already"


def _announced_by(stage: Stage) -> str:
    if stage.refusal is None:
        return "the store, and the poller should it miss one"
    return f"the poller alone, as the store does not: {stage.refusal}"


def _afterwards(running: Services, *, keep: bool) -> str:
    if running.started and not keep:
        return "The services stop now, and with them all of this but the logs; --keep leaves them up to look at."
    if running.started:
        return "The services stay up; to stop them: make down"
    return "The services stay up, as they were before."

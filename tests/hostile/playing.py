"""A play from its start to its verdict: services of its own, good traffic, hostile acts beside it, then the oracle."""

import contextlib
import re
import resource
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.doubles.faulty_store import FaultyStore
from tests.doubles.geocoder import KEY, LocationIQ
from tests.doubles.proxy import Proxy
from tests.hostile import geocoder, management, oracle
from tests.hostile.crew import Crew
from tests.hostile.exporter import Exporter
from tests.hostile.hostility import Act, Hostility, Record, World
from tests.hostile.plan import Cue, Plan
from tests.stage.actor import Actor
from tests.stage.broker import DEAD_FILES
from tests.stage.private import private_stage
from tests.stage.stage import Stage

BUCKET = "hostile"
DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
STATEMENT_SECONDS = 15
"""The limit of the consumers' login, as an administrator may set it: longer than they wait for a lock."""
OVERTIME_SECONDS = 60
"""At most, for acts that lasted longer than they should have."""
QUIET_SECONDS = 120
"""At most, from the end of the play until everything is decided."""
GROWTH_MB, PEAK_MB = 60, 250
"""What each process may have more than after its start, at the end and at any time."""
DATABASE_MB = 200
"""What the database may have more, at any time, besides a megabyte for each file."""
_SAMPLE_SECONDS = 2
_TOLD_SECONDS = 5
_INGEST, _READ = "fleettickets_ingest", "fleettickets_read"


@dataclass
class Result:
    """`unplayed` are acts that had no turn; none is to be, in any run."""

    differences: list[str]
    unplayed: list[str]
    figures: dict[str, Any] = field(default_factory=dict)


def play(plan: Plan, folder: Path, say: Callable[[str], None]) -> Result:
    """Logs stay in the folder, whatever comes of it."""
    began = time.monotonic()
    with _world(plan, folder) as world:
        say(f"everything is up after {time.monotonic() - began:.0f} s")
        result = _Play(plan, world, say).run()
    result.figures["seconds in all"] = round(time.monotonic() - began)
    return result


@contextlib.contextmanager
def _world(plan: Plan, folder: Path) -> Iterator[World]:
    with contextlib.ExitStack() as opened:
        stack, stage = opened.enter_context(private_stage(folder, BUCKET))
        services, broker = stage.services, stage.broker
        store = opened.enter_context(FaultyStore(services["RUSTFS_ENDPOINT"]))
        provider = opened.enter_context(LocationIQ(geocoder.where, per_second=None, per_minute=None, per_day=None))
        proxies = {
            "rabbitmq": opened.enter_context(Proxy(stack.rabbitmq.url)),
            "postgres": opened.enter_context(Proxy(_login(stage, "consumer", _INGEST))),
        }
        limit = sql.SQL("ALTER ROLE consumer SET statement_timeout = {}").format(f"{STATEMENT_SECONDS}s")
        stage.connection.execute(limit)
        dashboard = _login(stage, "dashboard", _READ)
        stranger = management.user(broker, "stranger", write=r"^fleettickets\.events$")
        stage.environment |= _of_the_image() | {
            "FLEETTICKETS_MISSING_COLUMNS": "refuse",
            "RABBITMQ_URL": proxies["rabbitmq"].url,
            "DATABASE_URL": proxies["postgres"].url,
            "RUSTFS_ENDPOINT": store.url,
            "FLEETTICKETS_WEBHOOK_CONFIRM_SECONDS": "2",
            "GEOCODER_API_KEY": KEY,
            "GEOCODER_URL": provider.url,
            "GEOCODER_PER_SECOND": "100",
            "GEOCODER_PER_MINUTE": "6000",
            "GEOCODER_PER_DAY": str(geocoder.PER_DAY),
        }
        crew = Crew(stage)
        lasting = max(3.0, min(20.0, plan.seconds / 30))
        world = World(stage, stack, store, provider, proxies, crew, Record(), lasting, dashboard, stranger)
        opened.callback(world.over.set)
        yield world


def _of_the_image() -> dict[str, str]:
    """How the image lets memory go, without which what a process has says more of glibc than of the program."""
    return dict(re.findall(r"\b(MALLOC_[A-Z_]+)=(\d+)", DOCKERFILE.read_text()))


def _login(stage: Stage, name: str, role: str) -> str:
    """Make a login that is a member of the role; gives the database as it sees it."""
    stage.connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    query = """SELECT rolname FROM pg_roles
               WHERE rolname ^@ %s AND NOT rolcanlogin AND has_schema_privilege(oid, 'ingest', 'USAGE')"""
    for found in stage.query(query, role):
        grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(found["rolname"]), sql.Identifier(name))
        stage.connection.execute(grant)
    address = urlsplit(stage.database)
    host = address.netloc.rpartition("@")[2]
    return address._replace(netloc=f"{name}@{host}").geturl()


class _Play:
    def __init__(self, plan: Plan, world: World, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._world = world
        self._stage = world.stage
        self._record = world.record
        self._say = say
        self._began = time.monotonic()
        self._exporter = Exporter(world, plan.arrivals)
        self._feed = [arrival.file for arrival in plan.arrivals]
        self._played: list[Cue] = []
        self._differences: list[str] = []
        self._database_mb = 0
        self._last_said = 0.0

    def run(self) -> Result:
        # Strangers in their thousands need descriptors here, too; the program has what it would have.
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self._warm_up()
        before = self._world.crew.resident()
        size_before = self._size()
        self._began = time.monotonic()
        lanes = [Actor(lane, partial(self._play_lane, cues)) for lane, cues in self._plan.lanes.items()]
        exporter = Actor("exporter", self._exporter.act)
        for actor in (exporter, *lanes):
            actor.start()
        self._watch(exporter, *lanes)
        self._say(f"{self._now():5.0f} s  the play is over")
        is_quiet = self._wait_until_quiet()
        figures = self._figures()
        if is_quiet:
            self._differences += oracle.judge(self._stage, self._feed, self._record)
            self._clear_up()
        figures |= self._bounds(before, size_before)
        self._differences += self._world.crew.stop()
        self._differences += self._record.complaints
        planned = {cue.hostility.name for cues in self._plan.lanes.values() for cue in cues}
        unplayed = sorted(planned - {cue.hostility.name for cue in self._played})
        return Result(self._differences, unplayed, figures)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _warm_up(self) -> None:
        """A few good files, so that what each process has at the end can be held against what it needs."""
        warm = Act(self._world, Hostility("warming up", "nobody", Act.hold), 99_999, self._plan.seed)
        keys = [warm.good_file() for _ in range(20)]
        self._stage.wait_for("done", *keys)
        self._stage.wait_for_history()
        for file in self._record.good:
            self._world.crew.receiver.post(self._stage.bucket.event(file.key, file.body)).raise_for_status()

    def _play_lane(self, cues: list[Cue]) -> None:
        for cue in cues:
            while (left := cue.at - self._now()) > 0:
                time.sleep(min(left, 0.5))
            # Whatever has had no turn yet has one, also after the time; but not for ever.
            if self._now() > self._plan.seconds + (OVERTIME_SECONDS if cue.is_first else 0):
                return
            act = Act(self._world, cue.hostility, cue.number, self._plan.seed)
            began = self._now()
            self._say(f"{began:5.0f} s  act {cue.number} begins ({cue.hostility.door}): {cue.hostility.name}")
            try:
                cue.hostility.play(act)
            except Exception as error:  # noqa: BLE001 - the others are played all the same, and this one is told of
                act.complain(f"could not be played: {type(error).__name__}: {error}")
            self._played.append(cue)
            if self._now() - began > _TOLD_SECONDS:
                self._say(f"{self._now():5.0f} s  act {cue.number} ended")

    def _watch(self, *actors: Actor) -> None:
        while any(actor.is_alive() for actor in actors):
            time.sleep(0.2)
            if self._now() > self._plan.seconds + OVERTIME_SECONDS:
                self._world.over.set()
            self._look()
        self._world.over.set()
        self._world.store.heal()
        self._differences += [
            f"the {actor.name} broke: {type(actor.error).__name__}: {actor.error}" for actor in actors if actor.error
        ]

    def _look(self) -> None:
        """Once in a while: is everybody alive, how much is there."""
        if self._now() - self._last_said < _SAMPLE_SECONDS:
            return
        self._last_said = self._now()
        self._differences += self._world.crew.newly_dead()
        self._database_mb = max(self._database_mb, self._size())

    def _size(self) -> int:
        """Megabytes that the database has, tables and what they left."""
        with psycopg.connect(self._stage.database, autocommit=True) as connection:
            (size,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
        return int(size) >> 20

    def _wait_until_quiet(self) -> bool:
        """Nothing is held any more: what failed for a reason outside of it is taken up again, as an operator would."""
        until = self._now() + QUIET_SECONDS
        drained = False
        open_ends = [""]
        while open_ends and self._now() < until:
            time.sleep(0.5)
            self._look()
            open_ends = oracle.open_ends(self._stage, self._feed, self._record)
            if open_ends and not drained and self._now() > until - QUIET_SECONDS / 2:
                drained = True
                self._say(f"{self._now():5.0f} s  {len(open_ends)} open: drain --apply")
                self._run("drain", "--apply", allowed=(0, 1))
        self._say(f"{self._now():5.0f} s  {'quiet' if not open_ends else 'not quiet'}")
        self._differences += [f"still open {QUIET_SECONDS} s after the play: {what}" for what in open_ends]
        if open_ends:
            self._differences.append(f"queues hold {management.all_held(self._stage.broker)}")
        return not open_ends

    def _clear_up(self) -> None:
        """As an operator would: look at the dead letters, let go of them, and ask whether all is accounted for."""
        keys = [*sorted(self._record.told), *list(self._record.dead)[:2], self._record.good[-1].key]
        looks = [("dead-letters", "list"), ("status",), *(("explain", key) for key in keys)]
        with ThreadPoolExecutor(4) as threads:
            for look in [threads.submit(self._run, *arguments, "--json", allowed=(0, 3)) for arguments in looks]:
                look.result()
        self._run("dead-letters", "discard", "--all", "--reason", "hostile")
        if left := management.messages(self._stage.broker, DEAD_FILES):
            self._differences.append(f"{len(left)} dead letters are left after a discard of all")
        self._run("verify", "--content", "--old", "0", "--json")

    def _run(self, *arguments: str, allowed: Collection[int] = (0,)) -> None:
        ended = self._stage.run(*arguments, DATABASE_URL=self._stage.database)
        if ended.returncode not in allowed or "Traceback" in ended.stderr:
            told = (ended.stdout + ended.stderr)[-3000:]
            self._differences.append(f"{' '.join(arguments)} ended with {ended.returncode}: {told}")

    def _bounds(self, before: dict[str, int], size_before: int) -> dict[str, Any]:
        after, peaks = self._world.crew.resident(), self._world.crew.peaks()
        for name, had in before.items():
            if name in after and after[name] > had + GROWTH_MB:
                self._differences.append(f"{name} has {after[name]} MB at the end, {had} MB after its start")
            if name in peaks and peaks[name] > had + PEAK_MB:
                self._differences.append(f"{name} had {peaks[name]} MB at its most, {had} MB after its start")
        files = len(self._feed) + len(self._record.good) + len(self._record.dead)
        allowed = size_before + DATABASE_MB + files
        if self._database_mb > allowed:
            self._differences.append(f"the database had {self._database_mb} MB; {files} files allow for {allowed}")
        return {
            "MB of each process after its start": before,
            "at the end": after,
            "at the most": peaks,
            "MB of the database at the most": f"{self._database_mb}, {size_before} at the start",
        }

    def _figures(self) -> dict[str, Any]:
        doors: dict[str, int] = {}
        for cue in self._played:
            doors[cue.hostility.door] = doors.get(cue.hostility.door, 0) + 1
        return {
            "seed": self._plan.seed,
            "seconds of play": self._plan.seconds,
            "acts": len(self._played),
            "by door": doors,
            "good files of the feed": len(self._feed),
            "good files of acts": len(self._record.good),
            "hostile files": len(self._record.dead) + len(self._record.ignored),
            "hostile bodies": len(self._record.dead_bodies),
            "posts of the store": f"{self._exporter.posts}, {self._exporter.refused} sent again",
        }

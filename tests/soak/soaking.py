"""A soak from its start to its verdict: services of its own, the feed, the faults, quiet again, then the oracle."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.soak.actors import Exporter, Operator
from tests.soak.crew import Crew, proxies_of
from tests.soak.oracle import judge
from tests.soak.plan import COMPONENTS, Plan
from tests.stage.actor import Actor
from tests.stage.broker import DEAD_FILES
from tests.stage.comparing import Verdict, file_lines
from tests.stage.private import private_stage
from tests.stage.stage import Stage

BUCKET = "soak"
QUIET_SECONDS = 240
"""At most, from the last fault until all is done: longer than the longest pauses before another attempt add up to."""


@dataclass
class Result:
    verdict: Verdict
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def differences(self) -> list[str]:
        return self.verdict.differences


def soak(plan: Plan, folder: Path, say: Callable[[str], None]) -> Result:
    """Logs stay in the folder, whatever comes of it."""
    began = time.monotonic()
    with private_stage(folder, BUCKET) as (stack, stage):
        stage.environment |= {
            "FLEETTICKETS_MAX_REJECT_SHARE": "1",
            "FLEETTICKETS_MISSING_COLUMNS": "refuse",
            "FLEETTICKETS_WEBHOOK_CONFIRM_SECONDS": "2",
        }
        applied = stage.run("notifications", "--store", "ceph", "--apply")
        assert applied.returncode == 0, applied.stderr
        with proxies_of(stage) as proxies:
            crew = Crew(stage, stack, proxies)
            crew.start_all()
            say(f"everything is up after {time.monotonic() - began:.0f} s")
            result = _Soak(plan, stage, crew, say).run()
    result.figures["seconds in all"] = round(time.monotonic() - began)
    return result


class _Soak:
    def __init__(self, plan: Plan, stage: Stage, crew: Crew, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._stage = stage
        self._crew = crew
        self._say = say
        self._began = time.monotonic()
        self._over = threading.Event()
        self._exporter = Exporter(stage, crew, plan)
        self._operator = Operator(stage, plan, self._over)
        self._last_said = 0.0

    def run(self) -> Result:
        verdict = Verdict()
        faults = Actor("faults", self._make_faults)
        exporter, operator = Actor("exporter", self._exporter.act), Actor("operator", self._operator.act)
        actors = (faults, exporter, operator)
        for actor in actors:
            actor.start()
        self._wait_for(faults, verdict)
        self._over.set()
        quiet = time.monotonic()
        for actor in (operator, exporter):
            self._wait_for(actor, verdict, until=quiet + QUIET_SECONDS)
        is_quiet = self._wait_until_quiet(quiet + QUIET_SECONDS, verdict)
        settled = round(time.monotonic() - quiet, 1)
        self._say(f"{self._now():5.0f} s  quiet after {settled} s")
        figures = self._figures() | {"quiet after seconds": settled}
        # As the last thing before the end: what is stopped cannot be asked any more.
        verdict.wrong += self._crew.stop()
        verdict.wrong += self._crew.ended + self._operator.complaints
        if is_quiet:
            self._stage.reconnect()
            judged = judge(self._stage, self._plan)
            verdict.lost, verdict.twice, verdict.wrong = judged.lost, judged.twice, verdict.wrong + judged.wrong
        return Result(verdict, figures | {"lost": len(verdict.lost), "twice": len(verdict.twice)})

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _make_faults(self) -> None:
        for number, fault in enumerate(self._plan.faults):
            # Each component has its turn, also in a run that is shorter than that takes.
            if self._now() + fault.gap > self._plan.seconds and number >= len(COMPONENTS):
                break
            time.sleep(fault.gap)
            self._crew.make(fault)
        while self._now() < self._plan.seconds:
            time.sleep(0.1)

    def _wait_for(self, actor: Actor, verdict: Verdict, until: float | None = None) -> None:
        while actor.is_alive() and (until is None or time.monotonic() < until):
            actor.join(0.5)
            self._crew.revive()
            self._tell_progress()
        if actor.is_alive():
            verdict.wrong.append(f"the {actor.name} did not come to an end")
        elif actor.error is not None:
            verdict.wrong.append(f"the {actor.name} broke: {type(actor.error).__name__}: {actor.error}")

    def _tell_progress(self) -> None:
        if self._now() - self._last_said < 5:
            return
        self._last_said = self._now()
        try:
            with psycopg.connect(self._stage.database, connect_timeout=2) as connection:
                (done,) = connection.execute(
                    "SELECT count(*) FROM ingest.ledger WHERE state = 'done' AND applied_at IS NOT NULL"
                ).fetchone() or (0,)
        except psycopg.Error:
            done = "?"
        put = self._exporter.counts["files"]
        kills = self._crew.kills.total()
        self._say(f"{self._now():5.0f} s  {put} put, {done} done, {kills} kills; away: {self._crew.away()}")

    def _wait_until_quiet(self, until: float, verdict: Verdict) -> bool:
        """First all has to be done; then what was mended is replayed, and all has to be done once more."""
        why = "nothing was asked"
        replayed = False
        while time.monotonic() < until:
            self._crew.revive()
            self._tell_progress()
            why = self._unquiet()
            if not why and replayed:
                return True
            if not why:
                replayed = self._stage.run("dead-letters", "replay", "--wait", "0", "--all").returncode == 0
            time.sleep(0.3)
        verdict.lost.append(f"not quiet {QUIET_SECONDS} s after the last fault: {why}")
        return False

    def _unquiet(self) -> str:
        """Why `fleettickets status` does not show an end of the work; "" when it does."""
        ended = self._stage.run("status", "--json")
        if ended.returncode not in {0, 3}:  # a verdict on the past minutes is no work that is left
            return f"status ended with {ended.returncode}: {ended.stdout[-500:]}{ended.stderr[-500:]}"
        status = Stage.json(ended)
        database, files = status["database"], status["broker"]["queues"]["files"]
        unfinished = {state: count for state, count in database["unfinished_files"].items() if state != "failed"}
        unsent = {kind: found["unsent"] for kind, found in database["open_requests"].items() if found["unsent"]}
        history = database["open_requests"].get("history")
        backlog = database["backlog"]["files"]
        if backlog or unfinished or unsent or history or files["ready"]:
            return f"backlog {backlog}, unfinished {unfinished}, unsent {unsent}, history {history}, files {files}"
        letters = {str(found.headers.get("fleettickets-key")) for found in self._stage.broker.messages(DEAD_FILES)}
        if not letters >= self._plan.bad:
            return f"no dead letters yet: {sorted(self._plan.bad - letters)}"
        return ""

    def _figures(self) -> dict[str, Any]:
        self._stage.reconnect()
        lines = file_lines(self._stage)
        (row,) = self._stage.query(
            """SELECT count(*) FILTER (WHERE applied_at IS NOT NULL)::int AS applied, sum(rows_read)::int AS rows,
                      sum(duplicates)::int AS duplicates, count(*) FILTER (WHERE decision = 'missing')::int AS missing
               FROM ingest.ledger"""
        )
        by = self._stage.query(
            "SELECT first_seen_by AS by, count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL GROUP BY 1 ORDER BY 1"
        )
        counts = self._exporter.counts
        return {
            "seed": self._plan.seed,
            "seconds of feed": self._plan.seconds,
            "files put": counts["files"],
            "of them": _words(counts, ("new", "again", "corrected", "bad", "mended")),
            "files applied": row["applied"],
            "rows": row["rows"],
            "first seen by": {found["by"]: found["count"] for found in by},
            "deliveries settled": len(lines),
            "redeliveries": sum(bool(line["redelivered"]) for line in lines),
            "duplicates": row["duplicates"],
            "missing when announced": row["missing"],
            "announced beside the store": _words(counts, ("announced by broker", "announced by webhook")),
            "dead letters": len(self._plan.bad),
            "letters beyond one each": len(self._stage.broker.messages(DEAD_FILES)) - len(self._plan.bad),
            "kills": self._crew.kills.total(),
            "by component": dict(self._crew.kills),
            "connections cut": dict(self._crew.cuts),
            "stalls": dict(self._crew.stalls),
            "crashes of the gateway's own": self._crew.crashes,
            "commands by hand": dict(self._operator.commands),
        }


def _words(counts: Counter[str], names: tuple[str, ...]) -> dict[str, int]:
    return {name: counts[name] for name in names}

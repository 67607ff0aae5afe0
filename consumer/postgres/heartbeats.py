"""Beats of this process into `ingest.heartbeats`, by a thread and a connection of their own.

Nothing waits for it, and nothing fails by it: a database that is away, locked or not migrated makes a beat that is
missed. Killed at any moment it leaves a row that ages; ended twice, there is nothing to end.
"""

import os
import platform
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from threading import Event, Thread
from time import monotonic

import psycopg
import structlog
from psycopg.types.json import Jsonb

from consumer.postgres import database
from consumer.postgres.database import Connection, Role
from consumer.settings import DatabaseSettings
from publisher.heartbeat import ProcessKind, Pulse
from publisher.terminal import printable

_PATIENCE_SECONDS = 5
_END_SECONDS = 2.0
"""No end of a process waits longer for its row to go."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Beater:
    """A process: what it is, and how it is doing."""

    kind: ProcessKind
    pulse: Pulse
    feeds: Sequence[str]
    queues: Sequence[str]


@contextmanager
def beating(settings: DatabaseSettings, seconds: float, process: Beater) -> Iterator[None]:
    """Beat every so many seconds while it lasts; the row goes with its end."""
    stop = Event()
    thread = Thread(target=_Beats(settings, process).run, args=(seconds, stop), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_SECONDS)


class _Beats:
    def __init__(self, settings: DatabaseSettings, process: Beater) -> None:
        self._settings = settings
        self._process = process
        self._name = secrets.token_hex(8)
        self._began = monotonic()
        self._connection: Connection | None = None
        self._missed_at: float | None = None

    def run(self, seconds: float, stop: Event) -> None:
        while True:
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - whatever it is, the work is not to know of it
                self._miss(error)
            if stop.wait(seconds):
                break
        if self._connection is not None:
            with suppress(psycopg.Error):
                database.rows(self._connection, "heartbeats", "end", {"process": self._name})
            self._connection.close()

    def _beat(self) -> None:
        if self._connection is None:
            # A reader may beat as well, and nobody needs more.
            self._connection = database.connect(
                self._settings, Role.READ, purpose="heartbeat", patience=_PATIENCE_SECONDS
            )
        sign = self._process.pulse.sign()
        told = {
            "kind": self._process.kind.value,
            "host": platform.node(),
            "pid": os.getpid(),
            "version": version("fleettickets"),
            "feeds": list(self._process.feeds),
            "queues": list(self._process.queues),
            "started_seconds": monotonic() - self._began,
            "in_hand": printable(sign.in_hand) if sign.in_hand is not None else None,
            "in_hand_seconds": sign.in_hand_seconds,
            "paused_by": sign.pause.by.value if sign.pause else None,
            "paused_why": printable(sign.pause.why) if sign.pause else None,
            "paused_seconds": sign.pause.seconds if sign.pause else None,
            "settled_seconds": sign.settled_seconds,
        }
        with database.translated_errors():
            database.rows(self._connection, "heartbeats", "beat", {"process": self._name, "told": Jsonb(told)})
        if self._missed_at is not None:
            log.info("heartbeat again", away_s=round(monotonic() - self._missed_at, 1))
        self._missed_at = None

    def _miss(self, error: BaseException) -> None:
        """Say once that beats are missing, and begin with a new connection."""
        if self._missed_at is None:
            log.info("no heartbeat", detail=f"{type(error).__name__}: {database.one_line(error)}")
            self._missed_at = monotonic()
        if self._connection is not None:
            self._connection.close()
        self._connection = None

"""Watching for trouble: what is to be told is a row of `ingest.alerts` first, then sent, then marked as told.

One process watches a bucket at a time, by a lease; if it dies, another one goes on with what the rows say. So a cause
is told once, and once more when it is over. What whoever dies had sent and not marked yet is sent twice, with the same
id.
"""

import os
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

import structlog
from psycopg.types.json import Jsonb

from consumer.fail_points import Reached
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.upkeep.alerting import TELLING_SECONDS, Alert, AlertReceiver, Phase
from consumer.upkeep.causes import Cause, causes, is_gone, lasting_seconds, look_seconds
from consumer.upkeep.judging import Thresholds, Word
from consumer.upkeep.status import Status
from consumer.upkeep.views import Connect
from publisher.errors import DependencyDown, FleetticketsError, Refused, WatchedByAnother

_END_SECONDS = 2.0
"""No end of a process waits longer for an alert that is being sent; another process sends it then."""
_TURNS = 4
_ANSWERS = 2

log = structlog.get_logger()


class Watcher:
    """Notes what a look has found, and tells what is to be told, as long as no other process does. For one thread."""

    def __init__(
        self,
        connect: Connect,
        receiver: AlertReceiver,
        bucket: str,
        limits: Thresholds,
        *,
        answer_seconds: float,
        reached: Reached,
    ) -> None:
        self._connect = connect
        self._receiver = receiver
        self._limits = limits
        self._reached = reached
        self._bucket = bucket
        self._who = f"{platform.node()}, process {os.getpid()} ({secrets.token_hex(4)})"
        self._seconds = TELLING_SECONDS + _TURNS * look_seconds(limits) + _ANSWERS * answer_seconds

    def require_turn(self) -> None:
        """Begin to watch, or go on.

        Raises: WatchedByAnother; DependencyDown, Refused.
        """
        with self._connected() as connection:
            self._watch(connection, self._seconds)

    def give_back(self) -> None:
        """Let another one watch from now on; otherwise it would wait until this one's time is over."""
        with suppress(FleetticketsError), self._connected() as connection:
            self._watch(connection, 0)

    def note(self, status: Status) -> None:
        """Put on record what was found.

        Raises: the same.
        """
        found = causes(status, self._limits)
        with self._connected() as connection:
            known = [row["cause"] for row in database.rows(connection, "alerts", "open_causes", self._parameters())]
            noted = self._parameters(
                seen=Jsonb([_told(cause) for cause in found]),
                gone=[name for name in known if is_gone(name, status, found)],
                now_line=status.verdict.line,
                over_seconds=lasting_seconds(self._limits),
            )
            if not (database.row(connection, "alerts", "note", noted) or {})["is_noted"]:
                raise WatchedByAnother

    def tell(self) -> None:
        """Send what is to be told; what the receiver does not take is sent at the next turn.

        Raises: the same; DependencyDown and Refused of the receiver as well, once all was tried that could be.
        """
        refused: Refused | None = None
        with self._connected() as connection:
            rows = database.rows(connection, "alerts", "to_tell", self._parameters())
            for alert in (alert for row in rows for alert in _alerts(row)):
                self._watch(connection, self._seconds)
                self._reached("alert noted, not sent")
                try:
                    self._receiver.tell(alert)
                except Refused as error:
                    refused = error
                    continue
                self._reached("alert sent, not marked")
                told = {"alert_id": alert.alert_id, "is_over": alert.phase is Phase.OVER}
                database.rows(connection, "alerts", "told", told)
                log.info("alert", phase=alert.phase, cause=alert.cause, id=alert.message_id, line=alert.line)
        if refused is not None:
            raise refused

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._connect() as connection, database.translated_errors(), database.naming_holders(connection):
            yield connection

    def _watch(self, connection: Connection, seconds: float) -> None:
        found = database.row(connection, "alerts", "watch", self._parameters(seconds=seconds)) or {}
        if not found["is_mine"]:
            raise WatchedByAnother

    def _parameters(self, **more: object) -> Mapping[str, object]:
        return {"bucket": self._bucket, "who": self._who, **more}


def _told(cause: Cause) -> dict[str, object]:
    return {
        "cause": cause.name,
        "line": _storable(cause.line),
        "advice": _storable(cause.advice),
        "began_at": cause.began_at.isoformat() if cause.began_at else None,
        "after_seconds": cause.after_seconds,
    }


def _storable(text: str) -> str:
    """The text as Postgres can keep it in JSON."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()


def _alerts(row: Mapping[str, Any]) -> Iterator[Alert]:
    """What is to be told of a cause: that it began, that it is over, or both."""
    told = {name: row[name] for name in ("alert_id", "cause", "line", "advice", "began_at")}
    if not row["is_told"]:
        yield Alert(phase=Phase.BEGAN, **told)
    if row["over_at"] is not None:
        yield Alert(phase=Phase.OVER, over_at=row["over_at"], over_line=row["over_line"], **told)


@dataclass(slots=True)
class _ByHeart:
    """Trouble that cannot be put on record, since it is the database's own."""

    alert: Alert
    since: float
    is_told: bool = False
    good_since: float | None = None


class Lookout:
    """Looks again and again, and has the watcher note and tell what is found.

    Where the database does not take a note, its own trouble is told by whoever watched when it last did, from memory:
    the others keep still, and so does everybody if that one dies meanwhile.
    """

    def __init__(
        self, watcher: Watcher, receiver: AlertReceiver, look: Callable[[], Status], limits: Thresholds
    ) -> None:
        self._watcher = watcher
        self._receiver = receiver
        self._look = look
        self._lasting = lasting_seconds(limits)
        self._pause = look_seconds(limits)
        self._watches: bool | None = None
        self._by_heart: _ByHeart | None = None
        self._untold_since: float | None = None

    def run(self, stop: Event) -> None:
        while not stop.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - whatever it is, the work is not to know of it
                log.warning("not watched", detail=f"{type(error).__name__}: {database.one_line(error)}")
            stop.wait(self._pause)
        if self._watches:
            self._watcher.give_back()

    def _turn(self) -> None:
        try:
            self._watcher.require_turn()
        except WatchedByAnother:
            self._watches = False
            if self._by_heart is not None:  # it was the turn of nobody, and what one told he calls over
                self._can_note(self._look())
            return
        except FleetticketsError as error:
            if self._watches is not False or self._by_heart is not None:
                self._cannot_note(error, self._look())
            return
        if not self._watches:
            log.info("watching")
        self._watches = True
        status = self._look()
        try:
            self._watcher.note(status)
        except WatchedByAnother:
            self._watches = False
            return
        except FleetticketsError as error:
            self._cannot_note(error, status)
            return
        self._trying(self._watcher.tell)
        self._can_note(status)

    def _cannot_note(self, error: FleetticketsError, status: Status) -> None:
        if self._by_heart is None:
            verdict = status.verdict
            is_told_there = verdict.word in {Word.COULD_NOT_LOOK, Word.WRONG_SCHEMA}
            line = verdict.line if is_told_there else f"{Word.COULD_NOT_LOOK}: {error}"
            advice = verdict.advice if is_told_there else "fleettickets doctor says what is wrong with the database"
            alert = Alert(uuid4(), Phase.BEGAN, "database", line, advice, datetime.now(UTC))
            self._by_heart = _ByHeart(alert, monotonic())
            log.warning("not watched", detail=str(error))
        known = self._by_heart
        known.good_since = None
        if not known.is_told and monotonic() - known.since >= self._lasting:
            known.is_told = self._trying(lambda: self._receiver.tell(known.alert))

    def _can_note(self, status: Status) -> None:
        known = self._by_heart
        if known is None or not known.is_told:
            self._by_heart = None
            return
        known.good_since = known.good_since or monotonic()
        if monotonic() - known.good_since >= self._lasting:
            began = known.alert
            over = Alert(
                began.alert_id, Phase.OVER, began.cause, began.line, began.advice, began.began_at,
                over_at=datetime.now(UTC), over_line=status.verdict.line,
            )  # fmt: skip
            if self._trying(lambda: self._receiver.tell(over)):
                self._by_heart = None

    def _trying(self, tell: Callable[[], None]) -> bool:
        """Say once that alerts do not arrive, and once that they do again."""
        try:
            tell()
        except WatchedByAnother:
            self._watches = False
            return False
        except (DependencyDown, Refused) as error:
            if self._untold_since is None:
                self._untold_since = monotonic()
                log.warning("alert not told", detail=str(error))
            return False
        if self._untold_since is not None:
            log.info("alerts are told again", after_s=round(monotonic() - self._untold_since))
            self._untold_since = None
        return True


@contextmanager
def watching(watch: Lookout, stop: Event) -> Iterator[None]:
    """Look out while it lasts, in a thread that `stop` ends; nothing waits for it, and nothing fails by it."""
    thread = Thread(target=watch.run, args=(stop,), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_END_SECONDS)

"""The history follow-on: one capture covers every file applied before it started, whoever asks how often."""

from threading import Event

from consumer.fail_points import Reached, nowhere
from consumer.postgres import database
from consumer.postgres.database import Pool
from consumer.settings import HistorySettings


class HistoryHandler:
    """Handles CaptureHistory. Requests that an earlier capture has covered find nothing left to do."""

    def __init__(self, pool: Pool, settings: HistorySettings, stop: Event, reached: Reached) -> None:
        self._pool = pool
        self._interval = settings.history_interval
        self._stop = stop
        self._reached = reached

    def capture(self) -> int | None:
        """Run one capture for all open requests; gives how many it covered, None when stopped while waiting.

        Raises: DependencyDown.
        """
        if self._stop.wait(self._seconds_to_wait()):
            return None
        covered = capture(self._pool, unasked=False, reached=self._reached)
        self._reached("captured, before ack")
        return covered

    def _seconds_to_wait(self) -> float:
        with database.transaction(self._pool) as connection:
            if not database.rows(connection, "outbox", "unhandled", {"kind": "history"}):
                return 0.0
            last = database.row(connection, "outbox", "seconds_since_last_handled", {"kind": "history"})
        return max(0.0, self._interval - last["seconds"]) if last else 0.0


def capture(pool: Pool, *, unasked: bool, reached: Reached = nowhere) -> int:
    """Capture for all open requests, or also without any; gives how many it covered.

    Raises: DependencyDown, StatementRefused.
    """
    with database.transaction(pool) as connection:
        database.row(connection, "ledger", "wait_for_dry_run")
        database.row(connection, "outbox", "lock_history")
        # Only requests seen before the capture are marked: a file that commits meanwhile asks again.
        requests = [r["request_id"] for r in database.rows(connection, "outbox", "unhandled", {"kind": "history"})]
        if requests or unasked:
            database.row(connection, "outbox", "capture_history")
            database.rows(connection, "outbox", "mark_handled", {"requests": requests})
            reached("captured, not committed")
    return len(requests)

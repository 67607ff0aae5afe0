"""The history follow-on: one capture covers every file applied before it started, whoever asks how often."""

from collections.abc import Sequence
from threading import Event
from time import monotonic

from consumer.fail_points import Reached, nowhere
from consumer.follow_ons import outbox
from consumer.follow_ons.outbox import Requested
from consumer.follow_ons.outcomes import HistoryCaptured, Interrupted
from consumer.postgres import database, dry_runs
from consumer.postgres.database import Pool
from consumer.settings import HistorySettings
from publisher.broker.consuming import Delivery
from publisher.broker.topology import Queue


class HistoryHandler:
    """Handles CaptureHistory. Requests that an earlier capture has covered find nothing left to do."""

    def __init__(self, pool: Pool, settings: HistorySettings, stop: Event, reached: Reached) -> None:
        self._pool = pool
        self._interval = settings.history_interval
        self._stop = stop
        self._reached = reached

    def handle(self, _delivery: Delivery) -> HistoryCaptured | Interrupted:
        """Run one capture for all open requests.

        Raises: DependencyDown.
        """
        began = monotonic()
        covered = self.capture()
        return Interrupted() if covered is None else HistoryCaptured(covered, monotonic() - began)

    def capture(self) -> Sequence[Requested] | None:
        """The same; gives those that it covered, None when stopped while waiting.

        Raises: DependencyDown.
        """
        if self._stop.wait(self._seconds_to_wait()):
            return None
        covered = capture(self._pool, unasked=False, reached=self._reached)
        self._reached("captured, before ack")
        return covered

    def _seconds_to_wait(self) -> float:
        with database.transaction(self._pool) as connection:
            if not outbox.unhandled(connection, Queue.HISTORY):
                return 0.0
            since = outbox.seconds_since_last_handled(connection, Queue.HISTORY)
        # The database's clock may have been set back since: then the last one lies in the future.
        return 0.0 if since is None else min(self._interval, max(0.0, self._interval - since))


def capture(pool: Pool, *, unasked: bool, reached: Reached = nowhere) -> Sequence[Requested]:
    """Capture for all open requests, or also without any; gives those that it covered.

    Raises: DependencyDown, StatementRefused.
    """
    with database.transaction(pool) as connection:
        dry_runs.wait_for(connection)
        database.rows(connection, "history", "lock")
        # Only requests seen before the capture are marked: a file that commits meanwhile asks again.
        requests = outbox.unhandled(connection, Queue.HISTORY)
        if requests or unasked:
            database.rows(connection, "history", "capture")
            outbox.mark_handled(connection, requests)
            reached("captured, not committed")
    return requests

"""A thousand requests do not cause a thousand captures, and none is forgotten."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Timer
from typing import Any

import pytest

from consumer.fail_points import nowhere
from consumer.follow_ons.history import HistoryHandler
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import HistorySettings
from publisher.errors import LockTimeout
from tests.integration.change_files import ChangeFile
from tests.stage.stage import wait_until

FILE = "ticket_id,cluster,created_at_service,closed_at\nINC{0},QOA,2026-06-25 10:00,\n"


def handler(pool: Pool, interval: float = 0, stop: Event | None = None) -> HistoryHandler:
    settings = HistorySettings.model_validate({"FLEETTICKETS_HISTORY_INTERVAL": interval})
    return HistoryHandler(pool, settings, stop or Event(), nowhere)


def covered(pool: Pool, interval: float = 0, stop: Event | None = None) -> int | None:
    """How many requests a capture covers; None when it was stopped."""
    requests = handler(pool, interval, stop).capture()
    return None if requests is None else len(requests)


def captured_open(pool: Pool) -> list[Any]:
    with postgres.transaction(pool) as connection:
        rows = connection.execute("SELECT cluster, open_total FROM tickets.inc_daily_snapshot").fetchall()
    return [tuple(row.values()) for row in rows]


def test_one_capture_covers_every_file_applied_before_it(pool: Pool, apply: Any) -> None:
    for number in range(5):
        apply(ChangeFile(f"2026-06-25T14200{number}", FILE.format(number)))
    assert covered(pool) == 5
    assert captured_open(pool) == [("QOA", 5)]
    assert covered(pool) == 0


def test_a_file_applied_after_a_capture_asks_again(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    assert covered(pool) == 1
    apply(ChangeFile("2026-06-25T142001", FILE.format(2)))
    assert covered(pool) == 1
    assert captured_open(pool) == [("QOA", 2)]


@pytest.mark.promise("Exactly once")
def test_captures_asked_for_at_once_cover_each_request_once(pool: Pool, apply: Any) -> None:
    for number in range(6):
        apply(ChangeFile(f"2026-06-25T14200{number}", FILE.format(number)))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _number: covered(pool), range(4)))
    assert sorted(count or 0 for count in found) == [0, 0, 0, 6]


def test_a_file_that_changes_nothing_asks_for_nothing(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T142000", "ticket_id,cluster\n"))
    apply(ChangeFile("2026-06-25T142001", "ticket_id,is_alarm\nINC1,true\n"))
    with postgres.transaction(pool) as connection:
        assert connection.execute("SELECT count(*) AS rows FROM ingest.outbox").fetchone() == {"rows": 0}


def test_a_stop_ends_the_wait_for_the_next_capture(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    assert covered(pool) == 1
    apply(ChangeFile("2026-06-25T142001", FILE.format(2)))
    stop = Event()
    stop.set()
    assert covered(pool, interval=3600, stop=stop) is None
    assert covered(pool) == 1


def test_a_clock_that_was_set_back_holds_no_capture(pool: Pool, apply: Any) -> None:
    """The last one has the time of a server whose clock was ahead, as before a failover to one that is not."""
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    assert covered(pool) == 1
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.outbox SET handled_at = now() + interval '2 hours' WHERE kind = 'history'")
    apply(ChangeFile("2026-06-25T142001", FILE.format(2)))
    stop = Event()
    giving_up = Timer(20, stop.set)
    giving_up.start()
    try:
        assert covered(pool, interval=0.5, stop=stop) == 1
    finally:
        giving_up.cancel()


def waits(pool: Pool) -> bool:
    with postgres.transaction(pool) as connection:
        connection.execute("SET LOCAL ROLE NONE")  # what others wait for, not everybody is told
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return connection.execute(waiting).fetchone() is not None


def test_a_request_that_is_asked_anew_while_its_capture_runs_stays_open(pool: Pool, apply: Any) -> None:
    applied = apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    with ThreadPoolExecutor(1) as threads:
        with postgres.transaction(pool) as held:
            held.execute("LOCK TABLE tickets.inc_daily_snapshot IN SHARE ROW EXCLUSIVE MODE")
            running = threads.submit(covered, pool)
            wait_until(lambda: waits(pool), "the capture has read its requests, and writes")
            with postgres.transaction(pool) as again:  # as when its bytes are back under its key
                request = {"file_ids": [applied.file.file_id], "kinds": ["history"]}
                postgres.rows(again, "merge", "request_follow_ons", request)
        assert running.result() == 1
    assert covered(pool) == 1


def test_a_capture_that_is_held_up_says_by_whom_and_comes_after_it(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T142000", FILE.format(1)))
    with postgres.transaction(pool) as held:
        pid = held.info.backend_pid
        postgres.row(held, "history", "lock")
        with pytest.raises(LockTimeout, match=rf"locks are held by .*pid {pid}, fleettickets consumer"):
            handler(pool).capture()
    assert covered(pool) == 1

"""The poller runs at any rate beside a backlog without making the queue longer than the backlog."""

from tests.acceptance.broker import DEAD_FILES, FILES
from tests.acceptance.feeds import csv, key_at, ticket
from tests.acceptance.stage import Process, Stage, wait_until


def polls(poller: Process) -> int:
    return sum('"published"' in line for line in poller.output().splitlines())


def backlog(stage: Stage, count: int) -> list[str]:
    files = {key_at(number): csv([ticket(f"INC{number}")], ("ticket_id", "owner")) for number in range(count)}
    stage.bucket.put_all(files)
    return list(files)


def test_polling_a_backlog_that_nobody_works_off_queues_each_file_once(stage: Stage) -> None:
    keys = backlog(stage, 2000)
    lengths: list[int] = []
    poller = stage.start("poll", "--every", "1")

    def polled_often() -> bool:
        lengths.append(stage.broker.ready(FILES))
        return polls(poller) >= 5

    wait_until(polled_often, "five polls", timeout=60)
    poller.stop()
    assert max(lengths) <= len(keys)
    assert stage.broker.ready(FILES) == len(keys)


def test_polling_beside_consumers_and_notifications_keeps_the_queue_within_the_backlog(stage: Stage) -> None:
    keys = backlog(stage, 300)
    stage.announce(*keys[::2])
    # The management API lags by seconds and may still count what an earlier test left.
    wait_until(lambda: stage.broker.held(FILES) in {0, len(keys[::2])}, "the management API has caught up")
    lengths: list[int] = []
    workers = [stage.start("poll", "--every", "1"), *(stage.start("consume") for _ in range(2))]

    def worked_off() -> bool:
        lengths.extend((stage.broker.ready(FILES), stage.broker.held(FILES)))
        return bool(stage.one("SELECT count(*) = 300 FROM ingest.ledger WHERE state = 'done'"))

    wait_until(worked_off, "the backlog is worked off", timeout=60)
    for worker in workers:
        worker.stop()
    assert 0 < max(lengths) <= len(keys)
    assert polls(workers[0]) >= 2
    assert stage.waiting() == []
    assert stage.broker.ready(FILES) == 0
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.one("SELECT count(*) FROM tickets.inc") == len(keys)

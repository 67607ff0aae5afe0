"""A process killed between two durable effects leaves nothing that the next one does not put right.

Every point, whoever said that the files are there, one process and three: the database, the bucket and the follow-ons
end as the oracle says. A run of the tests takes one cell of each point, which the commit chooses and the end of the
run prints; CRASH_MATRIX with the digits of a commit repeats its choice. The whole matrix is `make crash-matrix`, which
also writes the table in docs/reliability.md.
"""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.doubles.faulty_store import FaultyStore
from tests.doubles.proxy import Proxy
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE
from tests.stage.commit import commit
from tests.stage.comparing import assert_equals_oracle, is_captured
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

if TYPE_CHECKING:
    from consumer.demo.oracle import ChangeFile

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- crash matrix: begin, written by make crash-matrix -->\n", "<!-- crash matrix: end -->\n"

SEEN = "seen, before claim"
COMMIT_LOST = "commit sent, answer lost"
ARCHIVE = "after commit, before archive"
OF_SEVERAL = ("between files", "after commit of several", "between archives")
"""Of files that are applied, and then archived, together."""
LETTER = "letter published, not recorded"
FAILED = "failure recorded, before ack"
POINTS = (
    SEEN,
    "before claim",
    "after claim",
    "mid copy",
    "before commit",
    COMMIT_LOST,
    ARCHIVE,
    "after copy, before delete",
    "after delete, before state",
    "after archive, before relay",
    "relay published, not marked",
    "relay marked, before ack",
    LETTER,
    FAILED,
    "captured, not committed",
    "captured, before ack",
    *OF_SEVERAL,
)
NOT_IN_A_DRAIN = {
    SEEN: "it tells what it does itself",
    "after archive, before relay": "it relays nothing",
    "relay published, not marked": "it relays nothing",
    "relay marked, before ack": "it acks nothing",
    LETTER: "it publishes no letters",
    FAILED: "it acks nothing",
    "captured, not committed": "it captures nothing",
    "captured, before ack": "it captures nothing",
    **dict.fromkeys(OF_SEVERAL, "it takes one file at a time"),
}
WAVES = 12
BAD = b"ticket_id,M\xfc\nINC1,x\n"


class Cell(NamedTuple):
    point: str
    mode: str
    processes: int

    @property
    def occurs(self) -> bool:
        return self.mode != "drain" or self.point not in NOT_IN_A_DRAIN


COLUMNS = [(mode, processes) for mode in ("notification", "poll", "drain") for processes in (1, 3)]
ALL = [Cell(point, mode, processes) for point in POINTS for mode, processes in COLUMNS]


CHOSEN_BY = os.environ.get("CRASH_MATRIX") or commit()


def chosen() -> list[Cell]:
    """All, or of each point the cell whose turn it is; of every fifth one with three processes, as they take long."""
    if CHOSEN_BY == "full":
        return ALL
    turns = []
    for number, point in enumerate(POINTS, start=int(CHOSEN_BY, 16)):
        row = [cell for cell in ALL if cell.point == point and cell.processes == (1 if number % 5 else 3)]
        turns.append(row[(number if number % 5 else number // 5) % len(row)])
    return turns


@pytest.fixture(scope="module")
def results() -> Iterator[dict[Cell, str]]:
    """What each cell showed; the whole matrix becomes the table."""
    found: dict[Cell, str] = {}
    yield found
    if found.keys() == set(ALL):
        write_table(found)


def write_table(found: dict[Cell, str]) -> None:
    heads = [f"{mode}, {processes}" for mode, processes in COLUMNS]
    table = [["killed at", *heads], ["---"] * (1 + len(heads))]
    table += [[point, *(found[Cell(point, *column)] for column in COLUMNS)] for point in POINTS]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in table)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}")


class Feed:
    """What a cell puts into the bucket, some files at a time, and says in the way of its mode."""

    def __init__(self, stage: Stage, cell: Cell) -> None:
        self.stage, self.cell = stage, cell
        self.random = random.Random(str(cell))
        # So many that several wait for each process.
        self.at_once = 18 if cell.point in OF_SEVERAL and cell.processes > 1 else 6
        made = RandomFeed(seed=len(cell.point), tickets=24).files(self.at_once * WAVES, rows=8)
        self.unsent = self.random.sample(made, len(made))
        self.good: list[ChangeFile] = []
        self.bad: list[str] = []

    def wave(self) -> None:
        """Some files about the same tickets, for the points of a failure with bad ones among them."""
        new, self.unsent = self.unsent[: self.at_once], self.unsent[self.at_once :]
        bad = [key_at(-len(self.bad) - number) for number in (1, 2, 3)] if self.cell.point in {LETTER, FAILED} else []
        self.good, self.bad = self.good + new, self.bad + bad
        bodies = {file.key: file.body for file in new} | dict.fromkeys(bad, BAD)
        self.stage.bucket.put_all(bodies)
        if self.cell.mode == "notification":
            events = [self.stage.bucket.event(key, body) for key, body in [*bodies.items(), *list(bodies.items())[:2]]]
            self.stage.broker.publish(self.random.sample(events, len(events)))


@pytest.mark.promise("One transaction", "Exactly once", "Order-free", "Nothing lost")
@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: f"{cell.point} - {cell.mode} - {cell.processes}")
def test_killed_at(
    stage: Stage, cell: Cell, results: dict[Cell, str], record_property: Callable[[str, object], None]
) -> None:
    record_property("chosen by", CHOSEN_BY)
    results[cell] = "**FAILS**"
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    feed = Feed(stage, cell)
    if cell.mode != "drain":
        crash_of_a_consumer(stage, cell, feed)
        assert_follow_ons(stage, feed)
    elif cell.occurs:
        crash_of_a_drain(stage, cell, feed)
    else:
        no_crash_of_a_drain(stage, cell, feed)
    assert_equals_oracle(stage, feed.good)
    assert_finished(stage, feed, state="archived" if cell.mode == "drain" else "done")
    results[cell] = "holds" if cell.occurs else f"does not occur: {NOT_IN_A_DRAIN[cell.point]}"


def start_doomed(stage: Stage, cell: Cell, *arguments: str) -> tuple[Process, Proxy | None]:
    if cell.point != COMMIT_LOST:
        # With more in hand, another file would be caught where its letter is published and not recorded; and files that
        # come at once would have a thread each.
        alone = {"FLEETTICKETS_FILES_IN_HAND": "1"} if cell.point in {FAILED, *OF_SEVERAL} else {}
        return stage.start(*arguments, FLEETTICKETS_FAIL_POINT=cell.point, **alone), None
    # The COMMIT of a file's transaction, not of another one; nor is it the ON COMMIT of a temporary table.
    database = stage.environment["DATABASE_URL"]
    proxy = Proxy(database, losing=b"COMMIT\0", after=True, once=b"COPY staging", holding=True)
    return stage.start(*arguments, DATABASE_URL=proxy.url), proxy


def dies(doomed: Process, proxy: Proxy | None, seconds: float) -> bool:
    """Whether it is dead within the seconds, by nothing but SIGKILL."""
    if proxy is not None:
        if proxy.lost.wait(seconds):
            doomed.kill()
    else:
        doomed.ends_within(seconds)
    return not doomed.running and doomed.wait() == -signal.SIGKILL


def crash_of_a_consumer(stage: Stage, cell: Cell, feed: Feed) -> None:
    doomed, proxy = start_doomed(stage, cell, "consume")
    started = [doomed, *(stage.start("consume") for _ in range(cell.processes - 1))]
    if cell.processes > 1:
        wait_until(lambda: all("consuming" in process.output() for process in started), "all are consuming")
    poller = stage.start("poll", "--every", "0.5") if cell.mode == "poll" else None
    if cell.processes == 1 and cell.point not in OF_SEVERAL:
        feed.wave()
        assert dies(doomed, proxy, 45), doomed.output()
    else:
        while not dies(doomed, proxy, 1.0):
            assert doomed.running, doomed.output()
            assert feed.unsent, "it never came to that point"
            feed.wave()
    if proxy is not None:
        proxy.close()

    healthy = [process for process in started if process.running] + [stage.start("consume")]
    wait_until(lambda: "consuming" in healthy[-1].output(), "the next consumer is there")
    stage.wait_for("done", *(file.key for file in feed.good))
    letters = "SELECT count(*) FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"
    wait_until(lambda: stage.one(letters) == len(feed.bad), "every bad file is a dead letter")
    stage.wait_for_history()
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
    ending = [*healthy, *([poller] if poller else [])]
    for process in ending:
        process.terminate()
    assert [process.wait() for process in ending] == [0] * len(ending)


def crash_of_a_drain(stage: Stage, cell: Cell, feed: Feed) -> None:
    for _ in range(WAVES):
        feed.wave()
        doomed, proxy = start_doomed(stage, cell, "drain", "--apply")
        beside = [stage.start("drain", "--apply") for _ in range(cell.processes - 1)]
        died = dies(doomed, proxy, 30)
        if proxy is not None:
            proxy.close()
        assert [process.wait() for process in beside] == [0] * len(beside)
        if died:
            break
        assert cell.processes > 1, doomed.output()
        assert doomed.wait() == 0, "the others had every file before it"
    again = stage.run("drain", "--apply")
    assert again.returncode == 0, again.stdout + again.stderr


def no_crash_of_a_drain(stage: Stage, cell: Cell, feed: Feed) -> None:
    """It goes by the point, also with a file that fails."""
    feed.wave()
    drained = stage.run("drain", "--apply", FLEETTICKETS_FAIL_POINT=cell.point)
    assert drained.returncode == (1 if feed.bad else 0), drained.stdout + drained.stderr


def assert_finished(stage: Stage, feed: Feed, state: str) -> None:
    ledger = stage.query("SELECT * FROM ingest.ledger ORDER BY key")
    good = {file.key for file in feed.good}
    assert [row["key"] for row in ledger] == sorted([*good, *feed.bad])
    asking = {row["file_id"] for row in stage.query("SELECT file_id FROM ingest.outbox")}
    for row in ledger:
        if row["key"] in good:
            archived = row["key"].replace(CHANGES, PROCESSED)
            # What has nothing to send is done with its archive.
            expected = state if row["file_id"] in asking else "done"
            assert (row["state"], row["attempts"], row["archive_key"]) == (expected, 0, archived)
            assert row["decision"] in {"new", "late"}
        else:
            assert (row["state"], row["decision"], row["reason"], row["attempts"]) == (
                "failed", "rejected", "not UTF-8", 1,
            )  # fmt: skip
    assert sorted(stage.waiting()) == sorted(feed.bad)
    assert stage.bucket.read_all(PROCESSED) == {file.key.replace(CHANGES, PROCESSED): file.body for file in feed.good}
    newest = max(feed.good, key=lambda file: (file.key_time, file.key.encode()))
    (meta,) = stage.query("SELECT * FROM tickets.import_meta")
    assert meta["metadata"]["source_max_key"] == newest.key
    assert meta["row_count"] == stage.one("SELECT count(*) FROM tickets.inc")
    requests = stage.query("SELECT file_id, kind FROM ingest.outbox")
    changed = {row["file_id"] for row in ledger if row["rows_inserted"] + row["rows_updated"]}
    assert {row["file_id"] for row in requests if row["kind"] == "geocode"} == changed
    assert {row["file_id"] for row in requests if row["kind"] == "history"} >= changed


def assert_follow_ons(stage: Stage, feed: Feed) -> None:
    unsent = "SELECT count(*) FROM ingest.outbox WHERE kind = 'geocode' AND sent_at IS NULL"
    assert stage.one(unsent) == 0
    assert stage.broker.ready(GEOCODE) >= 1
    assert is_captured(stage), "the last capture covered every file"
    letters = [message.headers["fleettickets-key"] for message in stage.broker.messages(DEAD_FILES)]
    assert set(letters) == set(feed.bad)
    # Published first, recorded second: a crash in between may leave a second letter of each file in hand, never none.
    assert max(Counter(letters).values(), default=1) <= (2 if feed.cell.point == LETTER else 1)


def test_a_bad_file_whose_consumer_was_killed_can_be_replayed_once_it_is_good(stage: Stage) -> None:
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=LETTER)
    (file,) = RandomFeed(seed=3, tickets=9).files(1, rows=6)
    stage.bucket.put(file.key, BAD)
    stage.announce(file.key)
    assert doomed.wait() == -signal.SIGKILL, doomed.output()
    healthy = stage.start("consume")
    wait_until(lambda: stage.query("SELECT 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"), "a dead letter")
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 2, "both letters")
    stage.bucket.put(file.key, file.body)
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--all")["replayed"]) == 2
    stage.wait_for("done", file.key)
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every letter is settled")
    healthy.stop()
    assert stage.broker.ready(DEAD_FILES) == 0
    assert_equals_oracle(stage, [file])


@pytest.mark.promise("Nothing lost")
def test_what_no_delivery_comes_for_any_more_is_finished_by_a_sweep(stage: Stage) -> None:
    """The broker has forgotten the messages, and nobody polls. A file that the store fails to give keeps none back."""
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    kept_back, left = files = RandomFeed(seed=4, tickets=9).files(2, rows=6)
    for file in files:
        stage.die_at(ARCHIVE, file.key, file.body)
        stage.broker.purge(FILES)  # a consumer that took long to die may have sent requests of the one before
    stage.connection.execute("UPDATE ingest.ledger SET applied_at = applied_at - interval '2 minutes'")
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault("HEAD", kept_back.key.rpartition("/")[2], 500)
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.wait_for("done", left.key)
        stage.wait_for_history()
        assert stage.waiting() == [kept_back.key]
        consumer.stop()
    consumer = stage.start("consume")
    stage.wait_for("done", kept_back.key)
    consumer.stop()
    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {file.key.replace(CHANGES, PROCESSED): file.body for file in files}
    assert stage.one("SELECT count(*) FROM ingest.outbox WHERE kind = 'geocode' AND sent_at IS NULL") == 0
    assert stage.broker.ready(GEOCODE) == 1, "one message stands for all, where nobody takes them"
    assert stage.one("SELECT sum(duplicates) FROM ingest.ledger") == 0, "no delivery came"
    assert_equals_oracle(stage, files)


@pytest.mark.promise("No silent decision")
@pytest.mark.parametrize("since", ["gone from", "replaced in"])
def test_a_file_that_was_applied_and_cannot_be_archived_any_more_says_why(stage: Stage, since: str) -> None:
    """Without the reason, `verify` would take it for lost."""
    key = key_at(1)
    stage.die_at(ARCHIVE, key, csv([ticket("KNOWN", owner="first")]))
    if since == "gone from":
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)
    else:
        stage.bucket.put(key, csv([ticket("KNOWN", owner="other")]))
    assert stage.run("drain", "--apply").returncode == 0
    found = stage.query("SELECT state, archive_key, reason FROM ingest.ledger WHERE decision = 'new'")
    assert [tuple(row.values()) for row in found] == [
        ("archived", None, f"{since} the bucket before it was archived")
    ]  # fmt: skip
    verified = stage.run("verify", "--json")
    assert verified.returncode == 0, verified.stdout

"""Promise 2: a version of a file takes effect once, however often and by however many it is delivered."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any, LiteralString

import pytest

from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import ApplySettings
from publisher.errors import DependencyDown, Permanent, Refused
from tests.integration.change_files import ALLOWING, ChangeFile

GOOD = "ticket_id,cluster,closed_at\nINC1,QOA,\nINC2,PTMP,2026-06-25 10:00\n"
NAME = "2026-06-25T142000"


def count(pool: Pool, table: str) -> int:
    with postgres.transaction(pool) as connection:
        row = connection.execute(f"SELECT count(*) AS rows FROM {table}").fetchone()  # noqa: S608
    assert row is not None
    return int(row["rows"])


def ledger(pool: Pool) -> list[dict[str, Any]]:
    with postgres.transaction(pool) as connection:
        return connection.execute("SELECT * FROM ingest.ledger ORDER BY file_id").fetchall()


def fail(pool: Pool, *, retry_in: int | None, dead: bool) -> None:
    with postgres.transaction(pool) as connection:
        connection.execute(
            "UPDATE ingest.ledger SET state = 'failed', retry_at = now() + make_interval(secs => %s),"
            " dead_lettered_at = CASE WHEN %s THEN now() END",
            (retry_in, dead),
        )


@pytest.mark.promise("Exactly once")
def test_eight_deliveries_at_the_same_moment_apply_once(pool: Pool, apply: Any) -> None:
    together = Barrier(8)

    def deliver(_number: int) -> Any:
        together.wait(timeout=30)
        return apply(ChangeFile(NAME, GOOD))

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(deliver, range(8)))
    assert sum(isinstance(outcome, Applied) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyApplied) for outcome in outcomes) == 7
    (file,) = ledger(pool)
    assert file["duplicates"] == 7
    assert (count(pool, "tickets.inc"), count(pool, "ingest.outbox")) == (2, 2)


@pytest.mark.promise("One transaction")
def test_a_failed_file_leaves_nothing_behind(pool: Pool, apply: Any) -> None:
    bad = GOOD + "".join(f"INC{number},too,many,fields\n" for number in range(8))
    told = r"8 of 10 lines, more than the share of 0.5: 8 x has N fields .*; the first is line 4: has 4 fields"
    with pytest.raises(Permanent, match=told):
        apply(ChangeFile(NAME, bad))
    for table in ("tickets.inc", "tickets.closure_events", "ingest.ledger", "ingest.positions", "ingest.rejects"):
        assert count(pool, table) == 0, table


def test_a_dead_letter_is_taken_up_again_only_on_purpose(pool: Pool, apply: Any) -> None:
    apply(ChangeFile(NAME, GOOD))
    fail(pool, retry_in=None, dead=True)
    assert isinstance(apply(ChangeFile(NAME, GOOD)), Duplicate)
    assert isinstance(apply(ChangeFile(NAME, GOOD), again=True), Applied)


def test_a_file_that_waits_for_its_retry_is_left_alone_until_then(pool: Pool, apply: Any) -> None:
    apply(ChangeFile(NAME, GOOD))
    fail(pool, retry_in=600, dead=False)
    assert isinstance(apply(ChangeFile(NAME, GOOD)), Duplicate)
    fail(pool, retry_in=-1, dead=False)
    assert isinstance(apply(ChangeFile(NAME, GOOD)), Applied)


def with_policy(policy: str) -> ApplySettings:
    return ApplySettings.model_validate(ALLOWING | {"FLEETTICKETS_CHANGED_POLICY": policy})


def test_other_bytes_under_a_known_key_are_applied_by_default(pool: Pool, apply: Any) -> None:
    apply(ChangeFile(NAME, GOOD, etag="first"))
    outcome = apply(ChangeFile(NAME, "ticket_id\nINC3\n", etag="second"))
    assert (outcome.decision, count(pool, "tickets.inc")) == ("changed", 3)


def test_other_bytes_can_be_quarantined_until_they_are_replayed(pool: Pool, apply: Any) -> None:
    apply(ChangeFile(NAME, GOOD, etag="first"))
    changed = ChangeFile(NAME, "ticket_id\nINC3\n", etag="second")
    with pytest.raises(Permanent, match="changed: the key was applied before with other bytes"):
        apply(changed, settings=with_policy("quarantine"))
    assert count(pool, "tickets.inc") == 2
    assert isinstance(apply(changed, settings=with_policy("quarantine"), again=True), Applied)
    assert count(pool, "tickets.inc") == 3


def test_other_bytes_can_be_passed_over_for_good(pool: Pool, apply: Any) -> None:
    apply(ChangeFile(NAME, GOOD, etag="first"))
    changed = ChangeFile(NAME, "ticket_id\nINC3\n", etag="second")
    for _ in range(2):
        outcome = apply(changed, settings=with_policy("ignore"))
        assert isinstance(outcome, Duplicate)
        assert outcome.reason == "a changed file, passed over by policy"
    assert count(pool, "tickets.inc") == 2
    assert [(file["decision"], file["state"]) for file in ledger(pool)] == [("new", "applied"), ("changed", "done")]


@pytest.mark.promise("No silent decision")
def test_the_counts_of_a_file_add_up_to_its_rows(apply: Any) -> None:
    header = "ticket_id,cluster,is_alarm\n"
    apply(ChangeFile("2026-06-25T142000", header + "INC1,A,\nINC2,A,\nINC3,A,\n"))
    apply(ChangeFile("2026-06-25T150000", header + "INC3,B,\n"))
    outcome = apply(
        ChangeFile(
            "2026-06-25T144000",
            header + "INC1,A,\nINC2,B,\nINC3,C,\nINC4,A,\nINC4,B,\nINC5,A,t\nEXPORT STOPPED\nINC6,A,f,more\n",
        )
    )
    counts = outcome.counts
    assert outcome.decision == "late"
    assert (counts.inserted, counts.updated, counts.unchanged, counts.stale, counts.superseded) == (1, 1, 1, 1, 1)
    assert (counts.rejected, counts.alarms, counts.sentinels, counts.read) == (1, 1, 1, 8)


@pytest.mark.promise("Order-free")
def test_an_unchanged_row_still_moves_its_position(pool: Pool, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T140000", "ticket_id,cluster\nINC1,A\n"))
    apply(ChangeFile("2026-06-25T150000", "ticket_id,cluster\nINC1,A\n"))
    apply(ChangeFile("2026-06-25T144000", "ticket_id,cluster\nINC1,late\n"))
    with postgres.transaction(pool) as connection:
        row = connection.execute("SELECT cluster FROM tickets.inc").fetchone()
    assert row == {"cluster": "A"}


def cluster(pool: Pool) -> object:
    with postgres.transaction(pool) as connection:
        row = connection.execute("SELECT cluster FROM tickets.inc").fetchone()
    return row and row["cluster"]


def test_bytes_that_return_after_others_under_the_same_key_win_again(pool: Pool, apply: Any) -> None:
    def version(etag: str, second: int) -> ChangeFile:
        at = datetime(2026, 6, 25, 12, 0, second, tzinfo=UTC)
        return ChangeFile(NAME, f"ticket_id,cluster\nINC1,{etag}\n", etag=etag, modified=at)

    apply(version("A", 0))
    apply(version("B", 1))
    assert cluster(pool) == "B"
    assert apply(version("A", 2)).decision == "changed"
    assert cluster(pool) == "A"
    assert isinstance(apply(version("A", 2)), AlreadyApplied), "delivered again it is a duplicate"
    assert isinstance(apply(version("B", 1)), AlreadyApplied), "and the version between them stays between them"
    assert cluster(pool) == "A"


def test_a_file_that_names_a_far_future_does_not_outrank_everything_for_ever(apply: Any) -> None:
    with pytest.raises(Permanent, match="from the future: its name says 9999-12-31"):
        apply(ChangeFile("9999-12-31T235959", GOOD))
    assert apply(ChangeFile(NAME, GOOD)).decision == "new"


LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("named", "seen_at", "modified"),
    [
        (timedelta(), LONG_AGO, LONG_AGO),
        (timedelta(days=3), LONG_AGO, datetime.now(UTC) + timedelta(days=3)),
        (timedelta(days=3), datetime.now(UTC) + timedelta(days=3), LONG_AGO),
    ],
    ids=["the database's", "the store's", "the consumer's"],
)
def test_a_name_is_of_the_future_by_the_clock_that_is_ahead(
    apply: Any, named: timedelta, seen_at: datetime, modified: datetime
) -> None:
    file = ChangeFile(f"{datetime.now(UTC) + named:%Y-%m-%dT%H%M%SZ}", GOOD, modified=modified)
    assert apply(file, seen_at=seen_at).decision == "new"


def test_a_local_file_is_of_the_future_whatever_time_somebody_gave_it(apply: Any) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    with pytest.raises(Permanent, match="from the future"):
        apply(ChangeFile(f"{later:%Y-%m-%dT%H%M%SZ}", GOOD, modified=later), seen_by="import")


def test_no_text_that_the_cleaner_lets_through_is_too_long_for_an_index(apply: Any) -> None:
    text = "".join(chr(0x4E00 + number * 37 % 20000) for number in range(333))
    identifier = "".join(chr(0x4E00 + number * 91 % 20000) for number in range(200))
    outcome = apply(ChangeFile(NAME, f"ticket_id,cluster,location_name\n{identifier},{text},{text[::-1]}\n"))
    assert outcome.counts.inserted == 1


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT 1 / 0", Permanent),
        ("SELECT repeat('x', 1 << 30)", Refused),
        ("SET statement_timeout = 1; SELECT pg_sleep(1)", Refused),
        ("SET transaction_read_only = on; UPDATE ingest.leases SET until = until", DependencyDown),
        (
            "RESET ROLE; SET temp_file_limit = 1; SELECT count(*) FROM (SELECT generate_series(1, 1e6) ORDER BY 1) s",
            Refused,
        ),
        ("RESET ROLE; SELECT pg_terminate_backend(pg_backend_pid())", DependencyDown),
    ],
)
def test_only_what_waiting_can_mend_counts_as_the_database_being_away(
    pool: Pool, statement: LiteralString, error: type[Exception]
) -> None:
    with pytest.raises(error), postgres.transaction(pool) as connection:
        connection.execute(statement)

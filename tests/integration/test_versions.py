"""Every content that a ticket had, from which file and line on: any order of the same files tells the same."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from consumer.feeds.declared import packaged_feeds
from consumer.files import ledger, tellings
from consumer.files.outcomes import AlreadyApplied, Applied
from consumer.files.tail import Tail
from consumer.follow_ons.relay import Relay
from consumer.postgres import database as postgres
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from consumer.upkeep import lineage
from consumer.upkeep.lineage import Content
from publisher.store.bucket import Bucket
from tests.integration.change_files import ALLOWING, ChangeFile, apply_together
from tests.integration.test_order_free_merge import as_stored, file_of, forget_everything, repeatable

INC = packaged_feeds().named("inc")
BEGAN = datetime(2026, 6, 25, 11, 0, tzinfo=UTC)
TICKETS = ("INC1", "INC2", "INC3")
ROWS = st.lists(st.tuples(st.sampled_from(TICKETS), st.sampled_from("ABC")), min_size=1, max_size=5)
FILES = st.lists(
    st.tuples(st.integers(0, 9), ROWS, st.sampled_from([0, 0, 1])),
    min_size=1, max_size=8, unique_by=lambda file: (file[0], file[2]),
)  # fmt: skip


def a_file(minute: float, rows: Sequence[tuple[str, str]], second: int = 0) -> ChangeFile:
    name = f"{BEGAN + timedelta(hours=3, minutes=minute):%Y-%m-%dT%H%M%S}"
    content = "".join(f"{ticket},{owner}\n" for ticket, owner in rows)
    return file_of(name, f"ticket_id,owner\n{content}", datetime(2026, 6, 25, 12, 0, second, tzinfo=UTC))


def minute_of(moment: datetime | None) -> float:
    return (moment - BEGAN).total_seconds() / 60 if moment else -1


def told(contents: Sequence[Content]) -> list[tuple[str, float, int | None]]:
    """Who had the ticket, from which minute and line on."""
    return [
        (
            content.raw["owner"],
            (content.key_time - BEGAN).total_seconds() / 60 if content.key_time else -1,
            content.line,
        )
        for content in contents
    ]


def lineages(pool: Pool) -> dict[str, list[Content]]:
    with postgres.transaction(pool) as connection:
        return {ticket: list(lineage.contents(connection, INC, ticket)) for ticket in TICKETS}


def expected(files: Sequence[ChangeFile]) -> dict[str, list[tuple[str, float, int]]]:
    """What the files say, read from the first to the last, with what only repeats the one before left out.

    The same bytes once more under their key, with no others in between, are the same file.
    """
    found: dict[str, list[tuple[str, float, int]]] = {ticket: [] for ticket in TICKETS}
    once = {(file.name, file.etag): file for file in files}.values()
    for file in sorted(once, key=lambda file: (file.name, file.modified, file.etag)):
        moment = datetime.strptime(f"{file.name}+0300", "%Y-%m-%dT%H%M%S%z")
        for line, row in enumerate(file.bytes.decode().splitlines()[1:], 2):
            ticket, owner = row.split(",")
            if not found[ticket] or found[ticket][-1][0] != owner:
                found[ticket].append((owner, minute_of(moment), line))
    return found


@pytest.mark.promise("Order-free", "Late files count")
@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_order_of_the_same_files_reads_the_same(data: st.DataObject, pool: Pool, apply: Any) -> None:
    files = [a_file(*drawn) for drawn in data.draw(FILES)]
    once_more = repeatable(files)
    repeats = data.draw(st.lists(st.sampled_from(once_more), max_size=3)) if once_more else []
    deliveries = as_stored(data.draw(st.permutations(files + repeats)), files)
    forget_everything(pool)
    for file in deliveries:
        apply(file)
    found = lineages(pool)
    assert {ticket: told(contents) for ticket, contents in found.items()} == expected(files)
    assert all(content.is_as_told for contents in found.values() for content in contents)


@pytest.mark.promise("Order-free", "Late files count")
def test_a_content_that_a_late_file_interrupts_is_back_with_the_next_row_that_says_it(pool: Pool, apply: Any) -> None:
    for minute, owner in ((1, "A"), (2, "A"), (3, "A"), (1.5, "B")):
        apply(a_file(minute, [("INC1", owner)]))
    assert told(lineages(pool)["INC1"]) == [("A", 1, 2), ("B", 1.5, 2), ("A", 2, 2)]


@pytest.mark.promise("Late files count")
def test_the_next_row_is_found_behind_however_many_files(pool: Pool, apply: Any) -> None:
    between = [a_file(10 + number, [("INC2", "ABC"[number % 3])]) for number in range(200)]
    files = [
        a_file(1, [("INC1", "A"), ("INC3", "A")]), *between[:20], a_file(30.5, [("INC3", "A")]), *between[20:],
        a_file(300, [("INC1", "A"), ("INC3", "B")]),
    ]  # fmt: skip
    for file in (*files, late := a_file(2, [("INC1", "B"), ("INC2", "C"), ("INC3", "C")])):
        apply(file)
    assert {ticket: told(contents) for ticket, contents in lineages(pool).items()} == expected([*files, late])


@pytest.mark.promise("Order-free")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=FILES)
def test_files_merged_at_the_same_time_read_the_same(pool: Pool, apply: Any, drawn: Any) -> None:
    pool.resize(8, 8)  # or its threads would draw Hypothesis's random numbers
    pool.wait()
    files = [a_file(*each) for each in drawn]
    forget_everything(pool)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(apply, files + repeatable(files)))
    assert {ticket: told(contents) for ticket, contents in lineages(pool).items()} == expected(files)


@pytest.mark.promise("Order-free")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_several_files_of_one_transaction_read_the_same(data: st.DataObject, pool: Pool) -> None:
    drawn = data.draw(
        st.lists(FILES.map(lambda files: files[0]), min_size=2, max_size=8, unique_by=lambda file: file[0])
    )
    files = data.draw(st.permutations([a_file(*each) for each in drawn]))
    cut = data.draw(st.integers(1, len(files)))
    forget_everything(pool)
    for together in (files[:cut], files[cut:]):
        if together:
            apply_together(pool, together)
    assert {ticket: told(contents) for ticket, contents in lineages(pool).items()} == expected(files)


KEPT = ApplySettings.model_validate(ALLOWING)
NOT_KEPT = ApplySettings.model_validate({**ALLOWING, "FLEETTICKETS_KEEP_VERSIONS_DAYS": 0})


def test_what_was_not_kept_for_a_while_is_not_gone_on_from(pool: Pool, apply: Any) -> None:
    apply(a_file(0, [("INC1", "A")]))
    apply(a_file(1, [("INC1", "B")]))
    apply(a_file(2, [("INC1", "C")]), settings=NOT_KEPT)
    with postgres.transaction(pool) as connection:
        assert not lineage.lineage(connection, INC, "INC1").is_kept
    apply(a_file(3, [("INC1", "A")]))
    with postgres.transaction(pool) as connection:
        found = lineage.lineage(connection, INC, "INC1")
    assert (found.is_kept, minute_of(found.since)) == (True, 2)
    # Of before, the last row that told of the ticket is known, and nothing that was kept once.
    assert told(lineages(pool)["INC1"]) == [("C", 2, 2), ("A", 3, 2)]


def test_what_is_too_old_is_forgotten_bit_by_bit_and_what_is_left_says_from_when(pool: Pool, apply: Any) -> None:
    for minute, owner in enumerate("ABCA"):
        apply(a_file(minute, [("INC1", owner), ("INC2", "A")]))
    bound = BEGAN + timedelta(minutes=2.5)
    for _ in range(3):
        with postgres.transaction(pool) as connection:
            tellings.prune(connection, "inc", bound)
    assert told(lineages(pool)["INC1"]) == [("C", 2, 2), ("A", 3, 2)]
    with postgres.transaction(pool) as connection:
        since = lineage.lineage(connection, INC, "INC1").since
        left = connection.execute("SELECT count(*) AS rows FROM tickets.versions").fetchone()
        parts = connection.execute("SELECT count(*) AS parts FROM ingest.told_rows").fetchone()
    assert since == bound
    assert (left, parts) == ({"rows": 2}, {"parts": 1})
    # A late file from behind the bound does no harm, and the next prune takes it.
    apply(a_file(0.5, [("INC1", "D"), ("INC2", "B")]))
    with postgres.transaction(pool) as connection:
        tellings.prune(connection, "inc", bound)
    assert told(lineages(pool)["INC1"])[-2:] == [("C", 2, 2), ("A", 3, 2)]


def test_one_sweep_forgets_bit_by_bit_all_that_is_too_old(
    pool: Pool, apply: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minute, owner in enumerate("ABCA"):
        apply(a_file(minute, [("INC1", owner)]))
    monkeypatch.setattr(tellings, "_PRUNED", 1)
    relay = Relay(pool, lambda _outgoing: None, lambda _point: None)
    Tail(pool, bucket, relay, lambda _point: None, keep_versions_days=1).sweep(Event())
    assert told(lineages(pool)["INC1"]) == [("A", 3, 2)]
    with postgres.transaction(pool) as connection:
        assert connection.execute("SELECT FROM ingest.told_rows").fetchall() == []


def killed(pool: Pool, act: Callable[[Connection], object]) -> None:
    """Do it in a transaction whose connection ends right before the COMMIT, as with its process."""
    with postgres.transaction(pool) as connection:
        act(connection)
        connection.close()


def test_a_sweep_that_is_killed_has_forgotten_nothing_and_the_next_one_forgets_it(pool: Pool, apply: Any) -> None:
    for minute, owner in enumerate("ABC"):
        apply(a_file(minute, [("INC1", owner)]))
    before = told(lineages(pool)["INC1"])

    def forget(connection: Connection) -> None:
        tellings.prune(connection, "inc", BEGAN + timedelta(minutes=1.5))

    killed(pool, forget)
    assert told(lineages(pool)["INC1"]) == before
    for _ in range(2):  # what is forgotten is so once
        with postgres.transaction(pool) as connection:
            forget(connection)
        assert told(lineages(pool)["INC1"]) == before[1:]


def test_a_history_whose_first_transaction_is_killed_begins_with_the_next_one(pool: Pool, apply: Any) -> None:
    apply(a_file(0, [("INC1", "A")]), settings=NOT_KEPT)
    killed(pool, lambda connection: tellings.begin(connection, INC))
    apply(a_file(1, [("INC1", "B")]))
    assert told(lineages(pool)["INC1"]) == [("A", 0, 2), ("B", 1, 2)]


@pytest.mark.promise("Exactly once")
def test_a_file_that_is_undone_leaves_nothing_of_it(pool: Pool, apply: Any) -> None:
    apply(a_file(0, [("INC1", "A")]))
    before = lineages(pool)["INC1"]

    def give_up(point: str) -> None:
        if point == "before commit":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        apply_together(pool, [a_file(1, [("INC1", "B")])], give_up)
    assert lineages(pool)["INC1"] == before
    assert isinstance(apply(a_file(1, [("INC1", "B")])), Applied)
    assert isinstance(apply(a_file(1, [("INC1", "B")])), AlreadyApplied)
    assert told(lineages(pool)["INC1"]) == [("A", 0, 2), ("B", 1, 2)]


def test_a_new_epoch_outranks_what_is_stamped_later(pool: Pool, apply: Any) -> None:
    apply(a_file(0, [("INC1", "A")]))
    apply(a_file(8, [("INC1", "B")]))
    with postgres.transaction(pool) as connection:
        ledger.begin_epoch(connection, "inc", "another bucket")
    apply(a_file(4, [("INC1", "C")]))
    assert told(lineages(pool)["INC1"]) == [("A", 0, 2), ("B", 8, 2), ("C", 4, 2)]

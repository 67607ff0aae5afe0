"""Every content that a ticket had, from which file and line on: any order of the same files tells the same."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.upkeep import lineage
from consumer.upkeep.lineage import Content
from tests.integration.change_files import ChangeFile
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
    """What the files say, read from the first to the last, with what only repeats the one before left out."""
    found: dict[str, list[tuple[str, float, int]]] = {ticket: [] for ticket in TICKETS}
    for file in sorted(files, key=lambda file: (file.name, file.modified, file.etag)):
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

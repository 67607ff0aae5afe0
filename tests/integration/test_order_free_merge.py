"""Promise 3: any order, duplication or interleaving of the same files gives the same tickets and closures."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from consumer.files.outcomes import Applied
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from tests.integration.change_files import ChangeFile, apply_together

HEADER = "ticket_id,normalized_status,raw_status,region,cluster,mttr,closed_at,is_alarm,latitude,longitude"
ROW = st.tuples(
    st.sampled_from(["INC1", "INC2", "INC3", "INC4"]),
    st.sampled_from(["open", "closed", "held"]),
    st.sampled_from(["Open", "Closed"]),
    st.sampled_from(["NAIROBI", "Coast", ""]),
    st.sampled_from(["QOA", "PTMP"]),
    st.sampled_from(["", "5", "12.5"]),
    st.sampled_from(["", "2026-06-24 10:00", "2026-06-25 11:30:00"]),
    st.sampled_from(["", "false", "false", "true"]),
    st.sampled_from([",", ",", "-1.28,36.82", "-1.29,36.83", "0,0"]),
).map(",".join)
NAME = st.sampled_from(["2026-06-25T140000", "2026-06-25T14-00-00", "2026-06-25T142000", "20260625_144000"])
# Versions of one name differ in their bytes, and so in their ETag; some are stored within one second.
FILE = st.tuples(
    NAME,
    st.lists(ROW, min_size=1, max_size=5).map(lambda rows: "\n".join([HEADER, *rows, ""])),
    st.sampled_from([0, 0, 1]).map(lambda second: datetime(2026, 6, 25, 12, 0, second, tzinfo=UTC)),
)


def file_of(name: str, content: str, modified: datetime) -> ChangeFile:
    return ChangeFile(
        name, content, etag=hashlib.md5(content.encode(), usedforsecurity=False).hexdigest(), modified=modified
    )


def outcome(pool: Pool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    with postgres.transaction(pool) as connection:
        tickets = connection.execute("SELECT * FROM tickets.inc ORDER BY ticket_id").fetchall()
        closures = connection.execute("SELECT * FROM tickets.closure_events ORDER BY ticket_id, closed_at").fetchall()
    for row in (*tickets, *closures):
        row.pop("ingested_at", None)
        row.pop("observed_at", None)
    return tickets, closures


def repeatable(files: list[ChangeFile]) -> list[ChangeFile]:
    """Those that a delivery can find once more in the bucket after all others were there.

    Of several versions of a key that were stored within a second each is read while it is there. One that is read again
    after another was stored anew, and is the news.
    """
    places = Counter((file.name, file.modified) for file in files)
    return [file for file in files if places[file.name, file.modified] == 1]


def as_stored(deliveries: list[ChangeFile], files: list[ChangeFile]) -> list[ChangeFile]:
    """The same with the versions of a key that were stored within a second in their order: so they are read."""
    kept = set(map(id, repeatable(files)))
    left = {file: iter([other for other in files if second_of(other) == file]) for file in map(second_of, files)}
    return [file if id(file) in kept else next(left[second_of(file)]) for file in deliveries]


def second_of(file: ChangeFile) -> tuple[str, datetime]:
    return file.name, file.modified


def forget_everything(pool: Pool) -> None:
    with postgres.transaction(pool) as connection:
        connection.execute("SET LOCAL ROLE NONE")  # the consumer's may not do this
        connection.execute(
            "TRUNCATE tickets.inc, tickets.closure_events, tickets.import_meta, ingest.inc_positions,"
            " ingest.crq_positions,"
            " ingest.rejects,"
            " ingest.outbox, ingest.ledger,"
            " ingest.histories, ingest.tellings, ingest.told_rows, tickets.versions"
        )
        connection.execute(
            "INSERT INTO tickets.geo_clusters (cluster, latitude, longitude, status)"
            " VALUES ('QOA', -1.26, 36.86, 'hit') ON CONFLICT DO NOTHING"
        )


@pytest.mark.promise("Order-free", "Late files count")
@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_permutation_and_duplication_gives_one_result(data: st.DataObject, pool: Pool, apply: Any) -> None:
    drawn = data.draw(st.lists(FILE, min_size=1, max_size=6, unique_by=lambda file: (file[0], file[1])))
    files = [file_of(*file) for file in drawn]
    once_more = repeatable(files)
    repeats = data.draw(st.lists(st.sampled_from(once_more), max_size=4)) if once_more else []
    deliveries = as_stored(data.draw(st.permutations(files + repeats)), files)
    forget_everything(pool)
    for file in files:
        apply(file)
    expected = outcome(pool)
    forget_everything(pool)
    for file in deliveries:
        apply(file)
    assert outcome(pool) == expected


@pytest.mark.promise("Order-free")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(FILE, min_size=2, max_size=8, unique_by=lambda file: (file[0], file[2])))
def test_files_merged_at_the_same_time_give_the_same_result(
    pool: Pool, apply: Any, drawn: list[tuple[str, str, datetime]]
) -> None:
    # With all its connections made it draws no more random numbers, which Hypothesis would take for the strategies'.
    pool.resize(8, 8)
    pool.wait()
    files = [file_of(*file) for file in drawn]
    forget_everything(pool)
    for file in files:
        apply(file)
    expected = outcome(pool)
    forget_everything(pool)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(apply, files + repeatable(files)))
    assert outcome(pool) == expected


@pytest.mark.promise("Order-free")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(FILE, min_size=2, max_size=4, unique_by=lambda file: file[0]), data=st.data())
def test_several_files_of_one_transaction_are_counted_as_if_the_newest_had_come_first(
    pool: Pool, apply: Any, drawn: list[tuple[str, str, datetime]], data: st.DataObject
) -> None:
    files = [file_of(*file) for file in drawn]
    before = data.draw(st.lists(st.sampled_from(files), max_size=2, unique_by=lambda file: file.name))
    together = [file for file in files if file not in before]
    if not together:
        return
    found = []
    for newest_first in (False, True):
        forget_everything(pool)
        for file in before:
            apply(file)
        if newest_first:
            # "-" is before a digit, and the two names of one moment are in the order of their keys.
            order = sorted(together, key=lambda file: (moment_of(file.name), file.name), reverse=True)
            applied = {file.name: apply(file) for file in order}
        else:
            applied = {file.name: one for file, one in zip(together, apply_together(pool, together), strict=True)}
        found.append((outcome(pool), positions(pool), {name: counted(one) for name, one in applied.items()}))
    assert found[0] == found[1]


def moment_of(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def positions(pool: Pool) -> list[dict[str, Any]]:
    query = "SELECT ticket_id, (position).key, (position).line FROM ingest.inc_positions ORDER BY 1"
    with postgres.transaction(pool) as connection:
        return connection.execute(query).fetchall()


def counted(applied: object) -> dict[str, int]:
    """Without the closures: of one that several files tell each counts that comes by itself."""
    assert isinstance(applied, Applied)
    return {name: count for name, count in asdict(applied.counts).items() if name != "closures"}

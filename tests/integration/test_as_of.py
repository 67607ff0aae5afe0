"""The tickets as they were at an instant, of any order of the files, and never a figure that nothing tells."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.files import tellings
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from tests.integration.change_files import ChangeFile, apply_together
from tests.integration.test_order_free_merge import as_stored, file_of, forget_everything
from tests.integration.test_versions import BEGAN, FILES, a_file

HEADER = "ticket_id,normalized_status,cluster,latitude,longitude,closed_at,mttr,created_at_service\n"


def at(minute: float) -> datetime:
    return BEGAN + timedelta(minutes=minute)


def as_of(pool: Pool, minute: float, what: str = "raw ->> 'owner'") -> dict[str, Any]:
    with postgres.transaction(pool) as connection:
        asked = f"SELECT ticket_id, {what} AS found FROM reporting.inc_as_of(%s)"  # noqa: S608 - of this file
        return {row["ticket_id"]: row["found"] for row in connection.execute(asked, [at(minute)])}


def expected(files: Sequence[ChangeFile], minute: float) -> dict[str, str]:
    """What the last row says of each ticket, of files up to that minute."""
    found: dict[str, str] = {}
    for file in sorted(files, key=lambda file: (file.name, file.modified, file.etag)):
        if datetime.strptime(f"{file.name}+0300", "%Y-%m-%dT%H%M%S%z") <= at(minute):
            found |= dict(row.split(",") for row in file.bytes.decode().splitlines()[1:])
    return found


@pytest.mark.promise("Order-free", "Late files count")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_the_same_files_was_the_same(data: st.DataObject, pool: Pool, apply: Any) -> None:
    files = [a_file(*drawn) for drawn in data.draw(FILES)]
    forget_everything(pool)
    for file in as_stored(data.draw(st.permutations(files)), files):
        apply(file)
    for minute in (-1, 0, 2.5, 5, 9):
        assert as_of(pool, minute) == expected(files, minute)


@pytest.mark.promise("Order-free", "Late files count")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_several_files_of_one_transaction_tell_was_the_same(data: st.DataObject, pool: Pool) -> None:
    drawn = st.lists(FILES.map(lambda files: files[0]), min_size=2, max_size=8, unique_by=lambda file: file[0])
    files = data.draw(st.permutations([a_file(*each) for each in data.draw(drawn)]))
    cut = data.draw(st.integers(1, len(files)))
    forget_everything(pool)
    for together in filter(None, (files[:cut], files[cut:])):
        apply_together(pool, together)
    for minute in (-1, 0, 2.5, 5, 9):
        assert as_of(pool, minute) == expected(files, minute)


def test_what_is_in_order_among_files_of_one_transaction_is_put_without_a_look_at_what_was_told(
    pool: Pool, apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(a_file(0, [("INC1", "A")]))
    monkeypatch.setattr(tellings, "put_late", lambda *_: pytest.fail("taken for late"))
    apply_together(pool, [a_file(2, [("INC1", "C"), ("INC2", "C")]), a_file(1, [("INC1", "B"), ("INC2", "B")])])
    assert [as_of(pool, minute)["INC1"] for minute in (0, 1, 2)] == ["A", "B", "C"]
    assert as_of(pool, 1)["INC2"] == "B"


def test_a_ticket_that_was_another_has_its_columns_and_its_place(pool: Pool, apply: Callable[..., Any]) -> None:
    apply(file_of("2026-06-25T140000", HEADER + "INC1,open,QOA,-1.28,36.82,,,2026-06-25 09:00\n", BEGAN))
    apply(file_of("2026-06-25T141000", HEADER + "INC1,closed,QOA,-1.30,36.90,2026-06-25 14:05,5.5,\n", BEGAN))
    columns = (
        "jsonb_build_array(normalized_status, cluster, latitude, longitude, closed_at, mttr, created_at_service,"
        " geo_source, public.ST_X(geom), public.ST_X(geog::public.geometry), ingested_at IS NULL)"
    )
    then, now = as_of(pool, 5, columns)["INC1"], as_of(pool, 10, columns)["INC1"]
    opened = "2026-06-25T06:00:00+00:00"
    assert then == ["open", "QOA", -1.28, 36.82, None, None, opened, "feed", 36.82, 36.82, True]
    assert now[:2] == ["closed", "QOA"]
    assert now[7:] == ["feed", 36.9, 36.9, False]


def test_before_the_history_is_whole_it_says_so(pool: Pool, apply: Callable[..., Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no history of inc is kept"):
        raised(pool, 0)
    apply(a_file(0, [("INC1", "A")]))
    with postgres.transaction(pool) as connection:
        connection.execute("UPDATE ingest.histories SET since = %s", [at(0)])
    assert as_of(pool, 0) == {"INC1": "A"}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"the history of inc is whole from .* on"):
        raised(pool, -0.1)


def raised(pool: Pool, minute: float) -> None:
    with pool.connection() as connection:
        connection.execute("SELECT FROM reporting.inc_as_of(%s)", [at(minute)])


def test_the_backlog_of_yesterday_costs_what_is_open_and_what_changed(pool: Pool, apply: Callable[..., Any]) -> None:
    closed = "".join(f"INC{number},closed,QOA,,,2026-06-24 10:00,,\n" for number in range(5000))
    apply(file_of("2026-06-25T140000", HEADER + closed, BEGAN))
    opened = "".join(f"INC{number},open,QOA,,,,,\n" for number in range(5000, 5040))
    apply(file_of("2026-06-25T140100", HEADER + opened, BEGAN))
    apply(file_of("2026-06-25T140200", HEADER + opened.replace("QOA", "PTMP"), BEGAN))
    with postgres.transaction(pool) as connection:
        connection.execute("SET LOCAL ROLE NONE")
        connection.execute("ANALYZE tickets.inc, tickets.versions, ingest.tellings")
        asked = (
            "EXPLAIN SELECT * FROM reporting.inc_as_of(%s)"
            " WHERE closed_at IS NULL AND lower(normalized_status) IS DISTINCT FROM 'closed'"
        )
        plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(asked, [at(1.5)]))
    found = set(re.findall(r"Scan using (\w+)|Bitmap Index Scan on (\w+)", plan))
    assert "Seq Scan on inc" not in plan, plan
    assert "One-Time Filter: ingest.is_within_history" in plan
    assert {"inc_open_idx", "inc_closed_at_idx"} & {name for pair in found for name in pair}, plan


def prune(pool: Pool, minute: float) -> None:
    with postgres.transaction(pool) as connection:
        tellings.prune(connection, "inc", at(minute))


def test_a_ticket_of_which_is_forgotten_where_it_began_is_there_when_it_changes_twice_at_once(
    pool: Pool, apply: Callable[..., Any]
) -> None:
    apply(a_file(0, [("INC1", "A"), ("INC2", "A")]))
    prune(pool, 5)
    apply(a_file(9, [("INC1", "B"), ("INC1", "C")]))
    assert as_of(pool, 6) == {"INC1": "A", "INC2": "A"}
    assert as_of(pool, 9) == {"INC1": "C", "INC2": "A"}


def test_a_file_of_before_what_is_forgotten_takes_no_place_of_what_is_kept(
    pool: Pool, apply: Callable[..., Any]
) -> None:
    apply(a_file(1, [("INC1", "A")]))
    apply(a_file(2, [("INC1", "A")]))
    apply(a_file(9, [("INC1", "C")]))
    prune(pool, 5)
    apply(a_file(1.5, [("INC1", "B")]))
    assert as_of(pool, 6) == {"INC1": "A"}
    assert as_of(pool, 9) == {"INC1": "C"}


def test_a_file_that_an_older_program_applies_ends_the_history(pool: Pool, apply: Callable[..., Any]) -> None:
    apply(a_file(0, [("INC1", "A")]))
    with postgres.transaction(pool) as connection:
        # As such a program does: ticket, position and watermark, and it tells nothing.
        connection.execute("UPDATE tickets.inc SET raw = raw || '{\"owner\": \"B\"}' WHERE ticket_id = 'INC1'")
        connection.execute("UPDATE tickets.import_meta SET imported_at = now() WHERE source = 'inc'")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no history of inc is kept"):
        raised(pool, 0)
    apply(a_file(9, [("INC1", "C")]))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is whole from"):
        raised(pool, -1)
    assert as_of(pool, 9) == {"INC1": "C"}

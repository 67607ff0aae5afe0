"""What the oracle foretells of a feed, on feeds small enough to see through."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from consumer.demo.checks import Check, compare
from consumer.demo.feed import Exporter
from consumer.demo.model import INC, FeedModel
from consumer.demo.oracle import ChangeFile, foretell, typed

HEADER = "ticket_id,region,raw_status,closed_at,mttr,is_alarm,last_seen_at"
T0 = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def file(minutes: int, *lines: str, name: str = "") -> ChangeFile:
    body = "\n".join([HEADER, *lines]) + "\n"
    return ChangeFile(name or f"{minutes:02}.csv", T0 + timedelta(minutes=minutes), body.encode())


def test_the_newest_file_wins_whatever_the_order() -> None:
    old = file(0, "A,Nairobi,Open,,,,")
    new = file(20, "A,Kiambu,On Hold,,,,")

    assert foretell([old, new]).tickets() == foretell([new, old]).tickets()
    assert foretell([new, old]).tickets()["A"]["region"] == "kiambu"


def test_equal_instants_are_decided_by_the_name() -> None:
    first, second = file(0, "A,x,,,,,", name="a.csv"), file(0, "A,y,,,,,", name="b.csv")

    assert foretell([second, first]).tickets()["A"]["region"] == "y"


def test_the_last_row_of_a_ticket_in_a_file_wins() -> None:
    expected = foretell([file(0, "A,x,,,,,", "A,y,,,,,")])

    assert expected.tickets()["A"]["region"] == "y"
    assert expected.counts["rows_superseded"] == 1


def test_empty_is_null_region_lower_and_raw_status_upper() -> None:
    expected = foretell([file(0, "A,Nairobi West,In Progress,,,false,")])

    assert expected.tickets()["A"]["raw"] == {
        "ticket_id": "A",
        "region": "nairobi west",
        "raw_status": "IN PROGRESS",
        "closed_at": None,
        "mttr": None,
        "is_alarm": "false",
        "last_seen_at": None,
    }


def test_closures_are_of_all_rows_also_of_outranked_ones() -> None:
    closed = file(0, "A,x,,2026-11-20 10:00,30,,", "A,x,,2026-11-20T10:00:30+03:00,31,,")
    reopened = file(20, "A,x,,,,,")

    assert set(foretell([reopened, closed]).closures()) == {
        ("A", datetime(2026, 11, 20, 7, 0, tzinfo=UTC)),
        ("A", datetime(2026, 11, 20, 7, 0, 30, tzinfo=UTC)),
    }


def test_a_closure_has_its_holder_from_its_first_row_and_its_minutes_from_the_last() -> None:
    later, first = file(20, "A,Thika,,2026-11-20 10:00,45,,"), file(0, "A,Nairobi,,2026-11-20 10:00,30,,")
    (closure,) = foretell([later, first]).closures().values()
    assert (closure["region"], closure["mttr"]) == ("nairobi", 45)


def test_alarms_and_the_sentinel_are_dropped_and_counted() -> None:
    expected = foretell([file(0, "A,x,,,,T,", "EXPORT STOPPED: 2 of 9,,,,,,", "B,x,,,,0,")])

    assert list(expected.tickets()) == ["B"]
    assert expected.sums() == {
        "rows_read": 3, "rows_superseded": 0, "rows_rejected": 0, "alarms_dropped": 1, "sentinels_dropped": 1,
        "rows_inserted": 1, "accepted": 1,
    }  # fmt: skip


def test_bad_rows_are_rejected_by_their_line() -> None:
    good = 'B,"a,\nb",,,,,'
    expected = foretell([file(0, "A,x,,,,,,too many", good, ",no id,,,,,", "C,x,,31/06/2026,,,", "D,x,,,many,,")])

    assert list(expected.tickets()) == ["B"]
    assert expected.rejects == {
        ("00.csv", 2): "A,x,,,,,,too many",
        ("00.csv", 5): ",no id,,,,,",
        ("00.csv", 6): "C,x,,31/06/2026,,,",
        ("00.csv", 7): "D,x,,,many,,",
    }


def test_a_file_that_lacks_a_column_is_dead_and_nothing_else() -> None:
    broken = ChangeFile("b.csv", T0, HEADER.encode().replace(b",closed_at", b"") + b"\nA,x,,,,\n")

    assert (foretell([broken]).dead, foretell([broken]).counts.total()) == ({"b.csv"}, 0)


@pytest.mark.parametrize(("text", "minutes"), [("90", 90), ("90.5", 91), ("90.25", 90), ("", None)])
def test_mttr_is_rounded_to_minutes(text: str, minutes: int | None) -> None:
    assert typed(INC, {"mttr": text or None})["mttr"] == minutes


@pytest.mark.parametrize(
    ("latitude", "longitude", "place"),
    [("-1.3", "36.8", (-1.3, 36.8)), ("0", "0", None), ("-1.3", None, None), ("36.8", "-1.3", None)],
)
def test_only_a_whole_pair_in_kenya_is_a_place(
    latitude: str, longitude: str | None, place: tuple[float, float] | None
) -> None:
    columns = typed(INC, {"latitude": latitude, "longitude": longitude})

    assert (columns["latitude"], columns["longitude"]) == (place or (None, None))


def test_a_comparison_that_holds() -> None:
    assert compare("x", {"A": 1}, {"A": 1}) == Check("x", compared=1, different=0)
    assert compare("x", {"A": 1}, {"A": 1}).ok


def test_a_comparison_names_its_first_differences() -> None:
    expected = {"A": {"mttr": 1, "owner": "K"}, "B": 2, ("C", 7): 3}
    found = {"A": {"mttr": 2, "owner": "K"}, "B": 2, "D": 4}

    check = compare("x", expected, found)

    assert not check.ok
    assert check.different == 3
    assert check.differences == ("A: mttr is 2, not 1", "C 7: missing", "D: not expected, found 4")


def test_a_feed_of_another_name_id_and_columns_is_made_up_and_foretold() -> None:
    model = FeedModel(
        name="crq",
        id_column="change_id",
        texts=("raw_status", "owner"),
        times=("scheduled_at", "source_updated_at"),
        needed=None,
    )
    exporter = Exporter(Random(7), model, tickets=5)
    files = [exporter.export(number, T0 + timedelta(minutes=number), 20) for number in range(6)]

    expected = foretell(files, model)

    assert len(expected.tickets()) == 5
    assert all(name.startswith("CRQ") for name in expected.tickets())
    assert {frozenset(row.raw) for row in expected.accepted} == {model.columns}
    assert (expected.counts["alarms_dropped"], expected.closures()) == (0, {})
    assert expected.counts["rows_rejected"] == len(expected.rejects) == 3

"""What the demo expects of a feed, on feeds small enough to see through."""

from datetime import UTC, datetime, timedelta

import pytest

from consumer.demo.checks import Check, compare
from consumer.demo.expected import Expected, expect, typed
from consumer.demo.feed import ChangeFile

HEADER = "ticket_id,region,raw_status,closed_at,mttr,is_alarm,last_seen_at"
T0 = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def file(minutes: int, *lines: str, name: str = "") -> ChangeFile:
    body = "\n".join([HEADER, *lines]) + "\n"
    return ChangeFile(name or f"{minutes:02}.csv", T0 + timedelta(minutes=minutes), body.encode())


def test_the_newest_file_wins_whatever_the_order() -> None:
    old = file(0, "A,Nairobi,Open,,,,")
    new = file(20, "A,Kiambu,On Hold,,,,")

    assert expect([old, new]).tickets == expect([new, old]).tickets
    assert expect([new, old]).tickets["A"]["region"] == "kiambu"


def test_equal_instants_are_decided_by_the_name() -> None:
    first, second = file(0, "A,x,,,,,", name="a.csv"), file(0, "A,y,,,,,", name="b.csv")

    assert expect([second, first]).tickets["A"]["region"] == "y"


def test_the_last_row_of_a_ticket_in_a_file_wins() -> None:
    expected = expect([file(0, "A,x,,,,,", "A,y,,,,,")])

    assert expected.tickets["A"]["region"] == "y"
    assert expected.rows["superseded"] == 1


def test_empty_is_null_region_lower_and_raw_status_upper() -> None:
    expected = expect([file(0, "A,Nairobi West,In Progress,,,false,")])

    assert expected.tickets["A"] == {
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

    assert expect([reopened, closed]).closures == {
        ("A", datetime(2026, 11, 20, 7, 0, tzinfo=UTC)),
        ("A", datetime(2026, 11, 20, 7, 0, 30, tzinfo=UTC)),
    }


def test_alarms_and_the_sentinel_are_dropped_and_counted() -> None:
    expected = expect([file(0, "A,x,,,,T,", "EXPORT STOPPED: 2 of 9,,,,,,", "B,x,,,,0,")])

    assert list(expected.tickets) == ["B"]
    assert expected.rows == {"read": 3, "superseded": 0, "rejected": 0, "alarms": 1, "sentinels": 1}


def test_bad_rows_are_rejected_by_their_line() -> None:
    good = 'B,"a,\nb",,,,,'
    expected = expect([file(0, "A,x,,,,,,too many", good, ",no id,,,,,", "C,x,,31/06/2026,,,", "D,x,,,many,,")])

    assert list(expected.tickets) == ["B"]
    assert expected.rejects == {
        ("00.csv", 2): "A,x,,,,,,too many",
        ("00.csv", 5): ",no id,,,,,",
        ("00.csv", 6): "C,x,,31/06/2026,,,",
        ("00.csv", 7): "D,x,,,many,,",
    }


def test_a_file_that_is_not_utf8_is_dead_and_nothing_else() -> None:
    broken = ChangeFile("b.csv", T0, HEADER.encode() + b"\nA,Fibr\xe9,,,,,\n")

    assert expect([broken]) == Expected(dead={"b.csv"})


@pytest.mark.parametrize(("text", "minutes"), [("90", 90), ("90.5", 91), ("90.25", 90), ("", None)])
def test_mttr_is_rounded_to_minutes(text: str, minutes: int | None) -> None:
    assert typed({"mttr": text or None})["mttr"] == minutes


@pytest.mark.parametrize(
    ("latitude", "longitude", "place"),
    [("-1.3", "36.8", (-1.3, 36.8)), ("0", "0", None), ("-1.3", None, None), ("36.8", "-1.3", None)],
)
def test_only_a_whole_pair_in_kenya_is_a_place(
    latitude: str, longitude: str | None, place: tuple[float, float] | None
) -> None:
    columns = typed({"latitude": latitude, "longitude": longitude})

    assert (columns["latitude"], columns["longitude"]) == (place or (None, None))
    assert columns["geo_source"] == ("feed" if place else None)


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

"""The header contract: which column of a file is which of the feed's, and what is told of it."""

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.files.header import Header, HeaderNotes, read_header
from publisher.errors import Permanent

INC = packaged_feeds().named("inc")
WHOLE = (INC.id, *INC.always)


def header(*names: str, allows_missing: bool = True) -> Header:
    return read_header(names, INC, allows_missing=allows_missing)


def test_a_header_as_declared_has_nothing_to_be_told_of() -> None:
    assert header(*WHOLE, allows_missing=False).notes == HeaderNotes()
    assert header(*reversed(WHOLE), "latitude", "department", allows_missing=False).notes == HeaderNotes()


@pytest.mark.parametrize(
    "name",
    [
        "Closed_at",
        "CLOSED AT",
        "closed-at",
        "closedAt",
        "closed\u200b_at",
        "closed\u00ad_at",
        "\ufeffclosed_at",
        "\uff43losed_at",
    ],
)
def test_a_column_by_another_spelling_is_that_column_and_told(name: str) -> None:
    found = header("ticket_id", name)
    assert found.names == ("ticket_id", "closed_at")
    assert found.notes.renamed == {"closed_at": name}


def test_the_id_may_be_spelt_otherwise_too() -> None:
    assert header("owner", "Ticket ID").id_place == 1


@pytest.mark.parametrize("missing", [("closed_at",), ("cluster", "closed_at"), INC.always])
def test_a_file_without_what_is_always_written_is_refused_by_the_names_of_it(missing: tuple[str, ...]) -> None:
    there = [name for name in WHOLE if name not in missing]
    with pytest.raises(Permanent) as refused:
        header(*there, allows_missing=False)
    told = ", ".join(name for name in INC.always if name in missing)
    assert (refused.value.reason, refused.value.detail) == ("columns missing", told)
    assert set(header(*there).notes.missing) == set(missing)


def test_every_typed_column_but_the_coordinates_is_always_written() -> None:
    assert set(INC.always) == INC.typed_columns.keys() - {"latitude", "longitude"}


def test_columns_that_are_not_declared_stay_and_are_told() -> None:
    found = header("ticket_id", "note", "Note", "note", "note_2", "")
    assert found.names == ("ticket_id", "note", "Note", "note_3", "note_2", "column_6")
    assert found.notes.undeclared == ("note", "Note", "note_3", "note_2")


def test_a_name_made_up_for_a_column_does_not_hide_another() -> None:
    assert header("ticket_id", "column_3", "").names == ("ticket_id", "column_3", "column_3_2")


def test_columns_that_are_one_of_the_feed_are_held_against_each_other() -> None:
    found = header("ticket_id", "closed_at", "owner", "Closed At")
    assert (found.twins, found.notes.twice) == (((1, 3),), ("closed_at",))


def test_columns_without_a_name_at_the_end_need_not_be_there() -> None:
    found = header("ticket_id", "owner", "", "")
    assert (found.least, found.width) == (2, 4)


@pytest.mark.parametrize("names", [("owner", "region"), ("",)])
def test_a_header_without_the_id_fails_the_file(names: tuple[str, ...]) -> None:
    with pytest.raises(Permanent, match=r"^no ticket_id: the header has no column ticket_id but: "):
        header(*names)


def test_a_header_of_millions_of_columns_fails_the_file_before_it_fills_the_memory() -> None:
    with pytest.raises(Permanent, match="too many columns: the header has 2,001"):
        header("ticket_id", *(f"c{number}" for number in range(2000)))


@pytest.mark.parametrize("names", [[f"{number:01000}" for number in range(17)], ["ŷ" * 8193]])
def test_a_header_of_long_names_fails_the_file_for_each_row_would_repeat_them(names: list[str]) -> None:
    with pytest.raises(Permanent, match=r"header too large: names of [\d,]+ bytes, more than 16,384"):
        header("ticket_id", *names)
    assert header("ticket_id", *(name[:8000] for name in names[:16]))


def test_empty_names_are_made_up_within_the_same_bound() -> None:
    with pytest.raises(Permanent, match="header too large"):
        header("ticket_id", *[""] * 1600, "x")

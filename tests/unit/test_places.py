"""Who may stay when there are more connections than places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.sources.places import ADDRESS_SHARE, Places, counted_as

STORE, STRANGER = "10.0.0.1", "10.0.0.2"


def test_who_has_shown_no_token_for_longest_makes_room() -> None:
    places: Places[str] = Places(3)
    assert [places.enter(name, address) for name, address in (("a", "1"), ("b", "2"), ("c", "3"))] == [None] * 3
    places.know("a")
    assert places.enter("d", "4") == "b"
    assert places.enter("e", "5") == "c"
    assert len(places) == 3


def test_an_address_makes_room_for_itself_before_the_places_are_taken() -> None:
    places: Places[int] = Places(5 * ADDRESS_SHARE)
    assert [places.enter(number, STRANGER) for number in range(8)] == [None] * 5 + [0, 1, 2]
    assert len(places) == 5


def test_who_has_shown_the_token_counts_for_no_address() -> None:
    places: Places[int] = Places(2 * ADDRESS_SHARE)
    for number in range(2 * ADDRESS_SHARE):
        assert places.enter(number, STORE) is None
        places.know(number)
    assert len(places) == 2 * ADDRESS_SHARE


def test_who_rests_between_two_requests_makes_room_only_where_no_stranger_can() -> None:
    places: Places[str] = Places(2)
    for name in ("store", "stranger"):
        places.enter(name, name)
    places.know("store")
    places.rest("store")
    assert places.enter("other", "other") == "stranger"
    places.know("other")
    assert places.enter("third", "third") == "store"


def test_where_all_are_at_work_the_newcomer_goes() -> None:
    places: Places[str] = Places(1)
    places.enter("store", STORE)
    places.know("store")
    assert places.enter("newcomer", STRANGER) == "newcomer"
    places.leave("newcomer")
    places.know("newcomer")
    places.rest("newcomer")
    assert len(places) == 1
    places.rest("store")
    assert places.enter("another", STRANGER) == "store"


def test_a_stranger_does_not_become_known_by_resting() -> None:
    places: Places[str] = Places(1)
    places.enter("stranger", STRANGER)
    places.rest("stranger")
    assert places.enter("newcomer", STORE) == "stranger"


@given(st.integers(1, 12), st.lists(st.tuples(st.sampled_from("ekrl"), st.integers(0, 9), st.sampled_from("123"))))
def test_there_are_never_more_than_there_are_places(total: int, steps: list[tuple[str, int, str]]) -> None:
    places: Places[int] = Places(total)
    inside: set[int] = set()
    at_work: set[int] = set()
    for step, who, address in steps:
        if step == "e" and who not in inside:
            leaving = places.enter(who, address)
            assert leaving not in at_work
            inside = (inside | {who}) - {leaving}
        elif step == "k":
            places.know(who)
            at_work |= {who} & inside
        elif step == "r":
            places.rest(who)
            at_work.discard(who)
        elif step == "l":
            places.leave(who)
            inside.discard(who)
            at_work.discard(who)
        assert len(places) == len(inside) <= total


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
    ],
)
def test_ipv6_addresses_count_by_the_64_bits_that_a_customer_has(one: str, other: str, same: bool) -> None:
    assert (counted_as(one) == counted_as(other)) is same

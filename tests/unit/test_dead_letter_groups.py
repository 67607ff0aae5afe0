"""Fingerprints: which failures are the same trouble."""

import pytest

from publisher.dead_letters import fingerprint


@pytest.mark.parametrize(
    "other",
    [
        "invalid continuation byte near line 7",
        "invalid continuation byte near line 12345",
    ],
)
def test_failures_that_differ_in_numbers_are_one_group(other: str) -> None:
    assert fingerprint("not UTF-8", other) == fingerprint("not UTF-8", "invalid continuation byte near line 3")


def test_failures_of_another_kind_are_another_group() -> None:
    assert fingerprint("not UTF-8", "near line 3") != fingerprint("cut off", "near line 3")
    assert len(fingerprint("x", "y")) == 8

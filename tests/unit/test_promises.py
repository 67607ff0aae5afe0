"""docs/reliability.md says which tests hold each promise, as their marks do."""

import pytest

from tests import promises


def test_the_table_is_that_of_the_marks() -> None:
    assert promises.written() == promises.table(), "make promises writes it"


@pytest.mark.parametrize("promise", promises.PROMISES)
def test_every_promise_is_held_by_a_test_on_real_services(promise: str) -> None:
    assert any(held == promise and not file.startswith("tests/unit/") for held, file, _ in promises.holders())


def test_there_are_eight_promises() -> None:
    assert len(promises.PROMISES) == 8

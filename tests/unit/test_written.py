"""What stands in docs/ of the code stands there as the code has it."""

import pytest

from tests.written import PARTS, ROOT, WHOLE, Part


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_that_is_written_from_the_code_is_as_the_code_has_it(part: Part) -> None:
    assert part.written() == part.text(), "make docs writes it"


@pytest.mark.parametrize("page", WHOLE)
def test_a_page_that_is_written_as_a_whole_is_as_the_code_has_it(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == WHOLE[page](), "make docs writes it"

"""What stands in docs/ of the code stands there as the code has it."""

import pytest

from publisher.arrivals import messages
from tests import messages_page
from tests.written import PARTS, ROOT, WHOLE, Part


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_that_is_written_from_the_code_is_as_the_code_has_it(part: Part) -> None:
    assert part.written() == part.text(), "make docs writes it"


@pytest.mark.parametrize("page", WHOLE)
def test_a_page_that_is_written_as_a_whole_is_as_the_code_has_it(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == WHOLE[page](), "make docs writes it"


def test_every_header_of_a_message_is_told() -> None:
    named = {value for value in vars(messages).values() if isinstance(value, str) and value.startswith("fleettickets-")}
    assert len(named) > 10
    assert all(f"| `{name}` |" in messages_page.headers() for name in named)

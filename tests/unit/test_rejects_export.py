"""What is written for a spreadsheet is no formula there, and has its text back by the rule of docs/operations.md."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.commands.rejects import as_text

PLACES = re.compile(r"[;\t\r\n]")


def original(text: str) -> str:
    return re.sub(r"""(?:^|(?<=[;\t\r\n]))'(?=[ "']*[=+\-@\uff1d\uff0b\uff0d\uff20])""", "", text)


@given(st.text(st.sampled_from("=+-@\uff1d'\" ;\t\r\nax,|")))
def test_no_part_of_it_begins_as_a_formula_and_all_of_it_can_be_had_back(text: str) -> None:
    written = as_text(text)
    assert [part for part in PLACES.split(written) if re.match(r"""[ "]*[=+\-@\uff1d]""", part)] == []
    assert original(written) == text


@pytest.mark.parametrize("text", ["INC1,-1.2921,36.8", "a = b", "it's", "", "mail@example.org", "a-b", "'quoted'"])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert as_text(text) == text

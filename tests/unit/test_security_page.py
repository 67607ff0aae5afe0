"""docs/security.md says which test holds each of its promises: that test exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(_TEST.findall(PAGE)))
DOORS = PAGE.partition("## Who can do what, through which door")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    functions = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in functions


def test_every_line_of_what_nobody_can_do_names_its_test() -> None:
    lines = [line for line in DOORS.splitlines() if line.startswith("| ") and not line.startswith("| cannot |")]
    assert lines
    assert [line for line in lines if not _TEST.search(line)] == []

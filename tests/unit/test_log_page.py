"""docs/operations.md has every word that a line of the log begins with."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.promises import ROOT

PAGE = ROOT / "docs" / "operations.md"
LEVELS = {"debug", "info", "warning", "error", "exception", "warn"}
LOGS = {"log", "warnings", "_warnings", "get_logger()", "told"}


def events(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and is_log(node.func):
            choices = [node.args[0].body, node.args[0].orelse] if isinstance(node.args[0], ast.IfExp) else node.args[:1]
            for chosen in choices:
                if isinstance(chosen, ast.Constant) and isinstance(chosen.value, str):
                    yield chosen.value


def is_log(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "tell_done"
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    return ast.unparse(function.value).rpartition(".")[2] in LOGS


def test_every_event_is_told_of() -> None:
    files = [path for folder in ("consumer", "publisher") for path in (ROOT / folder).rglob("*.py")]
    logged = {event for path in files for event in events(path)}
    section = PAGE.read_text().partition("## The log\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    told = {word for first in rows for word in re.findall(r"`([^`]+)`", first)}
    assert len(logged) > 40
    assert logged - told == set(), "docs/operations.md says what each is"
    assert told - logged == {"event", "retry", "held", "dead letter"}, "outcomes of failures; others are gone"

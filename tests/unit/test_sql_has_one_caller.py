"""Statements that a module is made for are run by that module alone: others call its verbs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLERS = {
    "effects": "consumer/upkeep/effects.py",
    "geocoding": "consumer/geocoding/known_places.py",
    "ledger": "consumer/files/ledger.py",
    "outbox": "consumer/follow_ons/outbox.py",
    "rejects": "consumer/upkeep/rejects.py",
}
RUNNING = {"rows", "row", "Statement", "statements", "of_feed"}


def files_run(tree: ast.AST) -> Iterator[str]:
    """The files of sql/queries whose statements are run, each as often as it is named."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in RUNNING:
            for argument in node.args:
                if isinstance(argument, ast.Constant):  # the file comes first, then the statement's name
                    if argument.value in CALLERS:
                        yield argument.value
                    break


def test_each_has_one_caller() -> None:
    found = {
        (name, str(path.relative_to(ROOT)))
        for part in ("consumer", "publisher", "sql")
        for path in (ROOT / part).rglob("*.py")
        for name in files_run(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(CALLERS.items())


@pytest.mark.parametrize(
    "code",
    [
        'database.rows(connection, "ledger", "claim_files", parameters)',
        'database.row(connection, "ledger", name)',
        'connection.execute(statements("ledger")["claim_files"])',
        'of_feed("ledger", name, feed)',
        'database.Statement("ledger", name)',
    ],
)
def test_another_would_be_found(code: str) -> None:
    assert list(files_run(ast.parse(code))) == ["ledger"]


def test_a_statement_of_another_file_may_be_called_as_one() -> None:
    assert list(files_run(ast.parse('database.rows(connection, "explain", "rejects", parameters)'))) == []

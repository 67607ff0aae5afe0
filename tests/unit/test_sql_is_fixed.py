"""Every statement comes from sql/ or is a literal: nothing that is put together at run time reaches the database.

Mypy takes LiteralString for str, and ruff's S608 knows a statement only by its looks, so the code is read here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for part in ("consumer", "publisher", "sql") for path in (ROOT / part).rglob("*.py"))
SENDING = {"execute", "executemany", "copy", "stream"}
NOT_SQL = {"publisher"}
"""The publisher has no database; an import contract holds that."""

SQL = sorted(
    path
    for path in (ROOT / "sql").rglob("*.sql")
    if path.parent.name != "migrations" or int(path.stem.partition("_")[0]) > 22  # what has run stays as it ran
)

OF_DECLARATIONS = Path("consumer/postgres/feed_tables.py")
"""Tables of feeds are made of what a declaration says: as names and literals, which another test holds."""


def sent(tree: ast.AST) -> Iterator[ast.expr]:
    """The first argument of whatever could send a statement."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in SENDING
            and node.args
        ):
            yield node.args[0]


def is_fixed(statement: ast.expr) -> bool:
    """A literal, `statements(…)[…]`, the same of a feed, or a file of sql/migrations as it is read."""
    match statement:
        case ast.Constant(value=str() | bytes()):
            return True
        case ast.Subscript(value=ast.Call(func=ast.Name(id="statements"))):
            return True
        case ast.Call(func=ast.Name(id="of_feed" | "_text")):  # names of tables, quoted; either of them
            return True
        case ast.Attribute(value=ast.Name(id="migration"), attr="sql" | "probe"):
            return True
        case _:
            return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_statement_is_put_together(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] in NOT_SQL or path.relative_to(ROOT) == OF_DECLARATIONS:
        return
    found = [statement for statement in sent(ast.parse(path.read_text())) if not is_fixed(statement)]
    assert [f"line {statement.lineno}: {ast.unparse(statement)}" for statement in found] == []


@pytest.mark.parametrize(
    "code",
    [
        "c.execute(f'SELECT {x}')",
        "c.execute('a' + x)",
        "c.execute('%s' % x)",
        "c.execute('{}'.format(x))",
        "c.execute(x)",
    ],
)
def test_one_that_is_would_be_found(code: str) -> None:
    assert not any(is_fixed(statement) for statement in sent(ast.parse(code)))


CALLS_FOR_ONE = re.compile(r"\bpg_(try_)?advisory_\w+\(")
FORMER = "10_inc_history_capture.sql"
"""The batch import's own; what it locks with is replaced by a later one."""


def test_no_lock_is_an_advisory_one() -> None:
    """Those are anybody's who may connect, and whoever has one stops the ingest without a trace."""
    found = [
        path.name
        for path in sorted((ROOT / "sql").rglob("*.sql"))
        if path.name != FORMER and CALLS_FOR_ONE.search(path.read_text())
    ]
    assert found == []
    assert CALLS_FOR_ONE.search((ROOT / "sql" / "migrations" / FORMER).read_text())


@pytest.mark.parametrize("path", SQL, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_sql_is_longer_than_a_line_of_code(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"line {number}: {line}" for number, line in enumerate(lines, 1) if len(line) > 120] == []

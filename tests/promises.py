"""Which tests hold which promise, by their marks; `make promises` writes the table in docs/reliability.md.

A test is tied to promises by `@pytest.mark.promise("Exactly once", "Order-free")`. The promises are those of the page.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- promises: begin, written by make promises -->\n", "<!-- promises: end -->\n"
PROMISES = tuple(re.findall(r"^\d\. \*\*(.+)\.\*\*", PAGE.read_text(), re.MULTILINE))


def holders() -> Iterator[tuple[str, str, str]]:
    """Each promise with a file and a test that is marked with it; Raises: ValueError for one that nobody made."""
    for path in sorted(ROOT.glob("tests/*/test_*.py")):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        for function in functions:
            for promise in _marked_with(function):
                if promise not in PROMISES:
                    raise ValueError(f"{path.name}::{function.name}: nobody promises {promise!r}")
                yield promise, str(path.relative_to(ROOT)), function.name


def _marked_with(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def table() -> str:
    found: dict[str, dict[str, list[str]]] = {promise: {} for promise in PROMISES}
    for promise, file, test in holders():
        found[promise].setdefault(file, []).append(test)
    rows = [
        f"| {'' if number else promise} | `{file}` | {', '.join(f'`{test}`' for test in tests)} |\n"
        for promise, files in found.items()
        for number, (file, tests) in enumerate(files.items())
    ]
    return "".join(["| promise | shown in | by |\n", "| --- | --- | --- |\n", *rows])


def written() -> str:
    """The table that the page has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def write() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    write()

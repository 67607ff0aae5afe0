"""The part of docs/modules.md: every module by its room, with the first sentence of its docstring."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def layout() -> str:
    return "\n".join(f"### `{room}`\n\n{_table(modules)}" for room, modules in _rooms())


def _rooms() -> Iterator[tuple[str, list[Path]]]:
    for package in ("publisher", "consumer"):
        for room in sorted({module.parent for module in (ROOT / package).rglob("*.py")}):
            modules = sorted(module for module in room.glob("*.py") if not module.name.startswith("__"))
            if modules:
                yield str(room.relative_to(ROOT)), modules


def _table(modules: list[Path]) -> str:
    rows = [f"| `{module.name}` | {_told(module)} |\n" for module in modules]
    return "".join(["| module | |\n", "| --- | --- |\n", *rows])


def _told(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")

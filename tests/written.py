"""The parts of docs/ that are written from the code. `make docs` writes them; tests/unit/test_written.py holds them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import commands_table, configuration, map_picture, messages_page, metrics_table, modules_page, tables_page

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Part:
    """What stands between two marks of a page."""

    page: str
    """Below docs/."""
    name: str
    text: Callable[[], str]
    """As it is to be."""

    @property
    def path(self) -> Path:
        return ROOT / "docs" / self.page

    @property
    def _marks(self) -> tuple[str, str]:
        return f"<!-- {self.name}: begin, written by make docs -->\n", f"<!-- {self.name}: end -->\n"

    def written(self) -> str:
        """As it is."""
        begin, end = self._marks
        return self.path.read_text().partition(begin)[2].partition(end)[0].strip("\n") + "\n"

    def write(self) -> None:
        """Raises: ValueError, where the page has no place for it."""
        begin, end = self._marks
        before, found, rest = self.path.read_text().partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{self.path}: not between {begin.strip()} and {end.strip()}")
        self.path.write_text(f"{before}{begin}\n{self.text()}\n{end}{after}")


PARTS = (
    Part("architecture.md", "tables", tables_page.table),
    Part("commands.md", "commands", commands_table.tables),
    Part("configuration.md", "settings", configuration.tables),
    Part("messages.md", "headers", messages_page.headers),
    Part("messages.md", "messages", messages_page.examples),
    Part("messages.md", "topology", messages_page.exchanges_and_queues),
    Part("metrics.md", "metrics", metrics_table.tables),
    Part("modules.md", "modules", modules_page.layout),
)
WHOLE: dict[str, Callable[[], str]] = {"map.svg": map_picture.drawing}
"""Files of docs/ that are written as a whole."""


if __name__ == "__main__":
    for part in PARTS:
        part.write()
    for page, text in WHOLE.items():
        (ROOT / "docs" / page).write_text(text())

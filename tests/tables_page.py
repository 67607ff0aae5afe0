"""The part of docs/architecture.md that names the tables: of the migrations, each with what is said of it there.

That is its COMMENT, or the words above its CREATE TABLE or at the head of its migration.
tests/integration/test_tables_page.py compares it with a database.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MADE = re.compile(r"((?:^-- .*\n)*)^CREATE TABLE (?:IF NOT EXISTS )?((?:tickets|ingest)\.\w+)", re.MULTILINE)
_COMMENT = re.compile(r"^COMMENT ON TABLE ((?:tickets|ingest)\.\w+) IS\s+((?:'(?:[^']|'')*'\s*)+);", re.MULTILINE)
_OF_FEEDS = re.compile(r"\.(?:inc|crq|positions)$")
"""Each feed has its own, by its name: `migrate` makes them."""


def told() -> dict[str, str]:
    """What each table is for, by its name."""
    found: dict[str, str] = {}
    for migration in sorted((ROOT / "sql" / "migrations").glob("*.sql")):
        text = migration.read_text()
        for above, name in _MADE.findall(text):
            words = " ".join(line.removeprefix("-- ") for line in above.splitlines() if "adopted when" not in line)
            found[name] = words or text.partition("\n")[0].removeprefix("-- ")
        for name, quoted in _COMMENT.findall(text):
            found[name] = re.sub(r"'\s*'", "", quoted.strip()[1:-1]).replace("''", "'")
    return {name: words for name, words in sorted(found.items()) if not _OF_FEEDS.search(name)}


def table() -> str:
    of_feeds = {
        "tickets.<feed>": "The tickets of a feed: `raw` as the file had it, and the columns that are declared.",
        "ingest.<feed>_positions": "What last wrote each of them: epoch, file and line.",
    }
    rows = [f"| `{name}` | {words} |\n" for name, words in (of_feeds | told()).items()]
    return "".join(["| table | |\n", "| --- | --- |\n", *rows])

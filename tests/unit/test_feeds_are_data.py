"""What is known of a feed stands in its declaration: nothing else names one, its table or its prefix."""

import re
from pathlib import Path

import pytest

from consumer.feeds.declared import packaged_feeds

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"""["']({names})["']|\b(tickets|ingest)\.({names})(_positions)?\b|automations/({names})/""".replace(
    "{names}", "|".join(feed.name for feed in packaged_feeds())
))  # fmt: skip
OF_THE_BATCH_IMPORT = ROOT / "sql" / "queries" / "adoption.sql"
"""Its tables were the incidents' alone."""
PLAYED = (ROOT / "consumer" / "demo", ROOT / "sql" / "queries" / "demo.sql")
"""The demo plays certain feeds."""
READ = sorted(
    path
    for part, kind in (("consumer", "*.py"), ("publisher", "*.py"), ("sql/queries", "*.sql"))
    for path in (ROOT / part).rglob(kind)
    if path != OF_THE_BATCH_IMPORT and not any(path.is_relative_to(played) for played in PLAYED)
)
COMMENT = re.compile(r'^\s*(--|#).*$|"""[\s\S]*?"""|(?<=help=)"[^"]*"', re.MULTILINE)


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_else_names_a_feed(path: Path) -> None:
    found = [match[0] for match in NAMED.finditer(COMMENT.sub("", path.read_text()))]
    assert found == []


@pytest.mark.parametrize(
    "text", ["WHERE source = 'inc'", "FROM tickets.crq", "ingest.inc_positions", 'f"automations/inc/{name}"']
)
def test_one_that_did_would_be_found(text: str) -> None:
    assert NAMED.search(text)

"""The page for whoever writes the exporter says what the declaration says."""

import re
from pathlib import Path

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.feeds.feed import Column, Feed

PAGE = Path(__file__).parents[2] / "docs" / "change-files.md"
INC = packaged_feeds().named("inc")


def noted(name: str, column: Column, feed: Feed) -> str:
    notes = [
        "the id" if name == feed.id else "",
        f"brought to {column.case} case" if column.case else "",
        "true leaves the row out" if name == feed.drop_when else "",
        "in `raw` alone" if not column.has_typed and column.form != "any" else "",
    ]
    return "; ".join(filter(None, notes))


def table_of(feed: Feed) -> list[str]:
    always = {feed.id, *feed.always}
    in_order = sorted(feed.columns.items(), key=lambda named: (named[0] != feed.id, named[1].form == "any"))
    return [
        f"| `{name}` | {column.form} | {'yes' if name in always else ''} | {noted(name, column, feed)} |"
        for name, column in in_order
    ]


@pytest.mark.parametrize("name", ["inc", "crq"])
def test_the_table_of_columns_is_that_of_the_declaration(name: str) -> None:
    (table,) = re.findall(rf"<!-- of the declaration of {name};.*?-->\n\n(.*?)\n(?:\n|\Z)", PAGE.read_text(), re.DOTALL)
    shown = re.findall(r"^\| `\w+` \| \w+ \| (?:yes)? \| .* \|$", table, re.MULTILINE)
    of_feed = table_of(packaged_feeds().named(name))
    assert shown == of_feed, "\n".join(["the table has to be:", *of_feed])


def test_the_words_for_nothing_are_those_of_the_declaration() -> None:
    (words,) = re.findall(r"So are (.*?), in\n", PAGE.read_text(), re.DOTALL)
    assert set(re.findall(r"`([^`]+)`", words)) == set(INC.nothing) == set(packaged_feeds().named("crq").nothing)

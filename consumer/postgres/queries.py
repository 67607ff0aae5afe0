"""Named statements from the `.sql` files in `sql/queries/`: `-- name: X` begins one, the rest is SQL.

Where a statement is about one feed's tables, it says {tickets}, {positions} and {as_of}, and {columns} for what is
shown of `ticket`, a row of the first: no other names are put in.
"""

import re
from functools import cache
from importlib import resources
from typing import LiteralString

from psycopg import sql

from consumer.feeds.feed import Feed

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, LiteralString]:
    """Every statement of `sql/queries/<file>.sql` by its name."""
    text = resources.files("sql").joinpath("queries", f"{file}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


@cache
def of_feed(file: str, name: str, feed: Feed) -> bytes:
    """One statement, for the tables of a feed."""
    names = {
        "tickets": sql.Identifier(*feed.table),
        "positions": sql.Identifier(*feed.positions),
        "as_of": sql.Identifier(*feed.as_of),
        "columns": sql.SQL(", ").join(sql.Identifier("ticket", column) for column in feed.shown_columns),
    }
    return sql.SQL(statements(file)[name]).format(**names).as_bytes(None)

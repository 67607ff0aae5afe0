"""docs/architecture.md names the tables that a database has, and says of each what the database says."""

import psycopg

from tests import tables_page
from tests.conftest import Database

TABLES = """
    SELECT n.nspname || '.' || c.relname, obj_description(c.oid, 'pg_class')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('tickets', 'ingest') AND c.relkind = 'r'
"""


def test_the_tables_are_those_of_a_migrated_database(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        found: dict[str, str | None] = dict(connection.execute(TABLES).fetchall())
        feeds = [feed for (feed,) in connection.execute("SELECT feed FROM ingest.feeds")]
    assert feeds
    for feed in feeds:
        del found[f"tickets.{feed}"], found[f"ingest.{feed}_positions"]
    told = tables_page.told()
    assert set(told) == set(found)
    assert {name: told[name] for name, comment in found.items() if comment} == {
        name: comment for name, comment in found.items() if comment
    }
    assert all(told.values())

"""`migrate` ended between any two of its transactions: run again, it leaves what one run without an end leaves."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import sql

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import migrate
from consumer.postgres.database import Connection
from consumer.settings import DatabaseSettings
from tests.stage.database import fresh_database

_OWN_ROLES = re.compile(r"fleettickets_(ingest|read)_[0-9a-z_]+")
WHAT_IS_THERE = """
WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('tickets', 'ingest'))
SELECT format('%%s: %%s', nspname, acl::text) FROM ours JOIN pg_namespace USING (oid, nspname), unnest(nspacl) AS acl
UNION ALL
SELECT format('%%s %%s %%s: %%s', relkind, nspname, relname, acl)
FROM pg_class JOIN ours ON ours.oid = relnamespace LEFT JOIN unnest(relacl) AS acl ON true
UNION ALL
SELECT format('%%s.%%s.%%s %%s %%s %%s: %%s', nspname, relname, attname, format_type(atttypid, atttypmod), attnotnull,
              (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum), acl)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN ours ON ours.oid = relnamespace
LEFT JOIN unnest(attacl) AS acl ON true
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT format('%%s on %%s: %%s', conname, conrelid::regclass, pg_get_constraintdef(pg_constraint.oid))
FROM pg_constraint JOIN ours ON ours.oid = connamespace
UNION ALL
SELECT pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN ours ON ours.oid = relnamespace
UNION ALL
SELECT pg_get_triggerdef(pg_trigger.oid)
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN ours ON ours.oid = relnamespace WHERE NOT tgisinternal
UNION ALL
SELECT format('%%s: %%s', pg_get_functiondef(pg_proc.oid), acl)
FROM pg_proc JOIN ours ON ours.oid = pronamespace LEFT JOIN unnest(proacl) AS acl ON true WHERE prokind = 'f'
UNION ALL SELECT format('%%s %%s', name, how) FROM public.fleettickets_migrations
UNION ALL SELECT format('%%s %%s %%s', feed, prefix, declaration) FROM ingest.feeds
UNION ALL SELECT format('%%s %%s', feed, epoch) FROM ingest.epochs
UNION ALL SELECT format('%%s %%s', source, metadata) FROM tickets.import_meta
UNION ALL SELECT format('%%s %%s', ticket_id, raw) FROM tickets.inc
ORDER BY 1"""


class Ended(Exception):
    """In the place of the process's death: its transaction is undone, and its connection gone."""


def connect(url: str) -> Connection:
    return postgres.connect(DatabaseSettings.model_validate({"DATABASE_URL": url}), None)


def run(url: str) -> None:
    with connect(url) as connection:
        migrate.migrate(connection, lambda _name, _how: None, packaged_feeds().declared)


def there(url: str) -> list[str]:
    """Everything that a migration makes: tables, rights, functions, and what it writes itself."""
    with connect(url) as connection:
        rows = connection.execute(WHAT_IS_THERE.encode(), {}).fetchall()
    return [_OWN_ROLES.sub(r"fleettickets_\1_OWN", str(next(iter(row.values())))) for row in rows]


def ending_after(step: Callable[..., AbstractContextManager[None]], at: int) -> Any:
    """The same, but that the run ends with so many done: committed, or undone where they share a transaction."""
    steps = count()

    @contextmanager
    def ending(*arguments: Any) -> Iterator[None]:
        with step(*arguments):
            yield
        if next(steps) == at:
            raise Ended

    return ending


@pytest.fixture
def visitor(services: dict[str, str], empty_database: Any) -> Iterator[str]:
    """A login of another database on the server, from when the roles were the server's: it may do nothing here.

    Who looks at the members of those roles waits for its end.
    """
    name = f"visitor_{empty_database.url.rpartition('/')[2]}"
    with psycopg.connect(services["DATABASE_URL"], autocommit=True) as server:
        server.execute("SELECT pg_advisory_lock(hashtext('members of roles'))")
        with connect(empty_database.url) as connection:
            postgres.rows(connection, "roles", "make_roles")
        server.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE fleettickets_ingest").format(sql.Identifier(name)))
        yield name
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def nothing_is_there(_connection: Connection) -> None:
    pass


def the_batch_import_was_there(connection: Connection) -> None:
    for migration in migrate.all_migrations()[:10]:
        connection.execute(migration.sql)
    connection.execute(b"""INSERT INTO tickets.inc (ticket_id, raw) VALUES ('OLD1', '{"ticket_id": "OLD1"}')""")
    connection.execute(
        b"""INSERT INTO tickets.import_meta (source, metadata)
            VALUES ('inc', '{"source_max_key": "automations/inc/changes/2026-05-31T080000.csv"}')"""
    )


@pytest.mark.parametrize("before", [nothing_is_there, the_batch_import_was_there])
def test_ended_after_each_of_its_transactions_it_makes_the_same(
    services: dict[str, str],
    empty_database: Any,
    visitor: str,
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[Connection], None],
) -> None:
    with fresh_database(services["DATABASE_URL"]) as undisturbed:
        for url in (undisturbed, empty_database.url):
            with connect(url) as connection:
                before(connection)
        run(undisturbed)
        expected = there(undisturbed)

    step, ended = migrate._step, 0  # noqa: SLF001 - it is what ends with each transaction
    for at in count():
        monkeypatch.setattr(migrate, "_step", ending_after(step, at))
        try:
            run(empty_database.url)
        except Ended:
            ended += 1
        else:
            break
    assert ended >= 8, "it has ended in between"
    assert there(empty_database.url) == expected
    with connect(empty_database.url) as connection:
        may = connection.execute(b"SELECT has_schema_privilege(%s, 'ingest', 'USAGE') AS may", (visitor,)).fetchone()
    assert may == {"may": False}

"""A database of one test."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from consumer.demo.fresh import at


@contextmanager
def fresh_database(server: str, template: str | None = None) -> Iterator[str]:
    """A database of its own, dropped with its roles if all goes well; gives its URL."""
    name = f"ft_{uuid.uuid4().hex[:12]}"
    create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as connection:
        if template:
            create += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            if connection.info.server_version >= 150000:
                # The default there writes every page to the WAL as well, and takes twice as long.
                create += sql.SQL(" STRATEGY file_copy")
        connection.execute(create)
    yield at(server, name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for kind in ("ingest", "read"):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"fleettickets_{kind}_{name}")))

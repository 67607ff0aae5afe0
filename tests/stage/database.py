"""A database of one test."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from consumer.demo import fresh


@contextmanager
def fresh_database(server: str, template: str | None = None) -> Iterator[str]:
    """A database of its own, dropped if all goes well; gives its URL."""
    name = f"ft_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        fresh.create_database(connection, name, template)
    yield fresh.at(server, name)
    with psycopg.connect(server, autocommit=True) as connection:
        fresh.drop_database(connection, name)

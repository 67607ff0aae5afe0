"""Logins of the database server that may do no more than one role."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

PASSWORD = "s3cret-of-the-login"


Owner = psycopg.Connection[dict[str, Any]]


@dataclass
class Login:
    """A login that owns nothing and is a member of one role; `url` is what DATABASE_URL would be."""

    name: str
    url: str

    def at(self, database: str) -> str:
        """The same login at another database of the server, whose URL is given."""
        return urlsplit(self.url)._replace(path=urlsplit(database).path).geturl()


def role_of(owner: Owner, kind: str) -> str:
    """The role that has the rights in this database, which can be a copy."""
    (found,) = owner.execute(
        "SELECT rolname FROM pg_roles WHERE starts_with(rolname::text, 'fleettickets_' || %s::text)"
        " AND has_schema_privilege(oid, 'ingest', 'USAGE')",
        [kind],
    ).fetchall()
    return str(found["rolname"])


@contextmanager
def logged_in(owner: Owner, url: str, role: str) -> Iterator[Login]:
    """A new login that is a member of `role`."""
    name = f"login_{uuid.uuid4().hex[:8]}"
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(PASSWORD)))
    try:
        owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
        address = urlsplit(url)
        host = address.netloc.rpartition("@")[2]
        yield Login(name, address._replace(netloc=f"{name}:{PASSWORD}@{host}").geturl())
    finally:
        owner.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))

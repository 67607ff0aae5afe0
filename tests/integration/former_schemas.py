"""Databases as an earlier version of the program made them."""

from typing import Any

from psycopg import Connection

from consumer.postgres import database as postgres
from consumer.postgres import migrate


def make_schema(connection: Connection[dict[str, Any]], last: str) -> None:
    """Run the migrations up to and with `last`."""
    postgres.rows(connection, "migrations", "create_log")
    postgres.rows(connection, "roles", "make_roles")
    for migration in migrate.all_migrations():
        connection.execute(migration.sql)
        recorded = {"name": migration.name, "sha256": migration.sha256, "how": "run"}
        postgres.rows(connection, "migrations", "record_migration", recorded)
        if migration.name == last:
            return
    raise AssertionError(f"no migration {last}")

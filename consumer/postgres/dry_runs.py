"""A dry run is one transaction over many files, undone at its end. Others wait for it before their first row."""

from consumer.postgres import database
from consumer.postgres.database import Connection


def begin(connection: Connection) -> None:
    """Make this transaction the dry run; it ends by itself if somebody stops it in the middle.

    Raises: psycopg.Error.
    """
    database.rows(connection, "dry_runs", "begin")
    database.rows(connection, "dry_runs", "bound")


def wait_for(connection: Connection) -> None:
    """For whoever is going to hold several rows, and would meet a dry run half-way.

    Raises: psycopg.Error.
    """
    database.rows(connection, "dry_runs", "wait_for")

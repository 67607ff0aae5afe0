"""How much the database has read: a count, which is the same on any machine."""

from collections import Counter
from collections.abc import Mapping

from psycopg import Connection
from psycopg.rows import DictRow


def read_rows(connection: Connection[DictRow]) -> Counter[str]:
    """Rows of each table that were read one after the other, and entries of each index, since the beginning.

    Each session has temporary tables of its own, of the same names.
    """
    found = connection.execute(
        """SELECT name, sum(rows)::bigint AS rows
           FROM (SELECT indexrelname AS name, idx_tup_read AS rows FROM pg_stat_user_indexes
                 UNION ALL SELECT relname, seq_tup_read FROM pg_stat_user_tables) AS read
           GROUP BY name"""
    ).fetchall()
    return Counter({row["name"]: row["rows"] for row in found})


def keep_unanalyzed(connection: Connection[DictRow]) -> None:
    """Leave the planner with what it knows of empty tables, as on the first day: no autovacuum comes meanwhile."""
    found = connection.execute(
        """SELECT format('ALTER TABLE %I.%I SET (autovacuum_enabled = off)', schemaname, tablename) AS statement
           FROM pg_tables WHERE schemaname IN ('ingest', 'tickets')"""
    ).fetchall()
    for row in found:
        connection.execute(row["statement"])


def grown(first: Mapping[str, int], later: Mapping[str, int], files: int) -> dict[str, tuple[float, float]]:
    """What of the reads for so many files is more than twice of what it was, and more than ten a file."""
    return {
        name: (first.get(name, 0) / files, rows / files)
        for name, rows in later.items() if rows > 2 * first.get(name, 0) + 10 * files
    }  # fmt: skip

"""A migration takes nothing away that the version before it reads: who runs already goes on, until it is replaced."""

import re

import pytest

from consumer.postgres import migrate

CONTRACTING = re.compile(
    r"\bDROP\s+(?:TABLE|COLUMN|VIEW|MATERIALIZED\s+VIEW|FUNCTION|TYPE|SCHEMA|TRIGGER|SEQUENCE)\s+(?!pg_temp\.)"
    r"|\bRENAME\s+(?:TO|COLUMN)\b|\bSET\s+SCHEMA\b|\bSET\s+NOT\s+NULL\b|\bALTER\s+(?:COLUMN\s+)?\w+\s+(?:SET\s+DATA\s+)?TYPE\b"
    r"|\bADD\s+COLUMN\s+(?:IF\s+NOT\s+EXISTS\s+)?\w+\s+(?![^,;]*\bDEFAULT\b)(?![^,;]*\bGENERATED\b)[^,;]*\bNOT\s+NULL\b"
    r"|\bADD\s+(?:CONSTRAINT\s+\w+\s+)?CHECK\b",
    re.IGNORECASE,
)
"""What whoever wrote or read before can stumble over: gone, renamed, of another type, or wanted of every row."""

KNOWN = {
    "18_geocoding": "tables of a batch import that ours never read; a check that holds of every row that ours wrote",
    "20_versions_and_locks": "a function of no release; a list of decisions that only grew",
    "23_feeds": "positions stand under the feed's name, and a view of the former name takes what is written there",
    "25_change_files": "a sum that is zero on both sides of every row of the version before",
    "32_read_side": "a function that is made anew with the same arguments in the same transaction",
}
"""Each that takes something away all the same, and why nobody stumbles. A new one belongs here only when the version
before its own does without already: first a version that no more reads it, then, in the next, the migration."""


def statements(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql)


def test_what_takes_something_away_says_why_nobody_misses_it() -> None:
    found = {step.name for step in migrate.all_migrations() if CONTRACTING.search(statements(step.sql))}
    # The first ten are the batch import's, before there was a version of ours.
    assert {name for name in found if int(name[:2]) > 10} == set(KNOWN)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE ingest.ledger DROP COLUMN etag",
        "drop view reporting.inc_open",
        "ALTER TABLE a RENAME COLUMN b TO c",
        "ALTER TABLE a RENAME TO b",
        "ALTER TABLE a ALTER COLUMN b TYPE bigint",
        "ALTER TABLE a ALTER b SET NOT NULL",
        "ALTER TABLE a ADD COLUMN b text NOT NULL",
        "ALTER TABLE a ADD COLUMN IF NOT EXISTS b text NOT NULL, ADD COLUMN c int DEFAULT 1",
        "ALTER TABLE a ADD CONSTRAINT b CHECK (c > 0) NOT VALID",
    ],
)
def test_it_is_seen(statement: str) -> None:
    assert CONTRACTING.search(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE a ADD COLUMN b text",
        "ALTER TABLE a ADD COLUMN b integer NOT NULL DEFAULT 0",
        "CREATE TABLE a (b text NOT NULL)",
        "CREATE OR REPLACE FUNCTION a() RETURNS text",
        "DROP FUNCTION pg_temp.former_point(jsonb)",
    ],
)
def test_what_only_adds_is_let_go(statement: str) -> None:
    assert not CONTRACTING.search(statement)

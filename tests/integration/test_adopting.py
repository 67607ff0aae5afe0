"""A database of the batch import that has what ours has not: other feeds, other types, rows twice, policies."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from publisher.errors import Misconfigured
from tests.integration.conftest import CHANGES
from tests.integration.test_migrate import connect, made_by_the_batch_import, nothing


@pytest.mark.parametrize(
    ("sources", "taken"),
    [
        ({"crq": "automations/crq/changes/2026-07-01T000000.csv"}, None),
        (
            {
                "crq": "automations/crq/changes/2026-07-01T000000.csv",
                "tickets": f"{CHANGES}2026-06-25T142000.csv",
                "former": f"{CHANGES}2026-06-24T142000.csv",
            },
            f"{CHANGES}2026-06-25T142000.csv",
        ),
    ],
)
def test_no_other_feeds_watermark_becomes_incs(empty_database: Any, sources: dict[str, str], taken: str | None) -> None:
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, None)
        for source, key in sources.items():
            connection.execute(
                "INSERT INTO tickets.import_meta (source, metadata) VALUES (%s, %s)",
                (source, Jsonb({"source_max_key": key})),
            )
        told: list[str | None] = []
        connection.add_notice_handler(lambda found: told.append(found.message_primary))
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        kept = connection.execute(
            "SELECT source, metadata ->> 'source_max_key' AS key FROM tickets.import_meta"
        ).fetchall()
        watermarks = {row["source"]: row["key"] for row in kept}
        assert watermarks.get("inc") == taken
        assert watermarks["crq"] == sources["crq"]
        assert sorted(watermarks.values()) == sorted(sources.values())
        assert any("has no row inc" in str(line) for line in told) == (taken is None)
        positions = connection.execute("SELECT (position).key FROM ingest.positions").fetchall()
        assert positions == ([{"key": taken}] if taken else [])


UNDECIDED = {
    "columns too short": (
        """
        DROP VIEW tickets.inc_open_sla CASCADE;
        ALTER TABLE tickets.inc ALTER ticket_id TYPE varchar(20);
        ALTER TABLE tickets.closure_events ALTER cluster TYPE varchar(50)
        """,
        (
            r"columns that cannot hold any text .*: "
            r"(?P<sql>ALTER TABLE tickets.closure_events ALTER COLUMN cluster TYPE text; "
            r"ALTER TABLE tickets.inc ALTER COLUMN ticket_id TYPE text)$"
        ),
        "SELECT count(*) AS rows FROM tickets.inc",
    ),
    "a closure twice": (
        """
        ALTER TABLE tickets.closure_events DROP CONSTRAINT closure_events_pkey;
        INSERT INTO tickets.closure_events (ticket_id, closed_at, owner) VALUES
            ('A', '2026-06-01 09:00+03', 'x'), ('A', '2026-06-01 09:00+03', 'y'), ('B', '2026-06-01 09:00+03', 'z')
        """,
        (
            r"tickets.closure_events has 1 closures more than once, such as A at 2026-06-01 .*; "
            r"to keep the last row of each: (?P<sql>DELETE FROM .*)$"
        ),
        "SELECT count(*) - 1 AS rows FROM tickets.closure_events WHERE owner IN ('y', 'z')",
    ),
    "a source twice": (
        """
        ALTER TABLE tickets.import_meta DROP CONSTRAINT import_meta_pkey;
        INSERT INTO tickets.import_meta (source, row_count) VALUES ('inc', 1), ('inc', 2)
        """,
        r"tickets.import_meta has more than one row of source 'inc': keep the right one(?P<sql>)$",
        "DELETE FROM tickets.import_meta WHERE row_count = 1 RETURNING 1 AS rows",
    ),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_no_migration_can_decide_is_said_in_one_line_before_anything_is_changed(
    empty_database: Any, name: str
) -> None:
    condition, told, mended = UNDECIDED[name]
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, None)
        connection.execute(condition.encode())
        with pytest.raises(Misconfigured, match=told) as refused:
            migrate.migrate(connection, nothing, packaged_feeds().declared)
        assert "\n" not in str(refused.value)
        assert {step.how for step in migrate.status(connection)} == {None}
        assert connection.execute("SELECT to_regnamespace('ingest') AS made").fetchone() == {"made": None}
        if statements := (re.search(told, str(refused.value)) or {"sql": ""})["sql"]:
            connection.execute(statements.encode())
        assert connection.execute(mended.encode()).fetchone() == {"rows": 1}
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        migrate.require_migrated(connection)


def test_row_level_security_is_told_and_hides_nothing_silently(empty_database: Any) -> None:
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with connect(empty_database) as connection:
        made_by_the_batch_import(connection, 10, None)
        connection.execute("ALTER TABLE tickets.inc ENABLE ROW LEVEL SECURITY")
        told: list[str | None] = []
        connection.add_notice_handler(lambda found: told.append(found.message_primary))
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        name = urlsplit(empty_database.url).path.removeprefix("/")
        for kind in ("ingest", "read"):
            role = f"fleettickets_{kind}_{name}"
            hint = f"ALTER ROLE {role} BYPASSRLS, or ALTER TABLE tickets.inc DISABLE ROW LEVEL SECURITY"
            assert f"row-level security is on for tickets.inc, and would hide rows from {role}: {hint}" in told
        with postgres.connect(settings, Role.INGEST) as ingest:
            with pytest.raises(Misconfigured, match="row-level security hides rows"):
                migrate.require_migrated(ingest)
            with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
                ingest.execute("SELECT FROM tickets.inc")
        connection.execute(f"ALTER ROLE fleettickets_ingest_{name} BYPASSRLS".encode())
        with postgres.connect(settings, Role.INGEST) as ingest:
            migrate.require_migrated(ingest)
            assert len(ingest.execute("SELECT FROM tickets.inc").fetchall()) == 1

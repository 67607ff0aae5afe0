"""Examples and lists of docs/dashboard-api-contract.md, as a database really answers; `make contract` writes them.

All times of the example are relative to the minute in which it is asked, and are told as if that were always the same.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.stage.database import fresh_database

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dashboard-api-contract.md"
BEGIN, END = "<!-- {}: begin, written by make contract -->\n", "<!-- {}: end -->\n"
AS_OF = datetime.fromisoformat("2026-06-26T12:00:00+03:00")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+03:00")

Connection = psycopg.Connection[dict[str, Any]]
Raw = dict[str, str | timedelta | None]

PLACED: Raw = {"latitude": "-1.2674512", "longitude": "36.8109377"}
TICKETS: tuple[Raw, ...] = (
    PLACED
    | {
        "ticket_id": "INC0001", "normalized_status": "open", "raw_status": "ASSIGNED", "bucket": "fibre",
        "is_actionable": "true", "cluster": "Westlands", "region": "nairobi", "location_name": "Gate B",
        "assigned_team": "Team 7", "owner": "Jane", "created_at_service": timedelta(hours=-40),
        "first_seen_at": timedelta(hours=-39),
    },
    {"ticket_id": "INC0002", "normalized_status": "open", "first_seen_at": timedelta(hours=-50)},
    PLACED
    | {
        "ticket_id": "INC0003", "normalized_status": "closed", "raw_status": "CLOSED", "bucket": "power",
        "cluster": "Westlands", "region": "nairobi", "assigned_team": "Team 9", "sla_status": "within", "mttr": "95",
        "created_at_service": timedelta(hours=-5), "closed_at": timedelta(hours=-3),
    },
)  # fmt: skip


def parts(connection: Connection) -> dict[str, str]:
    """What the page has between its markers, each by its name. The connection's transaction is rolled back."""
    with connection.transaction(force_rollback=True):
        return {
            "dashboard": _json(
                _fill(connection), _one(connection, "SELECT reporting.fn_inc_dashboard(p_window => '24h')")
            ),
            "map": _json(_as_of(connection), _one(connection, "SELECT reporting.fn_tickets_for_map()")),
            "nearest": _json(
                _as_of(connection),
                _one(connection, "SELECT json_agg(found) FROM reporting.fn_nearest_open(-1.27, 36.81, 1) AS found"),
            ),
            "views": "".join(_views(connection)),
        }


def _fill(connection: Connection) -> datetime:
    connection.execute("SET LOCAL TimeZone = 'Africa/Nairobi'")
    as_of = _as_of(connection)
    for ticket in TICKETS:
        raw = {
            name: (as_of + value).isoformat() if isinstance(value, timedelta) else value
            for name, value in ticket.items()
        }
        connection.execute(
            "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)", [ticket["ticket_id"], Jsonb(raw)]
        )
    key = "automations/inc/changes/2026-06-26T115000.csv"
    connection.execute(
        "INSERT INTO tickets.import_meta (source, snapshot_at, imported_at, row_count, metadata)"
        " VALUES ('inc', %s, %s, %s, %s)",
        [as_of - timedelta(minutes=10), as_of - timedelta(minutes=9), len(TICKETS), Jsonb({"source_max_key": key})],
    )
    return as_of


def _as_of(connection: Connection) -> datetime:
    as_of = _one(connection, "SELECT reporting.fn_as_of(now())")
    assert isinstance(as_of, datetime)
    return as_of


def _one(connection: Connection, statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    (value,) = row.values()
    return value


def _json(as_of: datetime, value: Any) -> str:
    def moved(found: re.Match[str]) -> str:
        return (datetime.fromisoformat(found[0]) + (AS_OF - as_of)).isoformat()

    text = json.dumps(value, indent=2, ensure_ascii=False)
    return f"```json\n{_TIME.sub(moved, text)}\n```\n"


def _views(connection: Connection) -> Iterator[str]:
    yield "| view | columns | what |\n| --- | --- | --- |\n"
    rows = connection.execute("""
        SELECT relname AS name, obj_description(class.oid, 'pg_class') AS what,
               (SELECT string_agg(format('`%s`', attname), ', ' ORDER BY attnum)
                FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0) AS columns
        FROM pg_class AS class
        WHERE relnamespace = 'reporting'::regnamespace AND relkind = 'v'
        ORDER BY relname
    """)
    for row in rows:
        yield f"| `reporting.{row['name']}` | {row['columns']} | {row['what']} |\n"


def written() -> dict[str, str]:
    """The same as the page has it."""
    text = PAGE.read_text()
    names = re.findall(BEGIN.format("(.+)").removesuffix("\n"), text)
    return {name: _between(text, name).strip("\n") + "\n" for name in names}


def _between(text: str, name: str) -> str:
    return text.partition(BEGIN.format(name))[2].partition(END.format(name))[0]


def write(found: dict[str, str]) -> None:
    text = PAGE.read_text()
    for name, part in found.items():
        begin, end = BEGIN.format(name), END.format(name)
        text = text.replace(f"{begin}{_between(text, name)}{end}", f"{begin}\n{part}\n{end}")
    PAGE.write_text(text)


def main() -> None:
    with fresh_database(os.environ["DATABASE_URL"]) as url:
        migrate = [sys.executable, "-m", "consumer", "migrate"]
        subprocess.run(migrate, check=True, cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, capture_output=True)
        with psycopg.connect(url, row_factory=dict_row) as connection:
            write(parts(connection))


if __name__ == "__main__":
    main()

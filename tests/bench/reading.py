"""What a dashboard and a capture cost: beside the bare GeoJSON of the same rows, and after a past that grows."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.types.json import set_json_loads

from consumer.postgres.queries import statements
from tests.bench.figures import Figure, Found
from tests.bench.plain import HERE
from tests.conftest import ROOT
from tests.stage.database import fresh_database

TICKETS = 21_312
CALLS = 7
"""Of each kind in a round, of which the median counts."""

ALL = "SELECT reporting.fn_inc_dashboard(p_window => 'all')"
BARE = """
    SELECT json_agg(ST_AsGeoJSON(ticket.*, 'geom', 6)::json ORDER BY ticket_id)
    FROM (
        SELECT ticket_id, normalized_status, raw_status, bucket, is_actionable, cluster, region, location_name,
               assigned_team, owner, created_at_service, closed_at, mttr, sla_status, geo_source, geom
        FROM tickets.inc
    ) AS ticket
"""
GROWING = {
    "the dashboard of seven days": "SELECT reporting.fn_inc_dashboard()",
    "the map": "SELECT reporting.fn_tickets_for_map()",
    "the ten nearest": "SELECT json_agg(found) FROM reporting.fn_nearest_open(-1.3, 36.9) AS found",
    "a capture of the history": "SELECT tickets.capture_history()",
    "the look that ends in a 304": statements("api")["stamp"].replace("%(feed)s", "'inc'"),
}
_FILL = (HERE / "reading.sql").read_bytes()

Connection = psycopg.Connection[Any]


def measure(past: int, rounds: int) -> Found:
    """Databases without a past, with half of it and with all; each call has its turn at each of them."""
    with ExitStack() as stack:
        urls = _made(stack, past)
        connections = [stack.enter_context(psycopg.connect(url, autocommit=True)) for url in urls]
        for connection in connections:
            set_json_loads(_as_it_is, connection)  # what the client makes of an answer is no part of its cost
        shown: list[Mapping[str, float]] = []
        grown: list[Mapping[str, Sequence[float]]] = []
        for _ in range(rounds):
            shown.append({call: _seconds(connections[:1], call)[0] for call in (ALL, BARE)})
            grown.append({name: _seconds(connections, call) for name, call in GROWING.items()})
    return Found([_beside_bare(shown), *(_beside_young(name, past, grown) for name in GROWING)])


def _as_it_is(answer: str | bytes) -> str | bytes:
    return answer


def _made(stack: ExitStack, past: int) -> list[str]:
    """Each is a copy of the one before it, with as many older tickets more."""
    server = os.environ["DATABASE_URL"]
    urls = [stack.enter_context(fresh_database(server))]
    migrate = [sys.executable, "-m", "consumer", "migrate"]
    subprocess.run(migrate, check=True, cwd=ROOT, env={**os.environ, "DATABASE_URL": urls[0]}, capture_output=True)
    _fill(urls[0], {"prefix": "INC", "tickets": TICKETS, "open": 40, "from": 0, "to": 720})
    for prefix in ("OLD", "OLE"):
        urls.append(stack.enter_context(fresh_database(server, urlsplit(urls[-1]).path.removeprefix("/"))))
        _fill(urls[-1], {"prefix": prefix, "tickets": past // 2, "open": 0, "from": 2400, "to": 26_000})
    return urls


def _fill(url: str, tickets: Mapping[str, str | int]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, tickets)
        # As the merges would have left it.
        connection.execute(
            "INSERT INTO tickets.import_meta AS meta (source, row_count) VALUES ('inc', %(tickets)s)"
            " ON CONFLICT (source) DO UPDATE SET row_count = meta.row_count + excluded.row_count",
            tickets,
        )
        connection.execute("SELECT tickets.capture_history()")
        connection.execute("VACUUM ANALYZE")


def _seconds(connections: Sequence[Connection], call: str) -> list[float]:
    """Of one call on each, in turns."""
    took: list[list[float]] = [[] for _ in connections]
    for number in range(CALLS + 1):
        for place, connection in enumerate(connections):
            began = time.perf_counter()
            connection.execute(call.encode()).fetchall()
            if number:  # the first one plans, and warms up
                took[place].append(time.perf_counter() - began)
    return [statistics.median(each) for each in took]


def _beside_bare(rounds: Sequence[Mapping[str, float]]) -> Figure:
    return Figure(
        f"the dashboard of {TICKETS} tickets, all of them ÷ bare json_agg(ST_AsGeoJSON(…)) of the same rows",
        _ms([found[ALL] for found in rounds]),
        _ms([found[BARE] for found in rounds]),
        [found[ALL] / found[BARE] for found in rounds],
    )


def _beside_young(name: str, past: int, rounds: Sequence[Mapping[str, Sequence[float]]]) -> Figure:
    halves = [found[name][1] / found[name][0] for found in rounds]
    return Figure(
        f"{name}, with {past} older closed tickets ÷ with none",
        f"{_ms([found[name][2] for found in rounds])}; with {past // 2} {statistics.median(halves):.2f} times",
        _ms([found[name][0] for found in rounds]),
        [found[name][2] / found[name][0] for found in rounds],
    )


def _ms(seconds: Sequence[float]) -> str:
    ms = statistics.median(seconds) * 1e3
    return f"{ms:.{1 if ms >= 1 else 2}f} ms"

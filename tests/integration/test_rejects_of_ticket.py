"""The rejects of one ticket are found without a look at those of all others."""

from typing import Any

import psycopg

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from tests.integration.change_files import ChangeFile
from tests.stage.reads import read_rows


def test_those_of_others_are_not_read(database: Any, apply: Any) -> None:
    apply(ChangeFile("2026-06-25T140000", "ticket_id,owner\nINC1,x\n"))
    with psycopg.connect(database.url, autocommit=True, row_factory=psycopg.rows.dict_row) as owner:
        owner.execute(
            """INSERT INTO ingest.rejects (file_id, line, reason, raw, reason_group, lines, ticket_id)
               SELECT file_id, n, 'is odd', 'odd', 'is odd', 1, format('INC%s', n)
               FROM ingest.ledger, generate_series(100, 20000) AS n"""
        )
        owner.execute("ANALYZE ingest.rejects")
        inc = packaged_feeds().named("inc")
        owner.execute("SELECT pg_stat_force_next_flush()")
        before = read_rows(owner)
        asked = {"feed": "inc", "ticket_id": "INC777", "limit": 9}
        found = postgres.rows(owner, "explain", "ticket_rejects", asked, feed=inc)
        owner.execute("SELECT pg_stat_force_next_flush()")
        read = read_rows(owner) - before
    assert [reject["line"] for reject in found] == [777]
    assert read["rejects"] == 0
    assert read["rejects_ticket_id"] == 1

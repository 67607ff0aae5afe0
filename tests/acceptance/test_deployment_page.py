"""What docs/deployment-and-operations.md has an operator do: its queries answer, its restore brings all back."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.acceptance.conftest import MakeStage
from tests.conftest import Database
from tests.doubles.receiver import free_port
from tests.stage.comparing import closures, tickets
from tests.stage.feeds import RandomFeed, csv, key_at, ticket
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage, wait_until

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "deployment-and-operations.md").read_text()
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
OF_RIGHTS = """
    SELECT n.nspname || '.' || c.relname AS what, coalesce(c.relacl::text, 'as made') AS may FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('tickets', 'ingest', 'reporting') AND c.relkind IN ('r', 'v', 'S')
    UNION ALL
    SELECT n.nspname || '.' || p.oid::regprocedure, coalesce(p.proacl::text, 'as made') FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('tickets', 'ingest', 'reporting')
    UNION ALL
    SELECT nspname, coalesce(nspacl::text, 'as made') FROM pg_namespace
    WHERE nspname IN ('tickets', 'ingest', 'reporting')
    ORDER BY 1
"""


@pytest.fixture(scope="module")
def applied(shared_stage: Stage) -> Stage:
    """Two files, with an alarm, a cut export and a closure among them, in the tables and in the history."""
    closed = ticket("INC2", closed_at="2026-06-24 10:00:00", normalized_status="closed")
    body = csv([ticket("INC1"), closed, ticket("INC3", is_alarm="true"), ticket("EXPORT STOPPED: 3 of 9 rows written")])
    assert shared_stage.run("migrate").returncode == 0, "which makes the database's own roles"
    shared_stage.bucket.put(key_at(0), body)
    shared_stage.bucket.put(key_at(1), csv([ticket("INC1", owner="Otieno")]))
    assert shared_stage.run("drain", "--apply").returncode == 0
    assert shared_stage.run("capture-history").returncode == 0
    return shared_stage


def asked_by_a_reader(stage: Stage, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(stage.environment["DATABASE_URL"], row_factory=dict_row) as reader:
        reader.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(stage.one("SELECT ingest.role_name('read')"))))
        return reader.execute(query.encode()).fetchall()


@pytest.mark.parametrize("query", QUERIES, ids=[query.splitlines()[0].strip("- ") for query in QUERIES])
def test_a_reader_may_ask_what_the_page_asks(applied: Stage, query: str) -> None:
    found = asked_by_a_reader(applied, query)
    assert bool(found) == ("no row" not in query.splitlines()[0])


def test_the_answers_say_what_the_page_has_them_say(applied: Stage) -> None:
    def answer(begins: str) -> list[dict[str, Any]]:
        (query,) = [query for query in QUERIES if query.startswith(f"-- {begins}")]
        return asked_by_a_reader(applied, query)

    (fresh,) = [row for row in answer("How fresh") if row["source"] == "inc"]
    assert (fresh["newest"], fresh["row_count"]) == (key_at(1), 2)
    decided = [(row["feed"], row["decision"], row["state"], row["count"]) for row in answer("What was decided")]
    assert decided == [("inc", "new", "archived", 2)]
    assert answer("Who told") == [{"first_seen_by": "drain", "count": 2}]
    assert answer("Neither alarms") == [{"alarms": 0, "sentinels": 0}]
    assert sum(row["count"] for row in answer("Where the tickets' places")) == 2
    (read,) = answer("The read side answers")
    assert (read["open"], read["on_the_map"], read["freshness"]["source_max_key"]) == (1, 0, key_at(1))
    assert answer("The history grows")[0]["open"] == 1


def test_the_query_of_the_cut_over_answers(applied: Stage) -> None:
    (query,) = re.findall(r"`(SELECT [^`]+)`", (DOCS / "cut-over.md").read_text())
    assert "bucket = 'NEW'" in query
    found = asked_by_a_reader(applied, query.replace("'NEW'", f"'{applied.bucket.name}'"))
    assert [tuple(row.values()) for row in found] == [("new", "archived", 2)]


def test_an_epoch_that_was_forgotten_at_a_cut_over_is_made_up_for_by_the_lines_of_the_page(
    stage: Stage, tmp_path: Path
) -> None:
    """Two files of the new bucket, older by name than what is there, were held back; the later one of them wins."""
    (lines,) = re.findall(r"^```sh\n(aws .*?)^```", (DOCS / "cut-over.md").read_text(), re.MULTILINE | re.DOTALL)
    copied, _, lines = lines.partition("\n")
    assert "processed/" in copied
    stage.bucket.put(key_at(9), csv([ticket("INC1", owner="Otieno")]))
    assert stage.run("drain", "--apply").returncode == 0
    (tmp_path / "missed").mkdir()
    for minute, owner in ((1, "Wanjiru"), (2, "Kamau")):
        body = csv([ticket("INC1", owner=owner)])
        stage.bucket.put(key_at(minute), body)
        (tmp_path / "missed" / key_at(minute).rpartition("/")[2]).write_bytes(body)
    assert stage.run("drain", "--apply").returncode == 0
    owner = "SELECT owner FROM tickets.inc WHERE ticket_id = 'INC1'"
    assert stage.one(owner) == "Otieno"
    environment = stage.environment | {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-eu", "-c", lines], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert stage.one(owner) == "Kamau"
    assert stage.run("verify", "--without-broker").returncode == 0


def test_what_coolify_starts_migrates_and_consumes_also_twice_at_once(
    empty_database: Database, make_stage: MakeStage, tmp_path: Path
) -> None:
    (entrypoint,) = re.findall(r"--entrypoint \"(sh -c '.+ consume .+')\"", PAGE)
    with make_stage(empty_database.url) as stage:
        environment = stage.environment | {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
        logs = [tmp_path / "first", tmp_path / "second"]
        started = [begun(entrypoint, environment, log) for log in logs]
        try:
            wait_until(lambda: all('"consuming"' in log.read_text() for log in logs), "both consume")
            stage.bucket.put(key_at(0), csv([ticket("INC1")]))
            stage.announce(key_at(0))
            stage.wait_for("done", key_at(0))
            for process in started:
                process.terminate()
            assert [process.wait(90) for process in started] == [0, 0], "the signal reaches the consumer itself"
        finally:
            for process in started:
                process.kill()


@pytest.mark.promise("Nothing lost", "One transaction")
def test_a_dump_that_is_restored_on_a_new_server_is_brought_back_to_where_the_bucket_is(
    stage: Stage, tmp_path: Path
) -> None:
    files = RandomFeed(seed=17, tickets=40).files(12, rows=10)
    url = stage.environment["DATABASE_URL"]
    name = urlsplit(url).path.removeprefix("/")
    dump = tmp_path / "fleettickets.dump"
    assert stage.run("migrate").returncode == 0, "which makes the database's own roles"
    for number, file in enumerate(files):
        stage.bucket.put(file.key, file.body)
        if number == 6:
            assert stage.run("drain", "--apply").returncode == 0
            run_of_the_page("pg_dump", url, dump)
    assert stage.run("drain", "--apply").returncode == 0
    before, rights = (tickets(stage), closures(stage)), rights_of(stage, name)

    stage.connection.close()
    with psycopg.connect(urlsplit(url)._replace(path="/postgres").geturl(), autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for kind in ("ingest", "read"):  # another server has none of them
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(f"fleettickets_{kind}_{name}")))
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    run_of_the_page("pg_restore", url, dump)
    assert stage.run("migrate").returncode == 0
    stage.reconnect()
    assert rights_of(stage, name) == rights, "roles have the rights that they had, and nobody others"
    lacking = stage.run("verify", "--without-broker")
    assert (lacking.returncode, "unrecorded: 5" in lacking.stdout) == (1, True), lacking.stdout
    assert stage.run("drain", "--from-archive", "--apply").returncode == 0
    assert (tickets(stage), closures(stage)) == before
    assert stage.run("verify", "--without-broker").returncode == 0
    assert stage.run("drain", "--from-archive", "--apply").returncode == 0, "a second time there is nothing to do"
    assert (tickets(stage), closures(stage)) == before


def begun(entrypoint: str, environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    words = shlex.split(entrypoint.replace("9100", str(free_port())))
    with log.open("wb") as out:
        return subprocess.Popen(words, env=environment, cwd=log.parent, stdout=subprocess.DEVNULL, stderr=out)


def rights_of(stage: Stage, name: str) -> dict[str, set[str]]:
    """Of each thing, who may what: not those of the original of a copy, which a restore lacks."""
    found = {row["what"]: row["may"].strip("{}").split(",") for row in stage.query(OF_RIGHTS)}
    return {
        what: {one.partition("/")[0] for one in may if name in one or "fleettickets_" not in one}
        for what, may in found.items()
    }


def run_of_the_page(program: str, url: str, dump: Path) -> None:
    """As the page has it, on this database and this file."""
    (line,) = set(re.findall(rf"^ *({program} [^|#\n]*\{{OWNER[^|#\n]*)$", PAGE, re.MULTILINE))
    line = line.replace('"${OWNER:?}"', url).replace("fleettickets.dump", str(dump))
    ended = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

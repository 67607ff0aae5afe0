"""Beats of processes: whose they are, how they age, and that nothing ever waits for one."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from consumer.postgres import database as postgres
from consumer.postgres import heartbeats
from consumer.postgres.database import Role
from consumer.postgres.heartbeats import Beater
from consumer.settings import DatabaseSettings
from publisher.errors import LockTimeout
from publisher.heartbeat import PausedBy, ProcessKind, Pulse
from tests.conftest import Database
from tests.stage.logins import logged_in, role_of
from tests.stage.stage import wait_until

Query = Callable[..., list[dict[str, Any]]]
TOLD = {
    "kind": "poller", "host": "a host", "pid": 7, "version": "0", "feeds": ["inc"], "queues": [], "started_seconds": 60,
    "in_hand": None, "in_hand_seconds": None, "paused_by": None, "paused_why": None, "paused_seconds": None,
    "settled_seconds": 5,
}  # fmt: skip
BEAT = "SELECT ingest.beat(%s, %s)"


def settings(url: str) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"DATABASE_URL": url})


@pytest.fixture
def owner(database: Database) -> Iterator[postgres.Connection]:
    with postgres.connect(settings(database.url), None) as connection:
        yield connection


@contextmanager
def member(owner: postgres.Connection, url: str, kind: str) -> Iterator[psycopg.Connection[Any]]:
    with (
        logged_in(owner, url, role_of(owner, kind)) as login,
        psycopg.connect(login.url, autocommit=True) as connection,
    ):
        yield connection


def seen(owner: postgres.Connection) -> list[dict[str, Any]]:
    return postgres.rows(owner, "heartbeats", "seen")


def beat(connection: psycopg.Connection[Any], process: str = "", **told: Any) -> None:
    connection.execute(BEAT, [process or uuid.uuid4().hex, Jsonb(TOLD | told)])


def test_a_process_beats_what_its_pulse_is_and_its_row_ends_with_it(
    database: Database, owner: postgres.Connection
) -> None:
    pulse = Pulse()
    pulse.took(1, lambda: "a \x00key")
    pulse.held_up(PausedBy.AWAY, "bucket is not available")
    with heartbeats.beating(settings(database.url), 0.1, Beater(ProcessKind.CONSUMER, pulse, ["inc"], ["files"])):
        wait_until(lambda: seen(owner), "the first beat")
        (first,) = seen(owner)
        assert (first["kind"], first["feeds"], first["queues"]) == ("consumer", ["inc"], ["files"])
        assert first["in_hand"] == "a \\x00key"
        assert (first["paused_by"], first["paused_why"]) == ("away", "bucket is not available")
        assert first["settled_seconds"] is None
        pulse.let_go(1)
        pulse.settled()
        wait_until(lambda: seen(owner)[0]["in_hand"] is None, "the next beat")
        (then,) = seen(owner)
        assert then["paused_by"] is None
        assert then["settled_seconds"] is not None
        assert then["started_at"] == first["started_at"]
    assert seen(owner) == []


def test_no_beat_waits_for_a_lock_or_is_in_the_way_of_an_end(database: Database, owner: postgres.Connection) -> None:
    with owner.transaction():
        owner.execute("LOCK TABLE ingest.heartbeats IN ACCESS EXCLUSIVE MODE")
        with heartbeats.beating(settings(database.url), 0.1, Beater(ProcessKind.POLLER, Pulse(), [], [])):
            pass
    wait_until(lambda: seen(owner) == [], "what the lock held up came and went")


def test_no_beat_has_the_row_of_another_process(database: Database, owner: postgres.Connection) -> None:
    with member(owner, database.url, "read") as one, psycopg.connect(one.info.dsn) as other:
        beat(one, "one")
        beat(one, "other")
        with one.transaction():
            beat(one, "one")
            other.execute("SET lock_timeout = '2s'")
            beat(other, "other")
            other.commit()


def test_a_database_that_is_away_is_beaten_into_once_it_is_there(
    database: Database, owner: postgres.Connection
) -> None:
    owner.execute("ALTER FUNCTION ingest.beat(text, jsonb) RENAME TO beat_away")
    with heartbeats.beating(settings(database.url), 0.1, Beater(ProcessKind.POLLER, Pulse(), [], [])):
        assert seen(owner) == []
        owner.execute("ALTER FUNCTION ingest.beat_away(text, jsonb) RENAME TO beat")
        wait_until(lambda: seen(owner), "the first beat")


@pytest.mark.parametrize("kind", ["ingest", "read"])
def test_both_roles_beat_and_write_nothing_else_there(
    database: Database, owner: postgres.Connection, kind: str
) -> None:
    with member(owner, database.url, kind) as login:
        beat(login, "mine")
        login.execute("SELECT * FROM ingest.heartbeats")
        for forbidden in (
            "INSERT INTO ingest.heartbeats SELECT * FROM ingest.heartbeats",
            "UPDATE ingest.heartbeats SET beat_at = now()",
            "DELETE FROM ingest.heartbeats",
            "TRUNCATE ingest.heartbeats",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                login.execute(forbidden.encode())
        login.execute("SELECT ingest.end_beats('mine')")
    assert seen(owner) == []


def test_a_stranger_may_not_beat(database: Database, owner: postgres.Connection) -> None:
    with member(owner, database.url, "read") as login:
        owner.execute(f"REVOKE {role_of(owner, 'read')} FROM {login.info.user}".encode())
        with pytest.raises(errors.InsufficientPrivilege):
            beat(login)
        with pytest.raises(errors.InsufficientPrivilege):
            login.execute("SELECT ingest.end_beats('x')")


def test_who_only_reads_is_no_consumer_and_moves_nobody_elses_row(
    database: Database, owner: postgres.Connection
) -> None:
    with member(owner, database.url, "ingest") as ingest, member(owner, database.url, "read") as reader:
        beat(ingest, "consumer", kind="consumer", in_hand="KEY", in_hand_seconds=95)
        with pytest.raises(errors.InsufficientPrivilege, match="may not apply files"):
            beat(reader, "consumer", kind="consumer")
        with reader.transaction(), pytest.raises(errors.InsufficientPrivilege, match="is not one of"):
            beat(reader, "consumer", kind="poller")
        reader.execute("SELECT ingest.end_beats('consumer')")
        (row,) = seen(owner)
        assert (row["kind"], row["in_hand"]) == ("consumer", "KEY")
        assert row["in_hand_seconds"] >= 95


def test_the_dead_go_after_a_day_by_the_beat_of_whoever_lives(database: Database, owner: postgres.Connection) -> None:
    with member(owner, database.url, "ingest") as ingest, member(owner, database.url, "read") as reader:
        for name in ("dead", "dying"):
            beat(ingest, name, host=name)
        owner.execute("UPDATE ingest.heartbeats SET beat_at = now() - interval '25 hours' WHERE process_id = 'dead'")
        owner.execute("UPDATE ingest.heartbeats SET beat_at = now() - interval '23 hours' WHERE process_id = 'dying'")
        with owner.transaction():
            owner.execute("SELECT FROM ingest.heartbeats WHERE process_id = 'dead' FOR UPDATE")
            beat(reader, "living", host="living")  # waits for nobody
        assert {row["host"] for row in seen(owner)} == {"dead", "dying", "living"}
        beat(reader, "living", host="living")
        assert {row["host"] for row in seen(owner)} == {"dying", "living"}
        beat(ingest, "dead", host="dead")  # it stood still for a day, and goes on
        assert {row["host"] for row in seen(owner)} == {"dead", "dying", "living"}


def test_a_login_fills_no_disk(database: Database, owner: postgres.Connection) -> None:
    with member(owner, database.url, "ingest") as ingest, member(owner, database.url, "read") as reader:
        beat(ingest, host="the consumer's")
        for number in range(250):
            beat(reader, in_hand="x" * 10_000, host=str(number))
        rows = seen(owner)
        assert len(rows) == 201
        assert {"249", "50", "the consumer's"} <= {row["host"] for row in rows}
        assert max(len(row["in_hand"] or "") for row in rows) == 2000


def test_the_functions_mean_the_same_whatever_search_path_a_session_has(
    database: Database, owner: postgres.Connection
) -> None:
    with member(owner, database.url, "read") as reader:
        reader.execute("SET search_path = pg_temp, public")
        beat(reader, "mine")
    assert len(seen(owner)) == 1
    secured = owner.execute(
        "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'ingest'::regnamespace ORDER BY 1"
    ).fetchall()
    ours = {"beat", "end_beats", "note_closure", "watch_alerts", "note_alerts", "alert_told"}
    assert {row["proname"] for row in secured} == ours
    assert all(row["proconfig"] == ["search_path=pg_catalog, pg_temp"] for row in secured)


def test_a_brief_connection_ends_what_takes_long_and_names_who_has_the_lock(
    database: Database, owner: postgres.Connection
) -> None:
    with (
        postgres.connect(settings(database.url), Role.READ, purpose="status", patience=1) as brief,
        owner.transaction(),
    ):
        with pytest.raises(errors.QueryCanceled):
            brief.execute("SELECT pg_sleep(30)")
        owner.execute("LOCK TABLE tickets.inc IN ACCESS EXCLUSIVE MODE")
        with (
            pytest.raises(LockTimeout, match=f"pid {owner.info.backend_pid}"),
            postgres.naming_holders(brief),
        ):
            brief.execute("SELECT count(*) FROM tickets.inc")


def test_who_waits_for_the_lock_himself_is_not_its_holder(database: Database, owner: postgres.Connection) -> None:
    with (
        postgres.connect(settings(database.url), Role.READ, purpose="status", patience=1) as brief,
        postgres.connect(settings(database.url), None, purpose="consumer") as other,
        ThreadPoolExecutor(1) as threads,
    ):
        with other.transaction(), owner.transaction(force_rollback=True):
            owner.execute("LOCK TABLE tickets.inc IN ACCESS EXCLUSIVE MODE")
            other.execute("LOCK TABLE tickets.crq IN SHARE ROW EXCLUSIVE MODE")
            waits = threads.submit(other.execute, "LOCK TABLE tickets.inc IN SHARE ROW EXCLUSIVE MODE")
            waiting = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
            pid = other.info.backend_pid
            wait_until(lambda: owner.execute(waiting, [pid]).fetchone() is not None, "the other one waits")
            with pytest.raises(LockTimeout) as told, postgres.naming_holders(brief):
                brief.execute("SELECT count(*) FROM tickets.inc")
        waits.result()
    assert f"pid {owner.info.backend_pid}" in str(told.value)
    assert f"pid {pid}" not in str(told.value)
    assert "SELECT" not in str(told.value)
    assert "not available" not in str(told.value)

"""What is to be told is on record by one watcher, each cause once, from when it is due until its end was told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from consumer.postgres import database as postgres
from consumer.settings import DatabaseSettings
from tests.conftest import Database
from tests.stage.logins import logged_in, role_of

BUCKET = "isptickets"


@pytest.fixture
def owner(database: Database) -> Iterator[postgres.Connection]:
    with postgres.connect(DatabaseSettings.model_validate({"DATABASE_URL": database.url}), None) as connection:
        yield connection


@contextmanager
def member(owner: postgres.Connection, url: str, kind: str) -> Iterator[psycopg.Connection[Any]]:
    with (
        logged_in(owner, url, role_of(owner, kind)) as login,
        psycopg.connect(login.url, autocommit=True, row_factory=dict_row) as connection,
    ):
        yield connection


def watch(connection: psycopg.Connection[Any], who: str, seconds: float = 60) -> bool:
    asked = {"bucket": BUCKET, "who": who, "seconds": seconds}
    return bool((postgres.row(connection, "alerts", "watch", asked) or {})["is_mine"])


def cause(name: str, line: str = "line", after: float = 0) -> dict[str, object]:
    return {"cause": name, "line": line, "advice": "advice", "began_at": None, "after_seconds": after}


def note(
    connection: psycopg.Connection[Any], *seen: dict[str, object], gone: tuple[str, ...] = (), over: float = 0,
    who: str = "me",
) -> bool:  # fmt: skip
    asked = {
        "bucket": BUCKET, "who": who, "seen": Jsonb(list(seen)), "gone": list(gone), "now_line": "FLOWING",
        "over_seconds": over,
    }  # fmt: skip
    return bool((postgres.row(connection, "alerts", "note", asked) or {})["is_noted"])


def due(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    return postgres.rows(connection, "alerts", "to_tell", {"bucket": BUCKET})


def told(connection: psycopg.Connection[Any], *, is_over: bool = False) -> None:
    for row in due(connection):
        postgres.rows(connection, "alerts", "told", {"alert_id": row["alert_id"], "is_over": is_over})


@pytest.mark.parametrize("kind", ["ingest", "read"])
def test_both_roles_watch_note_and_tell_and_write_nothing_else(
    database: Database, owner: postgres.Connection, kind: str
) -> None:
    with member(owner, database.url, kind) as login:
        assert watch(login, "me")
        assert note(login, cause("verdict STUCK"))
        assert [row["cause"] for row in due(login)] == ["verdict STUCK"]
        told(login)
        assert due(login) == []
        for forbidden in ("UPDATE ingest.alerts SET line = ''", "DELETE FROM ingest.alerts", "TRUNCATE ingest.alerts",
                          "INSERT INTO ingest.leases (name) VALUES ('x')"):  # fmt: skip
            with pytest.raises(errors.InsufficientPrivilege):
                login.execute(forbidden.encode())


def test_a_stranger_does_not(database: Database, owner: postgres.Connection) -> None:
    with member(owner, database.url, "read") as login:
        owner.execute(f"REVOKE {role_of(owner, 'read')} FROM {login.info.user}".encode())
        for asked in (lambda: watch(login, "me"), lambda: note(login), lambda: told(login)):
            with pytest.raises(errors.InsufficientPrivilege):
                asked()


def test_one_watches_until_its_time_is_over_or_it_gives_it_back(owner: postgres.Connection) -> None:
    assert watch(owner, "me")
    assert watch(owner, "me")
    assert not watch(owner, "another")
    assert not note(owner, cause("verdict STUCK"), who="another")
    assert due(owner) == []
    watch(owner, "me", 0)
    assert watch(owner, "another")
    assert not watch(owner, "me")
    owner.execute("UPDATE ingest.leases SET until = now() - interval '1 second'")
    assert not note(owner, cause("verdict STUCK"), who="another")
    assert watch(owner, "me")


def test_a_cause_is_due_once_it_was_so_for_long_enough_and_its_text_stays(owner: postgres.Connection) -> None:
    watch(owner, "me")
    note(owner, cause("verdict STUCK", "for 60 s", after=30))
    assert due(owner) == []
    owner.execute("UPDATE ingest.alerts SET noticed_at = noticed_at - interval '31 seconds'")
    note(owner)  # it was not looked at
    assert due(owner) == []
    note(owner, cause("verdict STUCK", "for 90 s", after=30))
    note(owner, cause("verdict STUCK", "for 120 s", after=30))
    assert [row["line"] for row in due(owner)] == ["for 90 s"]


def test_what_was_never_due_leaves_nothing(owner: postgres.Connection) -> None:
    watch(owner, "me")
    note(owner, cause("verdict STUCK", after=30))
    note(owner, gone=("verdict STUCK",))
    assert owner.execute("SELECT count(*) AS n FROM ingest.alerts").fetchone() == {"n": 0}


def test_one_that_comes_back_before_it_is_over_is_the_same(owner: postgres.Connection) -> None:
    watch(owner, "me")
    for _ in range(3):
        note(owner, cause("quota"))
        note(owner, gone=("quota",), over=300)
    told(owner)
    assert due(owner) == []
    owner.execute("UPDATE ingest.alerts SET gone_at = gone_at - interval '301 seconds'")
    note(owner, gone=("quota",), over=300)
    (row,) = due(owner)
    assert (row["is_told"], row["over_line"]) == (True, "FLOWING")
    told(owner, is_over=True)
    note(owner, cause("quota"))
    (again,) = due(owner)
    assert again["alert_id"] != row["alert_id"]


def test_what_is_over_before_it_was_told_is_told_both(owner: postgres.Connection) -> None:
    watch(owner, "me")
    note(owner, cause("quota"))
    note(owner, gone=("quota",))
    (row,) = due(owner)
    assert (row["is_told"], row["over_at"] is not None) == (False, True)


def test_two_buckets_have_nothing_to_do_with_each_other(owner: postgres.Connection) -> None:
    watch(owner, "me")
    note(owner, cause("quota"))
    assert postgres.rows(owner, "alerts", "to_tell", {"bucket": "another"}) == []
    asked = {"bucket": "another", "who": "its own", "seconds": 60}
    assert (postgres.row(owner, "alerts", "watch", asked) or {})["is_mine"]


def test_a_login_fills_no_disk(database: Database, owner: postgres.Connection) -> None:
    with member(owner, database.url, "read") as login:
        watch(login, "me")
        for number in range(8):
            note(login, *[cause(f"{number} {each}", "x" * 10_000) for each in range(300)])
        (found,) = owner.execute("SELECT count(*) AS n, max(length(line)) AS longest FROM ingest.alerts").fetchall()
        assert found["n"] <= 1200
        assert found["longest"] == 2000
        owner.execute("INSERT INTO ingest.leases (name) SELECT 'alerts ' || n FROM generate_series(1, 200) AS n")
        with pytest.raises(errors.ConfigurationLimitExceeded):
            postgres.row(login, "alerts", "watch", {"bucket": "another", "who": "me", "seconds": 60})

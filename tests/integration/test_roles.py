"""Roles belong to one database each, whatever its name; and who came by the former ones is not locked out."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import errors, sql

from consumer.feeds.declared import packaged_feeds
from consumer.postgres import database as postgres
from consumer.postgres import migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from tests.integration.test_migrate import connect, nothing

Members = Callable[[str], psycopg.Connection[Any]]


def at_version(connection: postgres.Connection, end: str) -> None:
    """Have what was there before the migration that begins with `end`."""
    postgres.rows(connection, "migrations", "create_log")
    for migration in migrate.all_migrations():
        if migration.name < end:
            connection.execute(migration.sql)
            parameters = {"name": migration.name, "sha256": migration.sha256, "how": "run"}
            postgres.rows(connection, "migrations", "record_migration", parameters)


@pytest.fixture
def members(services: dict[str, str], empty_database: Any) -> Iterator[Members]:
    """Make a login that is a member of a role, and connect as it; one test at a time, since some are everybody's."""
    with psycopg.connect(services["DATABASE_URL"], autocommit=True) as server, ExitStack() as open_ones:
        server.execute("SELECT pg_advisory_lock(hashtext('members of roles'))")
        made: list[sql.Identifier] = []

        def member(role: str) -> psycopg.Connection[Any]:
            name = f"login_{uuid.uuid4().hex[:8]}"
            made.append(sql.Identifier(name))
            server.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(made[-1], sql.Identifier(role)))
            address = urlsplit(empty_database.url)
            url = address._replace(netloc=f"{name}@{address.hostname}:{address.port}").geturl()
            return open_ones.enter_context(psycopg.connect(url, autocommit=True))

        yield member
        open_ones.close()
        for name in made:
            server.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_login_of_the_former_roles_goes_on_until_it_has_the_new_one(empty_database: Any, members: Members) -> None:
    counts = "UPDATE ingest.ledger SET duplicates = duplicates + 1"
    own = f"fleettickets_ingest_{urlsplit(empty_database.url).path.removeprefix('/')}"
    with connect(empty_database) as connection:
        at_version(connection, "20")
        running = members("fleettickets_ingest")
        running.execute(counts.encode())
        told: list[str] = []
        connection.add_notice_handler(lambda found: told.append(str(found.message_primary)))
        assert migrate.migrate(connection, nothing, packaged_feeds().declared) > 0
        running.execute(counts.encode())
        with pytest.raises(errors.InsufficientPrivilege):
            running.execute("UPDATE ingest.ledger SET key = ''")
        login = running.info.user
        (note,) = [line for line in told if "may still do here" in line]
        assert note.endswith(f"GRANT {own} TO {login}; REVOKE fleettickets_ingest FROM {login}; then migrate again")
        connection.execute(f"GRANT {own} TO {login}; REVOKE fleettickets_ingest FROM {login}".encode())
        told.clear()
        assert migrate.migrate(connection, nothing, packaged_feeds().declared) == 0
        assert [line for line in told if "may still do here" in line] == []
        running.execute(counts.encode())
        with pytest.raises(errors.InsufficientPrivilege):
            members("fleettickets_ingest").execute(counts.encode())


def test_a_session_of_before_goes_on_as_it_was_until_its_end(empty_database: Any, members: Members) -> None:
    """Of a login that need not be a member of anything, such as the owner's."""
    counts = "UPDATE ingest.ledger SET duplicates = duplicates + 1"
    settings = DatabaseSettings.model_validate({"DATABASE_URL": empty_database.url})
    with connect(empty_database) as connection:
        at_version(connection, "20")
        with postgres.connect(settings, Role.INGEST) as running:
            assert running.execute("SELECT current_user AS name").fetchone() == {"name": "fleettickets_ingest"}
            told: list[str] = []
            connection.add_notice_handler(lambda found: told.append(str(found.message_primary)))
            for _ in range(2):
                migrate.migrate(connection, nothing, packaged_feeds().declared)
                running.execute(counts.encode())
            assert any("restart what has been running since before; then migrate again" in line for line in told)
        told.clear()
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        assert [line for line in told if "may still do here" in line] == []
        with pytest.raises(errors.InsufficientPrivilege):
            members("fleettickets_ingest").execute(counts.encode())


def test_a_database_made_anew_is_closed_to_the_roles_of_the_whole_server(empty_database: Any, members: Members) -> None:
    with connect(empty_database) as connection:
        postgres.rows(connection, "roles", "make_roles")
        of_another = members("fleettickets_ingest")
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        with pytest.raises(errors.InsufficientPrivilege):
            of_another.execute("SELECT FROM ingest.ledger")


@pytest.mark.parametrize("name", ["with space", 'quote"d', "ä" * 30, "x" * 63])
def test_roles_of_a_database_of_any_name(services: dict[str, str], name: str) -> None:
    server = services["DATABASE_URL"]
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = urlsplit(server)._replace(path=f"/{quote(name)}").geturl()
            settings = DatabaseSettings.model_validate({"DATABASE_URL": url})
            with postgres.connect(settings, None) as connection:
                migrate.migrate(connection, nothing, packaged_feeds().declared)
                roles = [
                    (connection.execute("SELECT ingest.role_name(%s) AS name", [kind]).fetchone() or {})["name"]
                    for kind in ("ingest", "read")
                ]
            with postgres.connect(settings, Role.READ) as connection:
                assert connection.execute("SELECT current_user AS name").fetchone() == {"name": roles[1]}
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for role in roles:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_who_only_reads_cannot_hold_up_a_migration(empty_database: Any, members: Members) -> None:
    with connect(empty_database) as connection:
        migrate.migrate(connection, nothing, packaged_feeds().declared)
        name = urlsplit(empty_database.url).path.removeprefix("/")
        reader = members(f"fleettickets_read_{name}")
        reader.execute("SELECT pg_advisory_lock(hashtext('fleettickets.migrations'))")
        with reader.transaction():
            reader.execute("SELECT FROM public.fleettickets_migrations")
            reader.execute("LOCK TABLE public.fleettickets_migrations IN ACCESS SHARE MODE")
            for mode in ("ROW SHARE", "SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"):
                with pytest.raises(errors.InsufficientPrivilege), reader.transaction():
                    reader.execute(f"LOCK TABLE public.fleettickets_migrations IN {mode} MODE".encode())
            connection.execute("SET statement_timeout = '30s'")
            assert migrate.migrate(connection, nothing, packaged_feeds().declared) == 0

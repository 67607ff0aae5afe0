"""What each login may do: the commands with no more than their role, a reader with nothing but reading."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.rows import dict_row

from tests.conftest import Database
from tests.doubles.geocoder import KEY, LocationIQ
from tests.stage.database import fresh_database
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.logins import PASSWORD, Login, logged_in, role_of
from tests.stage.stage import Stage, wait_until


@pytest.fixture
def login(shared_stage: Stage, request: pytest.FixtureRequest) -> Iterator[Login]:
    owner = shared_stage.connection
    with logged_in(owner, shared_stage.database, role_of(owner, request.param)) as made:
        yield made


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    with LocationIQ({"Westlands, nairobi": (-1.2676, 36.8108)}) as server:
        yield server


@pytest.mark.parametrize("login", ["ingest"], indirect=True)
def test_every_command_but_migrate_needs_the_ingest_role_alone(
    shared_stage: Stage, login: Login, provider: LocationIQ
) -> None:
    stage, arrived, drained, broken = shared_stage, key_at(0), key_at(10), key_at(20)
    as_login = {"DATABASE_URL": login.url}
    as_login |= {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url}
    consumer = stage.start("consume", **as_login)
    body = csv([ticket("INC1", raw_status="Closed", closed_at="2026-06-01 09:00"), ticket("INC2", mttr="soon")])
    stage.bucket.put_all({arrived: body, broken: b"ticket_id,M\xfc\nINC1,x\n", f"{arrived}.txt": b"?"})
    stage.announce(arrived, broken, f"{arrived}.txt")
    stage.wait_for("done", arrived, f"{arrived}.txt")
    stage.wait_for("failed", broken)
    stage.wait_for_history()
    wait_until(lambda: stage.one("SELECT count(*) FROM tickets.geo_clusters") == 1, "the cluster is known")
    consumer.stop()
    stage.bucket.put(drained, csv([ticket("INC3")]))
    local = stage.folder / "2026-06-25T142000.csv"
    local.write_bytes(csv([ticket("INC4")]))
    for arguments in (
        ("drain", "--apply"),
        ("preview", "--feed", "inc", str(local)),
        ("import-csv", "--feed", "inc", str(local), "--apply"),
        ("capture-history",),
        ("geocode", "clusters", "--apply"),
        ("geocode", "set", "--cluster", "Westlands", "--", "-1.26", "36.8"),
        ("geocode", "alias", "QOA", "Quarry Road, Nairobi"),
        ("dead-letters", "discard", "--all", "--reason", "a test"),
        ("reseed", "--yes"),
        ("status",),
    ):
        ended = stage.run(*arguments, **as_login)
        # The drain meets the broken file, and says so.
        assert ended.returncode == (1 if arguments[0] == "drain" else 0), (arguments, ended.stderr)
        assert "permission" not in ended.stdout + ended.stderr
    assert stage.one("SELECT count(*) FROM tickets.inc") == 3
    refused = stage.run("migrate", **as_login)
    assert refused.returncode in {0, 1}
    assert len(refused.stderr.splitlines()) <= 1


FORBIDDEN_TO_BOTH = (
    "DELETE FROM tickets.inc",
    "TRUNCATE tickets.inc",
    "DROP TABLE tickets.inc",
    "ALTER TABLE tickets.inc ADD COLUMN more text",
    "CREATE TABLE tickets.more (id int)",
    "DELETE FROM ingest.ledger",
    "UPDATE ingest.rejects SET reason = ''",
    "UPDATE ingest.discards SET reason = ''",
    "DELETE FROM ingest.epochs",
    "UPDATE ingest.epochs SET epoch = 9",
    "UPDATE ingest.ledger SET key = 'another'",
    "UPDATE ingest.ledger SET bucket = 'another'",
    "UPDATE ingest.ledger SET etag = 'another'",
    "UPDATE ingest.ledger SET first_seen_at = now()",
    "UPDATE ingest.positions SET ticket_id = 'another'",
    "UPDATE ingest.outbox SET kind = 'history'",
    "INSERT INTO public.fleettickets_migrations VALUES ('x', 'y', 'run')",
    "SELECT * FROM pg_authid",
)
FORBIDDEN_TO_READERS = (
    "INSERT INTO tickets.inc (ticket_id, raw) VALUES ('X', '{}')",
    "UPDATE tickets.inc SET raw = raw",
    "INSERT INTO ingest.epochs (epoch, reason) VALUES (9, 'x')",
    "UPDATE ingest.ledger SET state = 'done'",
    "SELECT tickets.capture_history()",
    "UPDATE tickets.geo_clusters SET is_manual = true",
    "INSERT INTO tickets.cluster_aliases VALUES ('X', 'Y')",
    "DELETE FROM ingest.geocoder_requests",
)


@pytest.mark.parametrize(
    ("login", "forbidden"),
    [
        ("ingest", FORBIDDEN_TO_BOTH),
        ("read", FORBIDDEN_TO_BOTH + FORBIDDEN_TO_READERS),
    ],
    indirect=["login"],
)
def test_what_a_role_is_not_for_it_cannot_do(login: Login, forbidden: tuple[str, ...]) -> None:
    with psycopg.connect(login.url, autocommit=True) as connection:
        for statement in forbidden:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())
        for relation in ("tickets.inc", "tickets.inc_open_sla", "ingest.ledger", "ingest.rejects"):
            connection.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.Identifier(*relation.split("."))))
        connection.execute("SELECT reporting.fn_tickets_for_map()")


def test_a_consumer_gives_up_what_its_login_may_do_beyond_the_role(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(100)
    for statement in (
        "CREATE TABLE public.acted (role name)",
        "GRANT INSERT ON public.acted TO PUBLIC",
        """CREATE FUNCTION public.note_role() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN INSERT INTO public.acted VALUES (current_user); RETURN NULL; END $$""",
        "CREATE TRIGGER note_role AFTER INSERT OR UPDATE ON ingest.ledger EXECUTE FUNCTION public.note_role()",
    ):
        stage.connection.execute(statement.encode())
    consumer = stage.start("consume")  # whose login is a superuser
    stage.bucket.put(key, csv([ticket("INC9")]))
    stage.announce(key)
    stage.wait_for("done", key)
    consumer.stop()
    stage.connection.execute("DROP TRIGGER note_role ON ingest.ledger")
    assert stage.query("SELECT DISTINCT role FROM public.acted") == [{"role": role_of(stage.connection, "ingest")}]


@pytest.mark.parametrize("login", ["read"], indirect=True)
def test_status_needs_the_read_role_alone_and_a_reader_cannot_consume(shared_stage: Stage, login: Login) -> None:
    as_login = {"DATABASE_URL": login.url}
    ended = shared_stage.run("status", "--json", **as_login)
    assert ended.returncode == 0, ended.stderr
    imported = shared_stage.run("import-csv", "--feed", "inc", "/dev/null", "--apply", **as_login)
    assert imported.returncode != 0
    assert PASSWORD not in imported.stderr + imported.stdout
    assert "Traceback" not in imported.stderr


@contextmanager
def migrated(stage: Stage) -> Iterator[str]:
    """A database of another purpose on the same server."""
    with fresh_database(stage.services["DATABASE_URL"]) as url:
        ended = stage.run("migrate", DATABASE_URL=url)
        assert (ended.returncode, ended.stderr) == (0, "")
        yield url


def rows_of(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM tickets.inc").fetchone()
        return int((found or [0])[0])


@pytest.fixture
def local(shared_stage: Stage) -> Path:
    file = shared_stage.folder / "2026-06-25T142000.csv"
    file.write_bytes(csv([ticket("INC1")]))
    return file


def test_a_login_of_one_database_can_do_nothing_in_another(shared_stage: Stage, local: Path) -> None:
    stage = shared_stage
    with migrated(stage) as test, migrated(stage) as prod, psycopg.connect(test, row_factory=dict_row) as owner:
        for kind in ("ingest", "read"):
            owner.commit()
            owner.autocommit = True
            with logged_in(owner, test, role_of(owner, kind)) as login:
                if kind == "ingest":
                    imported = stage.run("import-csv", "--feed", "inc", str(local), "--apply", DATABASE_URL=login.url)
                    assert imported.returncode == 0, imported.stderr
                assert rows_of(login.url) == 1
                with pytest.raises(errors.InsufficientPrivilege):
                    rows_of(login.at(prod))
                imported = stage.run("import-csv", "--feed", "inc", str(local), "--apply", DATABASE_URL=login.at(prod))
                assert imported.returncode != 0
        assert rows_of(prod) == 0


def test_a_copy_has_roles_of_its_own_once_it_is_migrated(shared_stage: Stage, local: Path) -> None:
    stage = shared_stage
    with migrated(stage) as prod:
        assert stage.run("import-csv", "--feed", "inc", str(local), "--apply", DATABASE_URL=prod).returncode == 0
        name = urlsplit(prod).path.removeprefix("/")
        with fresh_database(stage.services["DATABASE_URL"], name) as copy:
            assert stage.run("migrate", DATABASE_URL=copy).returncode == 0
            with psycopg.connect(copy, autocommit=True, row_factory=dict_row) as owner:
                role = role_of(owner, "ingest")
                assert role == f"fleettickets_ingest_{urlsplit(copy).path.removeprefix('/')}"
                for login_role, rest in ((role, prod), (f"fleettickets_ingest_{name}", copy)):
                    with logged_in(owner, copy, login_role) as login:
                        assert rows_of(login.at(prod if rest == copy else copy)) == 1
                        with pytest.raises(errors.InsufficientPrivilege):
                            rows_of(login.at(rest))


def test_the_past_of_an_archived_file_is_not_rewritten(shared_stage: Stage) -> None:
    stage, key = shared_stage, key_at(200)
    stage.bucket.put(key, csv([ticket("INC20")]))
    stage.run("drain", "--apply")  # which meets the broken file of another test, and says so
    before = stage.ledger(key)
    with (
        logged_in(stage.connection, stage.database, role_of(stage.connection, "ingest")) as login,
        psycopg.connect(login.url, autocommit=True) as stolen,
    ):
        stolen.execute("UPDATE ingest.ledger SET state = 'seen'")
        for column in ("sha256", "etag", "key", "bucket"):
            with pytest.raises((errors.InsufficientPrivilege, errors.IntegrityConstraintViolation)):
                stolen.execute(sql.SQL("UPDATE ingest.ledger SET {} = 'forged'").format(sql.Identifier(column)))
        with pytest.raises(errors.IntegrityConstraintViolation):
            stolen.execute("UPDATE ingest.ledger SET sha256 = NULL")
        with pytest.raises(errors.InsufficientPrivilege):
            stolen.execute("ALTER TABLE ingest.ledger DISABLE TRIGGER keep_sha256")
        stolen.execute("UPDATE ingest.ledger SET state = 'archived' WHERE archive_key IS NOT NULL")
    facts = ("bucket", "key", "etag", "sha256", "archive_key")
    after = stage.ledger(key)
    assert [after[name] for name in facts] == [before[name] for name in facts]


def test_an_owner_who_may_not_create_roles_is_told_what_has_to_be_run(
    shared_stage: Stage, empty_database: Database
) -> None:
    stage, name = shared_stage, urlsplit(empty_database.url).path.removeprefix("/")
    with (
        psycopg.connect(empty_database.url, autocommit=True, row_factory=dict_row) as administrator,
        logged_in(administrator, empty_database.url, "pg_monitor") as owner,
    ):
        names = {"database": sql.Identifier(name), "owner": sql.Identifier(owner.name)}
        for statement in (
            "CREATE EXTENSION postgis",
            "ALTER DATABASE {database} OWNER TO {owner}",
            "GRANT ALL ON SCHEMA public TO {owner}",
        ):
            administrator.execute(sql.SQL(statement).format(**names))
        refused = stage.run("migrate", DATABASE_URL=owner.url)
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        statements = line.partition("have an administrator run ")[2].partition("; then migrate again")[0]
        assert f"CREATE ROLE fleettickets_read_{name} NOLOGIN" in statements
        administrator.execute(statements.encode())
        ended = stage.run("migrate", DATABASE_URL=owner.url)
        assert (ended.returncode, ended.stderr) == (0, "")
        with logged_in(administrator, empty_database.url, role_of(administrator, "read")) as reader:
            assert rows_of(reader.url) == 0
        for statement in (
            "ALTER DATABASE {database} OWNER TO CURRENT_USER",
            "REASSIGN OWNED BY {owner} TO CURRENT_USER",
        ):
            administrator.execute(sql.SQL(statement).format(**names))

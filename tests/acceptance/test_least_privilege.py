"""What each login may do: the commands with no more than their role, a reader with nothing but reading."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors, sql

from tests.acceptance.feeds import csv, key_at, ticket
from tests.acceptance.geocoder import KEY, LocationIQ
from tests.acceptance.stage import Stage, wait_until

PASSWORD = "s3cret-of-the-login"


@dataclass
class Login:
    """A login that owns nothing and is a member of one role; `url` is what DATABASE_URL would be."""

    name: str
    url: str


@pytest.fixture
def login(shared_stage: Stage, request: pytest.FixtureRequest) -> Iterator[Login]:
    name, role = f"login_{uuid.uuid4().hex[:8]}", request.param
    owner = shared_stage.connection
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(PASSWORD)))
    owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
    address = urlsplit(shared_stage.environment["DATABASE_URL"])
    host = address.netloc.rpartition("@")[2]
    yield Login(name, address._replace(netloc=f"{name}:{PASSWORD}@{host}").geturl())
    owner.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    with LocationIQ({"Westlands, nairobi": (-1.2676, 36.8108)}) as server:
        yield server


@pytest.mark.parametrize("login", ["fleettickets_ingest"], indirect=True)
def test_every_command_but_migrate_needs_the_ingest_role_alone(
    shared_stage: Stage, login: Login, provider: LocationIQ
) -> None:
    stage, arrived, drained, broken = shared_stage, key_at(0), key_at(10), key_at(20)
    as_login = {"DATABASE_URL": login.url}
    as_login |= {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url}
    consumer = stage.start("consume", **as_login)
    body = csv([ticket("INC1", raw_status="Closed", closed_at="2026-06-01 09:00"), ticket("INC2", mttr="soon")])
    stage.bucket.put_all({arrived: body, broken: b"ticket_id\nM\xfc\n", f"{arrived}.txt": b"?"})
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
        ("import-csv", str(local), "--apply"),
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
        ("fleettickets_ingest", FORBIDDEN_TO_BOTH),
        ("fleettickets_read", FORBIDDEN_TO_BOTH + FORBIDDEN_TO_READERS),
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
    assert stage.query("SELECT DISTINCT role FROM public.acted") == [{"role": "fleettickets_ingest"}]


@pytest.mark.parametrize("login", ["fleettickets_read"], indirect=True)
def test_status_needs_the_read_role_alone_and_a_reader_cannot_consume(shared_stage: Stage, login: Login) -> None:
    as_login = {"DATABASE_URL": login.url}
    ended = shared_stage.run("status", "--json", **as_login)
    assert ended.returncode == 0, ended.stderr
    imported = shared_stage.run("import-csv", "/dev/null", "--apply", **as_login)
    assert imported.returncode != 0
    assert PASSWORD not in imported.stderr + imported.stdout
    assert "Traceback" not in imported.stderr

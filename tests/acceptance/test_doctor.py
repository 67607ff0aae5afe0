"""The doctor finds nothing wrong where nothing is, and each broken thing by itself."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.conftest import Database
from tests.doubles.geocoder import KEY, LocationIQ
from tests.stage.broker import GEOCODE, fresh_vhost
from tests.stage.logins import Owner, logged_in, role_of
from tests.stage.stage import Stage
from tests.stage.store import CHANGES

FINE = {
    "postgres",
    "postgis",
    "migrations",
    "rights",
    "merge",
    "rabbitmq",
    "topology",
    "store",
    "objects",
    "notifications",
}


def examined(stage: Stage, *options: str, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    ended = stage.run("doctor", "--json", *options, **environment)
    assert ended.stderr == ""
    return ended.returncode, {found["about"]: found for found in stage.json(ended)["findings"]}


def wrong(findings: dict[str, dict[str, str]]) -> set[str]:
    assert all(found["do"] for found in findings.values() if found["level"] != "ok")
    return {about for about, found in findings.items() if found["level"] == "wrong"}


@pytest.fixture(scope="module")
def sound(shared_stage: Stage) -> Stage:
    shared_stage.bucket.notify(shared_stage.broker)
    return shared_stage


def test_nothing_is_wrong_and_nothing_is_left_behind(sound: Stage) -> None:
    status, findings = examined(sound)
    assert (status, wrong(findings)) == (0, set())
    assert {about for about, found in findings.items() if found["level"] == "ok"} >= FINE
    assert {findings[f"conditional {what}"]["level"] for what in ("copy", "delete")} <= {"ok", "note"}
    assert sound.bucket.keys() == []
    shown = sound.run("doctor").stdout.splitlines()
    assert len(shown) == len(findings)


@pytest.mark.parametrize(
    ("broken", "about", "told"),
    [
        ({"DATABASE_URL": "postgresql://postgres@nowhere.invalid:5432/none"}, {"postgres"}, "not available"),
        ({"DATABASE_URL": ""}, {"postgres"}, "DATABASE_URL"),
        ({"RABBITMQ_URL": "amqp://guest:guest@nowhere.invalid:5672/"}, {"rabbitmq"}, "not available"),
        ({"RUSTFS_SECRET_KEY": "wrong"}, {"store", "notifications"}, "RUSTFS_SECRET_KEY"),
        ({"RUSTFS_BUCKET": "nobody-made-this"}, {"store", "notifications"}, "RUSTFS_BUCKET"),
    ],
)
def test_a_dependency_that_is_away_or_refuses(sound: Stage, broken: dict[str, str], about: set[str], told: str) -> None:
    status, findings = examined(sound, **broken)
    assert status == 1
    assert wrong(findings) <= about
    assert told in findings[min(wrong(findings) - {"notifications"})]["found"]


def test_a_database_that_is_not_migrated(sound: Stage, empty_database: Database) -> None:
    status, findings = examined(sound, DATABASE_URL=empty_database.url)
    assert (status, wrong(findings)) == (1, {"migrations", "postgis"})
    assert findings["migrations"]["do"] == "run: fleettickets migrate"


def test_rights_that_the_consumer_needs_and_lacks(sound: Stage) -> None:
    role = role_of(sound.connection, "ingest")
    rights = "INSERT, UPDATE ON tickets.inc, ingest.ledger"
    sound.connection.execute(f"REVOKE {rights} FROM {role}".encode())
    status, findings = examined(sound)
    assert (status, wrong(findings)) == (1, {"rights"})
    lacks = "INSERT on ingest.ledger, UPDATE on ingest.ledger, INSERT on tickets.inc, UPDATE on tickets.inc"
    assert findings["rights"]["found"] == f"{role} lacks {lacks}"
    assert "fleettickets migrate" in findings["rights"]["do"]
    assert sound.run("migrate").returncode == 0
    assert wrong(examined(sound)[1]) == set()


@pytest.fixture
def examining(database: Database, sound: Stage) -> Iterator[tuple[Owner, dict[str, str]]]:
    """A database to break, and what has a command look at it."""
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as owner:
        yield owner, {"DATABASE_URL": database.url, "RUSTFS_BUCKET": sound.bucket.name}


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "CREATE TRIGGER audit BEFORE INSERT ON tickets.inc FOR EACH ROW EXECUTE FUNCTION public.audit()",
            "permission denied for table audited",
        ),
        ("CREATE RULE keep AS ON INSERT TO ingest.rejects DO INSTEAD NOTHING", ""),
        ("ALTER TABLE tickets.inc ADD CHECK (raw ->> 'mttr' <> '60')", "violates check constraint"),
        (
            "DROP TRIGGER resolve_geom ON tickets.inc; ALTER TABLE tickets.inc ALTER ticket_id TYPE varchar(20)",
            "too long",
        ),
    ],
)
def test_a_merge_that_would_fail_fails_here(
    sound: Stage, examining: tuple[Owner, dict[str, str]], statement: str, told: str
) -> None:
    owner, environment = examining
    owner.execute("""
        CREATE TABLE public.audited (ticket_id text);
        CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO public.audited VALUES (NEW.ticket_id); RETURN NEW; END $$
    """)
    if "varchar" in statement:
        owner.execute("DROP VIEW tickets.inc_open_sla, ingest.named_places, reporting.inc_open CASCADE")
    owner.execute(statement.encode())
    status, findings = examined(sound, **environment)
    assert (status, wrong(findings)) == (1, {"merge"})
    assert told in findings["merge"]["found"]


def test_rows_that_a_policy_hides(sound: Stage, examining: tuple[Owner, dict[str, str]]) -> None:
    owner, environment = examining
    owner.execute("ALTER TABLE tickets.inc ENABLE ROW LEVEL SECURITY")
    status, findings = examined(sound, **environment)
    assert (status, wrong(findings)) == (1, {"rights"})
    role = role_of(owner, "ingest")
    assert findings["rights"]["found"] == f"policies hide rows of tickets.inc from {role}"
    assert "BYPASSRLS" in findings["rights"]["do"]
    consumed = sound.run("consume", **environment)
    assert consumed.returncode == 2
    assert f"row-level security hides rows of tickets.inc from {role}" in consumed.stderr


def test_who_comes_by_a_role_of_another_database(sound: Stage, examining: tuple[Owner, dict[str, str]]) -> None:
    """Of the database that this one is a copy of, and of the one that it was renamed from."""
    owner, environment = examining
    (copied,) = [role for role in examined(sound, **environment)[1] if role.startswith("role fleettickets_ingest_")]
    assert examined(sound, **environment)[1][copied]["do"] == "run: fleettickets migrate"
    assert sound.run("migrate", **environment).returncode == 0
    own, former = role_of(owner, "ingest"), f"fleettickets_ingest_former_{uuid.uuid4().hex[:8]}"
    owner.execute(f"CREATE ROLE {former}; GRANT USAGE ON SCHEMA ingest TO {former}".encode())
    try:
        with logged_in(owner, environment["DATABASE_URL"], former) as login:
            status, findings = examined(sound, **environment)
    finally:
        owner.execute(f"DROP OWNED BY {former}; DROP ROLE {former}".encode())
    assert (status, wrong(findings)) == (0, set())
    assert copied not in findings
    assert findings[f"role {former}"]["do"] == (
        f"GRANT {own} TO {login.name}; REVOKE {former} FROM {login.name}; then run: fleettickets migrate"
    )


def test_a_merge_waits_for_nobody_and_leaves_nothing(sound: Stage, examining: tuple[Owner, dict[str, str]]) -> None:
    owner, environment = examining
    everything = """
        SELECT (SELECT count(*) FROM tickets.inc), (SELECT count(*) FROM ingest.ledger),
               (SELECT count(*) FROM ingest.positions), (SELECT count(*) FROM ingest.rejects),
               (SELECT count(*) FROM ingest.outbox), (SELECT count(*) FROM tickets.closure_events),
               (SELECT count(*) FROM tickets.import_meta)
    """
    assert wrong(examined(sound, **environment)[1]) == set()
    with owner.transaction():
        owner.execute("LOCK TABLE tickets.import_meta IN EXCLUSIVE MODE")
        status, findings = examined(sound, **environment)
    assert (status, wrong(findings)) == (0, set())
    assert findings["merge"]["level"] == "note"
    assert set((owner.execute(everything.encode()).fetchone() or {}).values()) == {0}


def test_queues_that_are_missing_or_otherwise(sound: Stage, services: dict[str, str], worker_id: str) -> None:
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        pytest.skip("no management API that could make a virtual host")
    other = fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-doctor-{worker_id}")
    with other.channel() as channel:
        channel.queue_declare(GEOCODE, durable=True)
    environment = {"RABBITMQ_URL": other.url, "RABBITMQ_MANAGEMENT_URL": management}
    status, findings = examined(sound, **environment)
    assert status == 1
    assert findings[f"queue {GEOCODE}"]["found"] != "missing"
    assert findings["queue fleettickets.files"]["found"] == "missing"
    assert any(about.startswith("binding ") for about in wrong(findings))


def test_notifications_that_are_not_set_or_announce_the_archive(sound: Stage) -> None:
    s3: Any = sound.bucket.s3
    whole = s3.get_bucket_notification_configuration(Bucket=sound.bucket.name)
    (rule,) = (rule for rule in whole["TopicConfigurations"] if CHANGES in str(rule["Filter"]))
    others = [other for other in whole["TopicConfigurations"] if other != rule]

    def configured(rule: dict[str, Any]) -> None:
        configuration = {"TopicConfigurations": [rule, *others]}
        s3.put_bucket_notification_configuration(Bucket=sound.bucket.name, NotificationConfiguration=configuration)

    try:
        configured({name: value for name, value in rule.items() if name != "Filter"})
        status, findings = examined(sound)
        assert (status, wrong(findings)) == (1, {"archive"})
        assert CHANGES in findings["archive"]["do"]
        configured(rule | {"Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "elsewhere/"}]}}})
        status, findings = examined(sound)
        assert (status, wrong(findings)) == (1, {"notifications"})
        assert wrong(examined(sound, "--poller-only")[1]) == set()
    finally:
        configured(rule)


def test_the_geocoder_is_asked_whether_it_takes_the_key(sound: Stage) -> None:
    assert examined(sound)[1]["geocoder"]["level"] == "note"
    with LocationIQ({}) as provider:
        status, findings = examined(sound, GEOCODER_API_KEY=KEY, GEOCODER_URL=provider.url)
        assert (status, findings["geocoder"]["found"]) == (0, "127.0.0.1 takes the key: 5000 requests left today")
        status, findings = examined(sound, GEOCODER_API_KEY="another", GEOCODER_URL=provider.url)
        assert (status, wrong(findings)) == (1, {"geocoder"})
        assert "GEOCODER_API_KEY" in findings["geocoder"]["found"]
        assert provider.searches == []

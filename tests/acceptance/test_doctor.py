"""The doctor finds nothing wrong where nothing is, and each broken thing by itself."""

import re
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.conftest import Database
from tests.doubles.conditional_store import ALL, LIKE_RUSTFS, ConditionalStore
from tests.doubles.geocoder import KEY, LocationIQ
from tests.stage.broker import FILES, GEOCODE, fresh_vhost
from tests.stage.logins import Owner, logged_in, role_of
from tests.stage.stage import Stage, wait_until
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
    del shared_stage.environment["FLEETTICKETS_MISSING_COLUMNS"]  # as whoever sets nothing has it
    return shared_stage


def test_nothing_is_wrong_and_nothing_is_left_behind(sound: Stage) -> None:
    status, findings = examined(sound)
    assert (status, wrong(findings)) == (0, set())
    assert {about for about, found in findings.items() if found["level"] == "ok"} >= FINE
    assert {findings[f"conditional {what}"]["level"] for what in ("copy", "delete")} <= {"ok", "note"}
    assert sound.bucket.keys() == []
    settings, shown = sound.run("doctor").stdout.split("\n\n")
    assert len(shown.splitlines()) == len(findings)
    assert re.search(r"^RUSTFS_BUCKET +environment +\S+$", settings, re.MULTILINE)


@pytest.mark.parametrize(("keeps", "kept"), [(LIKE_RUSTFS, {"copy"}), (ALL, {"copy", "delete"})])
def test_what_conditions_the_store_keeps(sound: Stage, keeps: frozenset[str], kept: set[str]) -> None:
    with ConditionalStore(sound.environment, keeps) as store:
        _, findings = examined(sound, RUSTFS_ENDPOINT=store.url)
    found = {what for what in ("copy", "delete") if findings[f"conditional {what}"]["found"] == "supported"}
    assert found == kept
    assert sound.bucket.keys() == []


@pytest.mark.parametrize(
    ("broken", "about", "told"),
    [
        ({"DATABASE_URL": "postgresql://postgres@nowhere.invalid:5432/none"}, {"postgres"}, "not available"),
        ({"DATABASE_URL": ""}, {"DATABASE_URL"}, "is not set"),
        ({"RABBITMQ_URL": "amqp://guest:guest@nowhere.invalid:5672/"}, {"rabbitmq"}, "not available"),
        ({"RUSTFS_SECRET_KEY": "wrong"}, {"store"}, "RUSTFS_SECRET_KEY"),
        ({"RUSTFS_BUCKET": "nobody-made-this"}, {"store"}, "RUSTFS_BUCKET"),
        ({"RUSTFS_ENDPOINT": "http://127.0.0.1:1"}, {"store"}, "not available"),
        ({"FLEETTICKETS_CA_FILE": "/nowhere.pem"}, {"FLEETTICKETS_CA_FILE"}, "is no file of PEM certificates"),
    ],
)
def test_a_dependency_that_is_away_or_refuses(sound: Stage, broken: dict[str, str], about: set[str], told: str) -> None:
    status, findings = examined(sound, **broken)
    assert status == 1
    assert wrong(findings) == about  # one cause, one line
    assert told in findings[min(about)]["found"]


def test_a_database_that_is_not_migrated(sound: Stage, empty_database: Database) -> None:
    status, findings = examined(sound, DATABASE_URL=empty_database.url)
    assert (status, wrong(findings)) == (1, {"migrations"})
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
    missing = findings["topology"]["found"].removeprefix("missing: ").split(", ")
    assert "fleettickets.files" in missing
    assert GEOCODE not in missing
    assert wrong(findings) == {f"queue {GEOCODE}", "topology"}  # of each binding something is missing
    with other.channel() as channel:
        channel.queue_delete(GEOCODE)
    assert sound.run("topology", **environment).returncode == 0
    assert wrong(examined(sound, **environment)[1]) == set()
    with other.channel() as channel:
        channel.queue_unbind(FILES, "fleettickets.events", "#")
    assert [about.split()[0] for about in wrong(examined(sound, **environment)[1])] == ["binding"]


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


WRONG_SETTINGS = {
    "FLEETTICKETS_FILES_IN_HAND": "none",
    "FLEETTICKETS_MAX_REJECT_SHARE": "50",
    "FLEETTICKETS_HISTORY_INTERVAL": "-1",
    "FLEETTICKETS_KEEP_MISSES_DAYS": "0",
    "FLEETTICKETS_MAX_FAILURES_IN_A_ROW": "0",
    "FLEETTICKETS_STUCK_SECONDS": "soon",
    "FLEETTICKETS_HEARTBEAT_SECONDS": "0",
    "FLEETTICKETS_WEBHOOK_MAX_BYTES": "0",
    "FLEETTICKETS_API_CONNECTIONS": "0",
    "FLEETTICKETS_FAIL_POINT": "anywhere",
    "FLEETTICKETS_SQS_QUEUE_URL": "https://sqs.example.org/",
    "GEOCODER_PER_DAY": "0",
    "GEOCODER_URL": "https://user:s3cr3t@example.org/",
}


def test_each_setting_that_a_command_would_refuse(sound: Stage) -> None:
    ended = sound.run("doctor", "--json", **WRONG_SETTINGS)
    found = sound.json(ended)
    assert ended.returncode == 1
    assert {one["about"] for one in found["findings"] if one["level"] == "wrong"} == set(WRONG_SETTINGS)
    assert "s3cr3t" not in ended.stdout
    refused = sound.run("consume", FLEETTICKETS_FILES_IN_HAND="none")
    assert refused.returncode == 2
    assert "FLEETTICKETS_FILES_IN_HAND is wrong" in refused.stderr


def test_names_that_are_no_settings_and_the_likely_ones(sound: Stage) -> None:
    status, findings = examined(
        sound,
        FLEETTICKETS_MAX_REJECT_SHRE="0.1",
        RUSTFS_BUCKETS="other",
        GEOCODER_KEY_OF_OURS="x",
        FLEETTICKETS_NONE_OF_THESE="",
        RUSTFS_TAG="1.0.0",
    )
    assert (status, wrong(findings)) == (1, {"FLEETTICKETS_MAX_REJECT_SHRE"})
    assert findings["FLEETTICKETS_MAX_REJECT_SHRE"]["do"].startswith("FLEETTICKETS_MAX_REJECT_SHARE may be meant")
    assert findings["RUSTFS_BUCKETS"]["found"] == "no setting of this program; RUSTFS_BUCKET is, and is set"
    assert findings["GEOCODER_KEY_OF_OURS"]["level"] == "note"
    assert not {"FLEETTICKETS_NONE_OF_THESE", "RUSTFS_TAG"} & findings.keys()


def test_where_each_setting_comes_from_without_its_secret(sound: Stage) -> None:
    file = sound.folder / ".env"
    file.write_text("FLEETTICKETS_STUCK_SECONDS=77\nRUSTFS_BUCKET=other\nFLEETTICKETS_API_TOKENS=0123456789abcdefg\n")
    try:
        ended = sound.run("doctor", "--json", FLEETTICKETS_LATE_SECONDS="soon")
        shown = sound.run("doctor").stdout
    finally:
        file.unlink()
    settings = {one["name"]: (one["value"], one["origin"]) for one in sound.json(ended)["settings"]}
    assert settings["FLEETTICKETS_STUCK_SECONDS"] == ("77", ".env")
    assert settings["FLEETTICKETS_LATE_SECONDS"] == (None, "environment")
    assert settings["FLEETTICKETS_MISSING_SECONDS"] == ("120", "default")
    assert settings["RUSTFS_BUCKET"] == (sound.bucket.name, "environment")
    assert settings["FLEETTICKETS_API_TOKENS"] == ("***", ".env")
    assert settings["FLEETTICKETS_WEBHOOK_TOKEN"] == (None, "not set")
    assert re.search(r"^FLEETTICKETS_STUCK_SECONDS +\.env +77\.0$", shown, re.MULTILINE)
    secrets = [sound.environment["RUSTFS_SECRET_KEY"], "0123456789abcdefg", ":guest@"]
    assert [secret for secret in secrets if secret in ended.stdout + shown] == []


def test_a_feed_that_cannot_be_read_leaves_the_rest_to_be_looked_at(sound: Stage) -> None:
    status, findings = examined(sound, FLEETTICKETS_FEEDS="none-of-these")
    assert (status, wrong(findings)) == (1, {"feeds"})
    assert {about for about in FINE if about in findings} == FINE - {"merge", "store", "objects", "notifications"}


def test_a_prefix_that_the_exporter_does_not_write_to(stage: Stage) -> None:
    stage.bucket.put("automations/INC/changes/2026-06-25T142000.csv", b"x")
    status, findings = examined(stage, "--poller-only")
    assert (status, wrong(findings)) == (1, {"prefix"})
    assert findings["prefix"]["found"].endswith(", while automations/INC/changes/ has something")
    stage.bucket.put(f"{CHANGES}2026-06-25T142000.csv", b"x")
    status, findings = examined(stage, "--poller-only")
    assert (status, findings["prefix"]["level"]) == (0, "note")
    assert "automations/crq/" in findings["prefix"]["found"]


def test_who_is_at_work_and_who_is_missed(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    first = examined(stage)[1]
    assert {first[kind]["level"] for kind in ("consumers", "pollers")} == {"note"}
    stage.environment["FLEETTICKETS_HEARTBEAT_SECONDS"] = "0.2"
    consumer, poller = stage.start("consume"), stage.start("poll", "--every", "1")
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.heartbeats") == 2, "both have given a sign")
    wait_until(
        lambda: stage.ask("status")["broker"]["queues"]["files"]["consumers"] == 1, "the broker knows it as well"
    )
    findings = examined(stage)[1]
    assert findings["consumers"]["level"] == findings["pollers"]["level"] == "ok"
    assert f"(pid {consumer.pid})" in findings["consumers"]["found"]
    assert f"(pid {poller.pid})" in findings["pollers"]["found"]
    for process in (consumer, poller):
        process.signal(signal.SIGSTOP)
    try:
        time.sleep(2)
        status, findings = examined(stage, FLEETTICKETS_MISSING_SECONDS="1")
    finally:
        for process in (consumer, poller):
            process.signal(signal.SIGCONT)
    assert (status, wrong(findings)) == (1, {"consumers"})
    assert f"(pid {consumer.pid}) has given no sign for" in findings["consumers"]["found"]
    consumer.stop()
    poller.stop()


def test_consumers_of_another_broker_are_told_of(stage: Stage, services: dict[str, str], worker_id: str) -> None:
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        pytest.skip("no management API that could make a virtual host")
    other = fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-elsewhere-{worker_id}")
    consumer = stage.start("consume", RABBITMQ_URL=other.url, FLEETTICKETS_HEARTBEAT_SECONDS="0.2")
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.heartbeats") == 1, "it has given a sign")
    found = examined(stage, "--poller-only")[1]["consumers"]
    assert (found["level"], "start one, if it has ended" in found["do"]) == ("note", True)
    consumer.signal(signal.SIGSTOP)  # it would say again when it began
    stage.connection.execute("UPDATE ingest.heartbeats SET started_at = started_at - interval '1 minute'")
    status, findings = examined(stage, "--poller-only")
    consumer.signal(signal.SIGCONT)
    assert (status, wrong(findings)) == (1, {"consumers"})
    assert "RabbitMQ gives files to none" in findings["consumers"]["found"]
    consumer.stop()

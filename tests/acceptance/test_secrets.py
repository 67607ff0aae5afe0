"""No secret shows anywhere: not in output, logs, metrics, errors, command lines, tables or messages.

Each secret is made of three words with characters between them that a URL has to encode, and each word is looked for:
whoever cuts a URL at the wrong place shows a part.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import requests
from psycopg import sql

from tests.acceptance.conftest import MakeStage
from tests.doubles.receiver import free_port
from tests.stage.broker import DEAD_FILES, Broker
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.private import private_postgres
from tests.stage.stage import Stage, wait_until

if TYPE_CHECKING:
    import subprocess

GOOD, BAD, BROKEN = key_at(0), key_at(10), key_at(20)
TOKEN = "Zhook1+Yhook2=Xhook3"
SCRAM = "host all keeper 127.0.0.1/32 scram-sha-256\n"
JSON = "--json"


def secret(of: str) -> str:
    return f"Z{of}1/Y{of}2@X{of}3%:#?&é"


def words(of: str) -> set[str]:
    return {f"{letter}{of}{number}" for letter, number in (("Z", 1), ("Y", 2), ("X", 3))}


@dataclass
class Keeper:
    """A stage whose every service is given a secret, and all that was shown of its commands."""

    stage: Stage
    working: dict[str, str]
    refused: dict[str, str]
    away: dict[str, str]
    seen: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        ended = self.stage.run(*arguments, **environment)
        self.seen[f"{len(self.seen)}: {' '.join(arguments)}"] = ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    def require_silence(self) -> None:
        every = words("db") | words("mq") | words("api") | words("hook") | words("wrong") | words("aws") | words("geo")
        every |= words("alert")
        every |= {self.stage.services["RUSTFS_SECRET_KEY"]}
        shown = {where: sorted(word for word in every if word in text) for where, text in self.seen.items()}
        assert {where: found for where, found in shown.items() if found} == {}


def address(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}").geturl()


@pytest.fixture(scope="module")
def keeper(
    services: dict[str, str], broker: Broker, make_stage: MakeStage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keeper]:
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None or broker.management is None:
        pytest.skip("no management API that could make users with passwords")
    names = {of: f"keeper-{of}-{os.getpid()}" for of in ("mq", "api")}
    for of, name in names.items():
        user = {"password": secret(of), "tags": "administrator"}
        requests.put(f"{management}/api/users/{name}", json=user, timeout=30).raise_for_status()
        allowed = {"configure": ".*", "write": ".*", "read": ".*"}
        requests.put(f"{management}/api/permissions/{broker.vhost}/{name}", json=allowed, timeout=30).raise_for_status()
    try:
        with (
            private_postgres(tmp_path_factory.mktemp("postgres")) as postgres,
            make_stage(postgres.url) as stage,
        ):
            password = sql.Literal(secret("db"))
            stage.connection.execute(sql.SQL("CREATE ROLE keeper SUPERUSER LOGIN PASSWORD {}").format(password))
            rules = Path(stage.one("SHOW hba_file"))
            rules.write_text(SCRAM + rules.read_text())
            stage.query("SELECT pg_reload_conf()")
            database = address(postgres.url, "keeper", secret("db"))
            working = {
                "DATABASE_URL": database,
                "RABBITMQ_URL": address(broker.url, names["mq"], secret("mq")),
                "RABBITMQ_MANAGEMENT_URL": address(management, names["api"], secret("api")),
                "FLEETTICKETS_WEBHOOK_TOKEN": TOKEN,
                "AWS_SECRET_ACCESS_KEY": secret("aws"),
                # The library's errors of one that nobody answers quote its URL, which the key is a part of.
                "GEOCODER_API_KEY": "Zgeo1+Ygeo2/Xgeo3",
                "GEOCODER_URL": "http://127.0.0.1:1",
                "FLEETTICKETS_ALERT_URL": "http://127.0.0.1:1/Zalert1/Yalert2?of=Xalert3",
            }
            refused = {
                "DATABASE_URL": address(postgres.url, "keeper", secret("wrong")),
                "RABBITMQ_URL": address(broker.url, names["mq"], secret("wrong")),
                "RABBITMQ_MANAGEMENT_URL": address(management, names["api"], secret("wrong")),
                "RUSTFS_SECRET_KEY": secret("wrong"),
            }
            nowhere = {
                "DATABASE_URL": address("postgresql://nowhere.invalid/none", "keeper", secret("db")),
                "RABBITMQ_URL": address("amqp://nowhere.invalid/", "keeper", secret("mq")),
                "RABBITMQ_MANAGEMENT_URL": address("http://nowhere.invalid:1/", "keeper", secret("api")),
                "RUSTFS_ENDPOINT": "http://nowhere.invalid:1",
            }
            stage.environment |= working
            yield Keeper(stage, working, refused, nowhere)
    finally:
        for name in names.values():
            requests.delete(f"{management}/api/users/{name}", timeout=30)


def test_nothing_shows_where_all_is_well(keeper: Keeper) -> None:
    stage = keeper.stage
    stage.bucket.put_all({GOOD: csv([ticket("INC1")]), BAD: b"ticket_id,M\xfc\nINC1,x\n"})
    port = free_port()
    stage.executes = True
    processes = [
        stage.start("consume"),
        stage.start("poll", "--every", "1"),
        stage.start("webhook", "--port", str(port)),
    ]
    stage.executes = False
    receiver = f"http://127.0.0.1:{port}"
    wait_until(lambda: _status(f"{receiver}/readyz") == 200, "the receiver is connected")
    for token, status in ((TOKEN, 200), ("Zwrong1", 401), ("", 401)):
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.post(receiver, data=stage.bucket.event(GOOD), headers=sent, timeout=30)
        assert answer.status_code == status
        keeper.seen[f"answer {status}"] = f"{answer.headers}{answer.text}"
    for page in ("metrics", "readyz", "openapi.json"):
        keeper.seen[page] = requests.get(f"{receiver}/{page}", timeout=30).text
    stage.wait_for("done", GOOD)
    stage.wait_for("failed", BAD)
    wait_until(lambda: "the geocoder is not available" in processes[0].output(), "it waits for the geocoder")
    for process in processes:
        for file in ("cmdline", "comm", "stat"):
            keeper.seen[f"/proc/{file} of {process.log.name}"] = Path(f"/proc/{process.pid}/{file}").read_text()
    listed = json.loads(keeper.run("dead-letters", "list", "--each", JSON).stdout)
    local = stage.folder / "2026-06-25T142000.csv"
    local.write_bytes(csv([ticket("INC4")]))
    ends = {
        "verify": {0, 1},
        "geocode": {1},
        "doctor": {0, 1},
        "notifications": {0, 1},
        "dead-letters": {0},
        "topology": {0, 1},
    }
    for arguments in (
        ("migrate", JSON),
        ("topology", "--check"),
        ("status", JSON),
        ("verify", JSON),
        ("explain", BAD),
        ("doctor",),
        ("notifications", "--store", "ceph"),
        ("notifications", "--store", "rustfs", "--by", "webhook"),
        ("notifications", "--store", "rustfs", "--by", "amqp", JSON),
        ("dead-letters", "show", listed[0]["id"], JSON),
        ("import-csv", "--feed", "inc", str(local), "--apply", JSON),
        ("geocode", "clusters", "--apply"),
    ):
        ended = keeper.run(*arguments)
        assert ended.returncode in ends.get(arguments[0], {0}), (arguments, ended.stderr)
    for process in processes:
        process.stop()
        keeper.seen[process.log.name] = process.output()
    keeper.require_silence()


def _status(url: str) -> int:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.ConnectionError:
        return 0


def test_nothing_shows_where_the_secrets_are_wrong(keeper: Keeper) -> None:
    assert keeper.run("doctor", JSON, **keeper.refused).returncode == 1
    assert keeper.run("status", **keeper.refused).returncode == 1
    for name, command in (
        ("DATABASE_URL", ("migrate",)),
        ("RABBITMQ_MANAGEMENT_URL", ("topology", "--check")),
    ):
        ended = keeper.run(*command, **{name: keeper.refused[name]})
        assert ended.returncode in {1, 2}
        assert len(ended.stderr.splitlines()) == 1
    consumers = [
        keeper.stage.start("consume", **{name: keeper.refused[name]}) for name in ("DATABASE_URL", "RUSTFS_SECRET_KEY")
    ]
    for consumer in consumers:
        assert consumer.wait() == 2
        keeper.seen[consumer.log.name] = consumer.output()
    keeper.require_silence()


def test_nothing_shows_where_nobody_answers(keeper: Keeper) -> None:
    assert keeper.run("doctor", **keeper.away).returncode == 1
    assert keeper.run("status", JSON, **keeper.away).returncode == 1
    queue = {"FLEETTICKETS_SQS_QUEUE_URL": "http://127.0.0.1:1/1/q", "FLEETTICKETS_SQS_ENDPOINT": "http://127.0.0.1:1"}
    aws = {"AWS_ACCESS_KEY_ID": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    assert keeper.run("sqs", "--once", **queue, **aws).returncode == 1
    consumer = keeper.stage.start("consume", **keeper.away)
    wait_until(lambda: "waiting" in consumer.output(), "it says what is wrong")
    consumer.stop()
    keeper.seen[consumer.log.name] = consumer.output()
    keeper.require_silence()


INVALID = {
    "DATABASE_URL": ("postgresql://u:{}@h:port/d", "postgresql://u:Zdb1/Ydb2@h/d"),
    "RABBITMQ_URL": ("amqp://u:1/Ymq2@h/", "amqp://u:{}@h/?Xmq3=1"),
    "RABBITMQ_MANAGEMENT_URL": ("http://u:{}@h:port/",),
}


@pytest.mark.parametrize("name", INVALID)
def test_nothing_shows_of_a_setting_that_cannot_be_read(keeper: Keeper, name: str) -> None:
    of = {"DATABASE_URL": "db", "RABBITMQ_URL": "mq", "RABBITMQ_MANAGEMENT_URL": "api"}[name]
    command = "migrate" if of == "db" else "topology"
    for url in INVALID[name]:
        ended = keeper.run(command, JSON, **{name: url.format(quote(secret(of), safe=""))})
        assert ended.returncode == 2, (url, ended.stderr)
        assert len(ended.stderr.splitlines()) == 1
        assert name in ended.stderr
    keeper.require_silence()


def test_nothing_shows_in_what_is_kept_of_failures(keeper: Keeper) -> None:
    """A broken schema makes every file fail in a way that nobody foresaw, with a stack in the log."""
    stage = keeper.stage
    consumer = stage.start("consume")
    wait_until(lambda: '"consuming"' in consumer.output(), "it has looked at the tables")
    stage.connection.execute("ALTER TABLE tickets.inc RENAME TO gone")
    try:
        stage.bucket.put(BROKEN, csv([ticket("INC7")]))
        stage.announce(BROKEN)
        stage.wait_for("failed", BROKEN)
        consumer.stop()
    finally:
        stage.connection.execute("ALTER TABLE tickets.gone RENAME TO inc")
    assert "Traceback" in consumer.output()
    keeper.seen["the log of a crash"] = consumer.output()
    for queue in stage.broker.queues:
        for message in stage.broker.messages(queue):
            keeper.seen[f"message in {queue}"] = f"{message.headers}{message.body!r}"
    assert f"message in {DEAD_FILES}" in keeper.seen
    keeper.run("dead-letters", "discard", "--all", "--reason", "a test", JSON)
    tables = stage.query(
        """SELECT schemaname, tablename FROM pg_tables
           WHERE schemaname IN ('ingest', 'tickets', 'reporting') OR tablename = 'fleettickets_migrations'"""
    )
    assert {"ledger", "discards"} <= {table["tablename"] for table in tables}
    for table in tables:
        name = sql.Identifier(table["schemaname"], table["tablename"])
        rows = stage.connection.execute(sql.SQL("SELECT to_jsonb(t) AS content FROM {} AS t").format(name)).fetchall()
        keeper.seen[f"table {table['tablename']}"] = json.dumps(rows)
    keeper.require_silence()


def test_nothing_shows_in_the_traceback_of_a_bug(keeper: Keeper) -> None:
    folder = keeper.stage.folder / "bug"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import pika.adapters.blocking_connection as b, psycopg\n"
        "def bug(*a, **k): raise RuntimeError('a bug')\n"
        "b.BlockingConnection.__init__ = bug\n"
        "psycopg.Connection.connect = bug\n"
    )
    keeper.stage.executes = True
    for command in ("topology", "migrate", "consume"):
        ended = keeper.stage.run(command, PYTHONPATH=str(folder))
        assert "RuntimeError: a bug" in ended.stderr
        keeper.seen[f"bug in {command}"] = ended.stdout + ended.stderr
    keeper.stage.executes = False
    keeper.require_silence()


def test_a_secret_that_shows_would_be_found(keeper: Keeper) -> None:
    url = keeper.working["DATABASE_URL"]
    with psycopg.connect(url) as connection:
        assert connection.info.password == secret("db")
    other = Keeper(keeper.stage, {}, {}, {}, {"a log": url})
    with pytest.raises(AssertionError, match="Zdb1"):
        other.require_silence()

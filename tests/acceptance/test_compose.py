"""The containers' processes, each with exactly the environment and login that compose.yaml gives it."""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest
from psycopg import errors

from tests import compose
from tests.acceptance.conftest import MakeStage
from tests.conftest import Database
from tests.doubles.alerted import Alerted
from tests.doubles.receiver import TOKEN, Endpoint, free_port
from tests.stage.broker import Broker, fresh_vhost
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.program import Forked
from tests.stage.stage import Process, Stage, wait_until

LOGINS = ("fleettickets_consumer", "fleettickets_reader")
FORBIDDEN = (
    "DROP TABLE tickets.inc",
    "CREATE ROLE more",
    "SELECT * FROM pg_authid",
    "COPY tickets.inc TO '/x'",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_put(1, 0, 'x')",
    "SELECT lowrite(0, 'x')",
    "SELECT lo_truncate(0, 1)",
    "SELECT lo_truncate64(0, 1)",
    "SELECT lo_import('/x')",
)
FORBIDDEN_TO_READERS = (
    "CREATE TEMPORARY TABLE more (id int)",
    "SET temp_file_limit = -1",
    "CREATE TABLE more (id int)",
)
BESIDE_OURS = ("postgres", "template1")


class Containers:
    """Starts the services' commands here; what differs is where the other services are."""

    def __init__(self, stage: Stage, broker: Broker, more: dict[str, str]) -> None:
        self.stage = stage
        database, rabbitmq = urlsplit(stage.database), urlsplit(broker.url)
        management = urlsplit(broker.management or "")
        self.where = {
            "@postgres:5432/fleettickets": f"@{database.netloc.rpartition('@')[2]}{database.path}",
            "@rabbitmq:5672/%2f": f"@{rabbitmq.netloc.rpartition('@')[2]}{rabbitmq.path}",
            "http://rabbitmq:15672": f"http://{management.netloc.rpartition('@')[2]}",
            "http://rustfs:9000": stage.services["RUSTFS_ENDPOINT"],
        }
        self.given = compose.BROKER_PASSWORDS | more
        self.given |= {name: stage.services[name] for name in ("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY")}
        self.given |= {"RABBITMQ_USER": rabbitmq.username or "", "RABBITMQ_PASSWORD": rabbitmq.password or ""}
        self.given |= {f"POSTGRES_{whose}PASSWORD": "of-the-database" for whose in ("", "CONSUMER_", "READER_")}
        self.given["RUSTFS_BUCKET"] = stage.bucket.name
        feeds = stage.folder / "feeds"
        feeds.mkdir()
        self.where["/feeds"] = str(feeds)
        self.ports: dict[str, int] = {}

    def environment(self, service: str) -> dict[str, str]:
        found = compose.environment(service, self.given)
        for there, here in self.where.items():
            found = {name: value.replace(there, here) for name, value in found.items()}
        return found

    def start(self, service: str, *more: str, **environment: str) -> Process:
        """With PATH and the time zone of the image, and nothing else of ours."""
        # Containers have ports of their own, and here all have the same.
        self.ports[service] = free_port()
        command = compose.interpolated(compose.services()[service]["command"], self.given)
        command = command.replace("--metrics 9100", f"--metrics {self.ports[service]}")
        log = self.stage.folder / f"{service}.log"
        exactly = {"PATH": "/usr/bin:/bin", "TZ": "Africa/Nairobi"} | self.environment(service) | environment
        process = Process(Forked([*shlex.split(command), *more], exactly, self.stage.folder, log, log), log)
        self.stage.processes.append(process)
        return process

    def is_well(self, service: str) -> bool:
        """As its health check has it."""
        check = compose.services()[service]["healthcheck"]["test"]
        assert check == ["CMD", "fleettickets", "health", "9100"]
        return self.stage.run("health", str(self.ports[service])).returncode == 0

    def run(self, service: str) -> Process:
        process = self.start(service)
        assert process.wait() == 0, process.output()
        return process

    def make_logins(self) -> None:
        service = compose.services()["database-logins"]
        (volume,) = service["volumes"]
        environment = self.environment("database-logins")
        server = self.stage.connection.info
        where = {"PGHOST": server.host, "PGPORT": str(server.port), "PGDATABASE": server.dbname}
        command = [
            word.replace("/logins.sql", str(compose.ROOT / volume.split(":")[0])) for word in service["entrypoint"]
        ]
        done = subprocess.run(
            command, env={"PATH": os.environ["PATH"]} | environment | where, check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def containers(
    empty_database: Database, make_stage: MakeStage, services: dict[str, str], worker_id: str, moto: int
) -> Iterator[Containers]:
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        pytest.skip("the management API makes the users of this test")
    queue = boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{moto}",
        region_name="eu-west-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_queue(QueueName="compose")["QueueUrl"]
    more = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "FLEETTICKETS_WEBHOOK_TOKEN": TOKEN}
    more["FLEETTICKETS_SQS_QUEUE_URL"] = queue
    broker = fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-compose-{worker_id}")
    with make_stage(empty_database.url) as stage:
        yield Containers(stage, broker, more)
        for login in LOGINS:
            stage.connection.execute(f"DROP OWNED BY {login}; DROP ROLE {login}".encode())
        for name in BESIDE_OURS:  # the server is that of other tests too
            stage.connection.execute(f"GRANT CONNECT ON DATABASE {name} TO PUBLIC".encode())


def test_every_service_does_its_work_with_what_it_is_given(containers: Containers, moto: int) -> None:
    stage = containers.stage
    containers.run("migrate")
    containers.make_logins()
    containers.make_logins()
    containers.run("broker-users")
    containers.run("topology")
    # This store knows no target of that name; with its settings, the command got as far as to ask it.
    refused = containers.start("bucket")
    assert refused.wait() != 0
    assert "is not set" not in refused.output()
    consumer = containers.start("consumer")
    poller = containers.start("poller")
    for service in ("consumer", "poller"):
        wait_until(partial(containers.is_well, service), f"{service} is well")
    polled, posted = key_at(0), key_at(1)
    stage.bucket.put(polled, csv([ticket("INC1")]))
    stage.wait_for("done", polled)
    poller.stop()
    endpoint = Endpoint()
    receiver = containers.start("webhook", "--port", str(endpoint.port))
    endpoint.wait()
    stage.bucket.put(posted, csv([ticket("INC2")]))
    assert endpoint.post(stage.bucket.event(posted, stage.bucket.read(posted))).status_code == 200
    stage.wait_for("done", posted)
    stage.wait_for_history()
    receiver.stop()
    # What AWS's own addresses say of themselves.
    elsewhere = {"FLEETTICKETS_SQS_ENDPOINT": f"http://127.0.0.1:{moto}", "AWS_DEFAULT_REGION": "eu-west-1"}
    carrier = containers.start("sqs", "--once", **elsewhere)
    assert carrier.wait() == 0, carrier.output()
    consumer.stop()


def test_the_poller_tells_by_its_own_logins_that_no_consumer_is_there(containers: Containers) -> None:
    for service in ("migrate", "broker-users", "topology"):
        containers.run(service)
        if service == "migrate":
            containers.make_logins()
    with Alerted() as alerted:
        containers.given |= {"FLEETTICKETS_ALERT_URL": alerted.url, "FLEETTICKETS_STUCK_SECONDS": "1"}
        poller = containers.start("poller")
        wait_until(partial(containers.is_well, "poller"), "it is well")
        containers.stage.bucket.put(key_at(0), csv([ticket("INC1")]))
        wait_until(lambda: alerted.taken, "it is told")
        assert alerted.heads[0].startswith("STUCK: no consumer")
        poller.stop()


def test_a_login_that_is_stolen_is_that_login(containers: Containers) -> None:
    containers.run("migrate")
    containers.make_logins()
    for service, may_write in (("consumer", True), ("poller", False)):
        url = containers.environment(service)["DATABASE_URL"]
        for name in BESIDE_OURS:
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                psycopg.connect(urlsplit(url)._replace(path=f"/{name}").geturl())
        with psycopg.connect(url, autocommit=True) as stolen:
            for statement in FORBIDDEN + (() if may_write else FORBIDDEN_TO_READERS):
                with pytest.raises(errors.InsufficientPrivilege):
                    stolen.execute(statement.encode())
            assert stolen.execute("SELECT count(*) FROM tickets.inc").fetchone() == (0,)
            try:
                stolen.execute("UPDATE tickets.inc SET raw = raw")
            except errors.InsufficientPrivilege:
                assert not may_write
            else:
                assert may_write


def test_a_reader_can_neither_take_every_connection_nor_stay_for_ever(containers: Containers) -> None:
    containers.run("migrate")
    containers.make_logins()
    url = containers.environment("poller")["DATABASE_URL"]
    with contextlib.ExitStack() as held:
        for _ in range(20):
            held.enter_context(psycopg.connect(url))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            psycopg.connect(url)
        with psycopg.connect(containers.environment("consumer")["DATABASE_URL"]) as ingest:
            assert ingest.execute("SELECT 1").fetchone() == (1,)
    of_readers = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    wait_until(lambda: containers.stage.one(of_readers, LOGINS[1]) == 0, "the server has seen them go")
    with psycopg.connect(url) as reader:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout", "temp_file_limit"):
            assert reader.execute("SELECT current_setting(%s)", [limit]).fetchone() not in {("0",), ("-1",)}


def test_who_only_reads_is_told_what_verify_needs(containers: Containers) -> None:
    stage = containers.stage
    containers.run("migrate")
    containers.make_logins()
    logins = {name: containers.environment(name)["DATABASE_URL"] for name in ("consumer", "poller")}
    verified = {name: stage.run("verify", "--without-broker", DATABASE_URL=url) for name, url in logins.items()} | {
        "owner": stage.run("verify", "--without-broker", DATABASE_URL=stage.database)
    }
    assert {name: ended.returncode for name, ended in verified.items()} == {"consumer": 0, "owner": 0, "poller": 3}
    assert "permission denied to create temporary tables" in verified["poller"].stdout
    stage.connection.execute(f"GRANT TEMPORARY ON DATABASE {stage.connection.info.dbname} TO {LOGINS[1]}".encode())
    assert stage.run("verify", "--without-broker", DATABASE_URL=logins["poller"]).returncode == 0

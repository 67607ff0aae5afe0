"""Wrong credentials: refused at the start with the one setting that is wrong, waited for once they were right."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import requests
from psycopg import sql

from tests.acceptance.conftest import MakeStage
from tests.doubles.receiver import free_port
from tests.stage.broker import Broker
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.private import private_postgres
from tests.stage.stage import Stage, wait_until

RIGHT, WRONG = "right", "wrong"
USER = f"login-{os.getpid()}"


def address(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


@dataclass
class Guarded:
    """A stage whose database and broker ask for a password, and ways to change it from under who has it."""

    stage: Stage
    owner: str
    management: str
    vhost: str

    def wrong(self, setting: str) -> tuple[dict[str, str], str]:
        """What to set, and where the service is that refuses it."""
        given = self.stage.environment
        store = place(given["RUSTFS_ENDPOINT"])
        url = given.get(setting, "")
        return {
            "DATABASE_URL": ({setting: address(url, "login", WRONG)}, place(url)),
            "RABBITMQ_URL": ({setting: address(url, USER, WRONG)}, place(url)),
            "RUSTFS_ACCESS_KEY": ({setting: "nobody"}, store),
            "RUSTFS_SECRET_KEY": ({setting: WRONG}, store),
            "RUSTFS_BUCKET": ({setting: "nobody-made-this"}, store),
        }[setting]

    def set_database(self, password: str) -> None:
        with psycopg.connect(self.owner, autocommit=True) as owner:
            owner.execute(sql.SQL("ALTER ROLE login PASSWORD {}").format(sql.Literal(password)))
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'login'")

    def set_broker(self, password: str) -> None:
        user = {"password": password, "tags": ""}
        requests.put(f"{self.management}/api/users/{USER}", json=user, timeout=30).raise_for_status()
        for name in self.connections():
            requests.delete(f"{self.management}/api/connections/{name}", timeout=30)

    def connections(self) -> list[str]:
        """What the broker knows of after some seconds."""
        found = requests.get(f"{self.management}/api/vhosts/{self.vhost}/connections", timeout=30).json()
        return [one["name"] for one in found if one["user"] == USER]


@pytest.fixture(scope="module")
def guarded(
    services: dict[str, str], broker: Broker, make_stage: MakeStage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None or broker.management is None:
        pytest.skip("no management API that could make a user")
    with private_postgres(tmp_path_factory.mktemp("postgres")) as postgres, make_stage(postgres.url) as stage:
        stage.connection.execute("CREATE ROLE login SUPERUSER LOGIN PASSWORD 'right'")
        rules = Path(stage.one("SHOW hba_file"))
        rules.write_text("host all login 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        stage.query("SELECT pg_reload_conf()")
        made = Guarded(stage, postgres.url, management, broker.vhost)
        made.set_broker(RIGHT)
        allowed = {"configure": ".*", "write": ".*", "read": ".*"}
        url = f"{management}/api/permissions/{broker.vhost}/{USER}"
        requests.put(url, json=allowed, timeout=30).raise_for_status()
        try:
            stage.environment |= {
                "DATABASE_URL": address(postgres.url, "login", RIGHT),
                "RABBITMQ_URL": address(broker.url, USER, RIGHT),
            }
            yield made
        finally:
            requests.delete(f"{management}/api/users/{USER}", timeout=30)


STORE = ("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY", "RUSTFS_BUCKET")
STARTED = {
    ("consume",): ("DATABASE_URL", "RABBITMQ_URL", *STORE),
    ("poll",): ("DATABASE_URL", "RABBITMQ_URL", *STORE),
    ("poll", "--every", "1"): ("DATABASE_URL", "RABBITMQ_URL", *STORE),
    ("drain", "--apply"): ("DATABASE_URL", *STORE),
    ("serve", "--port", "PORT"): ("DATABASE_URL",),
    ("migrate",): ("DATABASE_URL",),
    ("webhook", "--port", "PORT"): ("RABBITMQ_URL",),
    ("topology",): ("RABBITMQ_URL",),
}


@pytest.mark.parametrize(
    ("command", "setting"), [(command, setting) for command, settings in STARTED.items() for setting in settings]
)
def test_they_are_refused_at_the_start(guarded: Guarded, command: tuple[str, ...], setting: str) -> None:
    environment, where = guarded.wrong(setting)
    arguments = [str(free_port()) if word == "PORT" else word for word in command]
    ended = guarded.stage.run(*arguments, FLEETTICKETS_WEBHOOK_TOKEN="token", **environment)
    assert ended.returncode == 2, ended.stderr
    told = ended.stderr.splitlines()[-1]
    assert told.startswith(f"fleettickets: {setting}: ")
    assert where in told
    assert "Traceback" not in ended.stderr


TOLD = ("refuses this user or password", "password authentication failed")


@pytest.mark.parametrize("service", ["postgres", "rabbitmq"])
def test_they_are_waited_for_once_they_were_right(guarded: Guarded, service: str) -> None:
    stage, number = guarded.stage, ["postgres", "rabbitmq"].index(service)
    change = {"postgres": guarded.set_database, "rabbitmq": guarded.set_broker}[service]
    consumer, poller = stage.start("consume"), stage.start("poll", "--every", "0.5")
    first, second = key_at(2 * number), key_at(2 * number + 1)
    try:
        stage.bucket.put(first, csv([ticket("INC0")]))
        stage.wait_for("done", first)
        wait_until(lambda: len(guarded.connections()) >= len((consumer, poller)), "the broker knows both")
        change(WRONG)
        stage.bucket.put(second, csv([ticket("INC1")]))
        wait_until(lambda: any(word in consumer.output() for word in TOLD), "it says what is wrong")
        assert consumer.running
        assert poller.running
        change(RIGHT)
        stage.wait_for("done", second)
    finally:
        change(RIGHT)
    consumer.stop()
    poller.stop()


AWAY = {
    "DATABASE_URL": ("postgresql://u:p@127.0.0.1:1/d", "postgres is not available", "127.0.0.1:1"),
    "RABBITMQ_URL": ("amqp://u:p@127.0.0.1:1/", "rabbitmq is not available", "127.0.0.1:1"),
    "RUSTFS_ENDPOINT": ("http://127.0.0.1:1", "the bucket's store is not available", "127.0.0.1:1"),
}


@pytest.mark.parametrize("setting", AWAY)
def test_what_is_away_is_told_with_host_and_port(guarded: Guarded, setting: str) -> None:
    given, told, where = AWAY[setting]
    guarded.stage.connection.execute("DELETE FROM ingest.heartbeats")  # of those that could not say that they end
    found = guarded.stage.json(guarded.stage.run("doctor", "--json", **{setting: given}))["findings"]
    (wrong,) = [one for one in found if one["level"] == "wrong" and one["about"] != "notifications"]
    assert told in wrong["found"]
    assert where in wrong["found"]


def test_a_server_of_another_language_is_understood(make_stage: MakeStage, tmp_path: Path) -> None:
    with private_postgres(tmp_path, language="de") as postgres, make_stage(postgres.url) as stage:
        stage.connection.execute("CREATE ROLE login LOGIN PASSWORD 'right'")
        stage.connection.execute("CREATE ROLE nobody")
        rules = Path(stage.one("SHOW hba_file"))
        rules.write_text(
            "host all login 127.0.0.1/32 scram-sha-256\nhost all elsewhere 127.0.0.1/32 reject\n" + rules.read_text()
        )
        stage.query("SELECT pg_reload_conf()")
        with pytest.raises(psycopg.OperationalError, match="Passwort"):
            psycopg.connect(address(postgres.url, "login", WRONG))
        other = urlsplit(postgres.url)._replace(path="/none").geturl()
        for url, told in (
            (address(postgres.url, "login", WRONG), "refuses this user or password"),
            (address(postgres.url, "nobody", ""), "refuses this user"),
            (address(postgres.url, "elsewhere", ""), "see its pg_hba.conf"),
            (other, "has no such database"),
        ):
            ended = stage.run("consume", DATABASE_URL=url)
            assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 2), ended.stderr
            assert f"DATABASE_URL: postgres at {place(url)} " in ended.stderr
            assert told in ended.stderr

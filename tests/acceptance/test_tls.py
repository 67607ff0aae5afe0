"""All three services by TLS: verified, or said in one line what is wrong; never anything in between."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from postgres import Postgres
from rabbitmq import RabbitMQ

from tests.doubles.certificates import Authority, TlsFront
from tests.stage.broker import FILES, Broker
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.private import private_postgres, private_rabbitmq
from tests.stage.stage import Stage, wait_until
from tests.stage.store import Bucket

CA = "FLEETTICKETS_CA_FILE"


@dataclass
class Secured:
    stage: Stage
    postgres: Postgres
    rabbitmq: RabbitMQ
    good: Authority
    stranger: Authority
    fronts: dict[str, int]
    """The ports of TLS in front of services: `store`, `management`, and with an expired certificate `… expired`."""

    @property
    def plain(self) -> dict[str, int]:
        """The ports at which the same services speak no TLS."""
        return {
            "store": _port(self.stage.services["RUSTFS_ENDPOINT"]),
            "rabbitmq": _port(self.rabbitmq.url),
        }


def _port(url: str) -> int:
    return urlsplit(url).port or 0


def database(host: str, port: int, **options: object) -> str:
    named = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://postgres@{host}:{port}/fleettickets?{named}"


@pytest.fixture(scope="module")
def secured(services: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    good, stranger = Authority(folder, "good"), Authority(folder, "stranger")
    ours, expired = good.certificate(), good.certificate(days=-1)
    with ExitStack() as opened:
        postgres = opened.enter_context(private_postgres(_room(folder, "postgres"), ours))
        rabbitmq = opened.enter_context(private_rabbitmq(_room(folder, "rabbitmq"), ours))
        management = rabbitmq.environment()["RABBITMQ_MANAGEMENT_URL"]
        fronts = {
            name: opened.enter_context(TlsFront(url, certificate)).port
            for name, url, certificate in (
                ("store", services["RUSTFS_ENDPOINT"], ours),
                ("store expired", services["RUSTFS_ENDPOINT"], expired),
                ("management", management, ours),
                ("rabbitmq expired", rabbitmq.url, expired),
            )
        }
        bucket = Bucket(services, f"acceptance-{uuid.uuid4().hex[:12]}")
        opened.callback(bucket.remove)
        stage = Stage(services, postgres.url, Broker(rabbitmq.url, management), bucket, _room(folder, "stage"))
        opened.callback(stage.close)
        stage.environment |= {
            "DATABASE_URL": database("localhost", _port(postgres.url), sslmode="verify-full"),
            "RABBITMQ_URL": f"amqps://guest:guest@localhost:{rabbitmq.tls_port}/",
            "RABBITMQ_MANAGEMENT_URL": f"https://localhost:{fronts['management']}",
            "RUSTFS_ENDPOINT": f"https://localhost:{fronts['store']}",
            CA: str(good.file),
        }
        yield Secured(stage, postgres, rabbitmq, good, stranger, fronts)


def _room(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_a_file_goes_all_the_way_by_tls_alone(secured: Secured) -> None:
    stage, key = secured.stage, key_at(0)
    consumer, poller = stage.start("consume"), stage.start("poll", "--every", "0.5")
    stage.bucket.put(key, csv([ticket("INC1", raw_status="Closed", closed_at="2026-06-01 09:00")]))
    stage.wait_for("done", key)
    stage.wait_for_history()
    by_tls = stage.query(
        """SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
           WHERE application_name LIKE 'fleettickets%%'"""
    )
    assert by_tls == [{"ssl": True}]
    connections = f"{stage.broker.management}/api/connections"

    def ours() -> dict[str, bool]:
        found = requests.get(connections, timeout=10).json()
        return {one["client_properties"].get("connection_name"): one["ssl"] for one in found if "ssl" in one}

    wait_until(lambda: ours().keys() >= {"fleettickets consumer", "fleettickets poller"}, "the broker counts both")
    assert all(by_tls for name, by_tls in ours().items() if name)
    poller.stop()
    consumer.stop()
    for command in (("status",), ("verify",), ("topology", "--check"), ("doctor", "--poller-only")):
        ended = stage.run(*command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    explicit = database("localhost", _port(secured.postgres.url), sslmode="verify-full", sslrootcert=secured.good.file)
    assert stage.run("migrate", "--status", DATABASE_URL=explicit, **{CA: ""}).returncode == 0


def troubles(secured: Secured) -> dict[str, dict[str, str]]:
    """What is set otherwise for each trouble."""
    postgres, broker, store = _port(secured.postgres.url), secured.rabbitmq.tls_port, secured.fronts["store"]
    plain, expired = secured.plain, secured.fronts
    stranger = {CA: str(secured.stranger.file)}
    return {
        "postgres unknown": stranger,
        "postgres name": {"DATABASE_URL": database("127.0.0.1", postgres, sslmode="verify-full")},
        "postgres plain": {"DATABASE_URL": f"{secured.stage.services['DATABASE_URL']}?sslmode=verify-full"},
        "rabbitmq unknown": stranger,
        "rabbitmq name": {"RABBITMQ_URL": f"amqps://guest:guest@127.0.0.1:{broker}/"},
        "rabbitmq expired": {"RABBITMQ_URL": f"amqps://guest:guest@localhost:{expired['rabbitmq expired']}/"},
        "rabbitmq plain": {"RABBITMQ_URL": f"amqps://guest:guest@localhost:{plain['rabbitmq']}/"},
        "store unknown": stranger,
        "store name": {"RUSTFS_ENDPOINT": f"https://127.0.0.1:{store}"},
        "store expired": {"RUSTFS_ENDPOINT": f"https://localhost:{expired['store expired']}"},
        "store plain": {"RUSTFS_ENDPOINT": f"https://localhost:{plain['store']}"},
        "management name": {"RABBITMQ_MANAGEMENT_URL": f"https://127.0.0.1:{secured.fronts['management']}"},
    }


COMMANDS = {
    "postgres": ("migrate",),
    "rabbitmq": ("topology",),
    "store": ("drain",),
    "management": ("topology", "--check"),
}
SETTINGS = {
    "postgres": "DATABASE_URL",
    "rabbitmq": "RABBITMQ_URL",
    "store": "RUSTFS_ENDPOINT",
    "management": "RABBITMQ_MANAGEMENT_URL",
}
TOLD = {
    "unknown": "not of a CA that is trusted here",
    "name": "is for another name",
    "expired": "has expired",
    "plain": "no TLS is spoken there",
}


@pytest.mark.parametrize(
    "trouble",
    [
        *(f"{service} {what}" for service in ("postgres", "rabbitmq", "store") for what in TOLD),
        "management name",
    ],
)
def test_whoever_cannot_be_verified_is_not_spoken_to(secured: Secured, trouble: str) -> None:
    service, _, what = trouble.partition(" ")
    changed = troubles(secured).get(trouble, {})
    if service == "store" and what == "unknown":
        # The database is asked first and would be the one that is not trusted.
        url = database("localhost", _port(secured.postgres.url), sslmode="verify-full", sslrootcert=secured.good.file)
        changed = {**changed, "DATABASE_URL": url}
    if trouble == "postgres expired":
        secured.postgres.certify(*secured.good.certificate(days=-1))
    try:
        ended = secured.stage.run(*COMMANDS[service], **changed)
    finally:
        if trouble == "postgres expired":
            secured.postgres.certify(*secured.good.certificate())
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert TOLD[what] in ended.stderr or (what == "expired" and TOLD["unknown"] in ended.stderr), ended.stderr
    setting = CA if what == "unknown" else SETTINGS[service]
    assert what == "expired" or setting in ended.stderr, ended.stderr


def test_a_consumer_waits_with_that_line_until_it_is_mended(secured: Secured) -> None:
    stage, key = secured.stage, key_at(10)
    strangers = secured.stranger.certificate()
    stage.bucket.put(key, csv([ticket("INC2")]))
    with TlsFront(stage.broker.url, strangers) as broker, TlsFront(stage.services["RUSTFS_ENDPOINT"], strangers) as s3:
        for setting, url in (
            ("RABBITMQ_URL", f"amqps://guest:guest@localhost:{broker.port}/"),
            ("RUSTFS_ENDPOINT", f"https://localhost:{s3.port}"),
        ):
            consumer = stage.start("consume", **{setting: url})
            wait_until(lambda of=consumer: TOLD["unknown"] in of.output(), "it says what is wrong")  # type: ignore[misc]
            assert consumer.running
            consumer.stop()
    secured.postgres.certify(*strangers)
    try:
        consumer = stage.start("consume")
        wait_until(lambda: TOLD["unknown"] in consumer.output(), "it says what is wrong")
    finally:
        secured.postgres.certify(*secured.good.certificate())
    assert stage.run("poll").returncode == 0
    stage.wait_for("done", key)
    consumer.stop()
    assert stage.broker.ready(FILES) == 0


@pytest.mark.parametrize(
    "url", ["{url}?ssl_options={{'protocol':5,'cafile':'{ca}'}}", "{url}?ssl_options={{'cafile':'/none'}}"]
)
def test_verification_cannot_be_switched_off_in_passing(secured: Secured, url: str) -> None:
    given = url.format(url=secured.stage.environment["RABBITMQ_URL"], ca=secured.good.file)
    ended = secured.stage.run("topology", RABBITMQ_URL=given)
    assert ended.returncode == 2
    assert ended.stderr.startswith("fleettickets: RABBITMQ_URL is wrong")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", [None, "no certificate\n"])
def test_a_ca_file_that_is_none_is_refused_before_anything_is_touched(
    secured: Secured, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    ended = secured.stage.run("poll", **{CA: str(file)})
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert CA in ended.stderr


def test_sqs_is_verified_too(secured: Secured, moto: int) -> None:
    stage = secured.stage
    with TlsFront(f"http://127.0.0.1:{moto}", secured.good.certificate()) as front:
        address = f"https://localhost:{front.port}"
        sqs = boto3.client(
            "sqs",
            endpoint_url=f"http://127.0.0.1:{moto}",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        sqs.create_queue(QueueName="tls")
        sqs.close()
        environment = {
            "FLEETTICKETS_SQS_ENDPOINT": address,
            "FLEETTICKETS_SQS_QUEUE_URL": f"{address}/123456789012/tls",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        taken = stage.run("sqs", "--once", **environment)
        assert taken.returncode == 0, taken.stderr
        elsewhere = environment | {"FLEETTICKETS_SQS_ENDPOINT": f"https://127.0.0.1:{front.port}"}
        refused = stage.run("sqs", "--once", **elsewhere)
        assert refused.returncode == 1
        assert TOLD["name"] in refused.stderr, refused.stderr
        assert len(refused.stderr.splitlines()) == 1

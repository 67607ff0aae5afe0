"""Containers: each service has its own login, no more settings than it reads, and reaches nobody else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from consumer.settings import (
    AlertSettings,
    ApiSettings,
    ApplySettings,
    ArchiveSettings,
    DatabaseSettings,
    FailureSettings,
    FeedsSettings,
    GazetteerSettings,
    GeocoderLimits,
    GeocoderSettings,
    HeartbeatSettings,
    HistorySettings,
    VerdictSettings,
)
from publisher.broker import broker_users
from publisher.settings import (
    BrokerSettings,
    BrokerUsersSettings,
    BucketSettings,
    LogSettings,
    SqsSettings,
    TracesSettings,
    WebhookSettings,
    WorkSettings,
    load,
)
from tests import compose
from tests.compose import ROOT, Missing

READS: dict[str, tuple[type[BaseSettings], ...]] = {
    "migrate": (DatabaseSettings, FeedsSettings),
    "broker-users": (BrokerUsersSettings,),
    "topology": (BrokerSettings,),
    "bucket": (BucketSettings, FeedsSettings),
    "consumer": (
        DatabaseSettings,
        BrokerSettings,
        BucketSettings,
        WorkSettings,
        ApplySettings,
        FailureSettings,
        FeedsSettings,
        HistorySettings,
        GeocoderSettings,
        GazetteerSettings,
        HeartbeatSettings,
        VerdictSettings,
        AlertSettings,
        ArchiveSettings,  # verify is asked there
    ),
    "poller": (
        BrokerSettings,
        BucketSettings,
        FeedsSettings,
        WorkSettings,
        DatabaseSettings,
        HeartbeatSettings,
        VerdictSettings,
        AlertSettings,
        GeocoderLimits,  # when the day's requests are used up
    ),
    "webhook": (BrokerSettings, WebhookSettings),
    "api": (DatabaseSettings, ApiSettings, FeedsSettings, HeartbeatSettings),
    "sqs": (BrokerSettings, SqsSettings),
}
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
HOLDERS = {
    "POSTGRES_PASSWORD": {"postgres", "migrate", "database-logins"},
    "POSTGRES_CONSUMER_PASSWORD": {"database-logins", "consumer"},
    "POSTGRES_READER_PASSWORD": {"database-logins", "poller", "api"},
    "RABBITMQ_PASSWORD": {"rabbitmq", "broker-users"},
    "RABBITMQ_STORE_PASSWORD": {"broker-users", "rustfs"},
    "RABBITMQ_PUBLISHER_PASSWORD": {"broker-users", "webhook", "sqs"},
    "RABBITMQ_POLLER_PASSWORD": {"broker-users", "poller"},
    "RABBITMQ_CONSUMER_PASSWORD": {"broker-users", "topology", "consumer"},
    "RUSTFS_SECRET_KEY": {"rustfs", "bucket", "consumer", "poller"},
    "GEOCODER_API_KEY": {"consumer"},
    "FLEETTICKETS_WEBHOOK_TOKEN": {"webhook"},
    "FLEETTICKETS_API_TOKENS": {"api"},
    "FLEETTICKETS_ALERT_URL": {"consumer", "poller"},
    "AWS_SECRET_ACCESS_KEY": {"sqs"},
}
NEIGHBOURS = {
    "postgres": {"migrate", "database-logins", "consumer", "poller", "api"},
    "rabbitmq": {"broker-users", "topology", "consumer", "poller", "rustfs", "webhook", "sqs"},
    "rustfs": {"rabbitmq", "bucket", "consumer", "poller"},
    "webhook": {"rabbitmq"},
    "api": {"postgres"},
    "sqs": {"rabbitmq"},
}
GIVEN = {name: f"{name.lower()}-of-the-test" for name in HOLDERS}
each_service = pytest.mark.parametrize("name", compose.services())


@each_service
def test_every_service_is_bounded_and_can_change_nothing_of_itself(name: str) -> None:
    service = compose.services()[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["networks"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@each_service
def test_what_a_service_says_fills_no_disk(name: str) -> None:
    assert compose.services()[name]["logging"] == {
        "driver": "json-file",
        "options": {"max-size": "10m", "max-file": "5"},
    }


@each_service
def test_what_stays_is_started_again_asked_how_it_is_and_told_to_end(name: str) -> None:
    service = compose.services()[name]
    waited_for = {
        how["condition"]
        for other in compose.services().values()
        for needed, how in other.get("depends_on", {}).items()
        if needed == name
    }
    if "restart" in service:
        assert service["restart"] == "unless-stopped"
        assert {"test", "interval", "timeout"} <= set(service["healthcheck"])
        assert re.fullmatch(r"\d+s", service["stop_grace_period"])
        assert waited_for <= {"service_healthy"}
    else:
        assert "healthcheck" not in service
        assert waited_for <= {"service_completed_successfully"}


@each_service
def test_an_image_of_others_is_one_and_stays_that(name: str) -> None:
    image = compose.interpolated(compose.services()[name]["image"], {})
    # PostGIS has no tags with a third number.
    assert image == "fleettickets" or re.fullmatch(r"postgis/postgis:\d+-\d\.\d|[\w/]+:\d+\.\d+\.\d+(-[\w.]+)?", image)


def test_our_image_is_made_from_one_that_stays_and_says_what_it_was_made_of() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^ARG PYTHON=(.+)$", text, re.MULTILINE) == ["python:3.12.13-slim-bookworm"]
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON}"}
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", text))
    assert {"title", "description", "version", "revision", "created"} <= labels
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["fleettickets"]


def test_the_wheel_is_built_by_what_development_builds_it_with() -> None:
    pinned = {
        name: set(re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / f"requirements-{name}.txt").read_text(), re.MULTILINE))
        for name in ("build", "dev")
    }
    assert pinned["build"] < pinned["dev"]
    assert any(line.startswith("hatchling==") for line in pinned["build"])


def _docker_compose() -> list[str] | None:
    """Whichever of the two there is, the plugin first."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(words[0])
            and subprocess.run([*words, "version"], check=False, capture_output=True).returncode == 0
        ):
            return words
    return None


def test_docker_compose_reads_it_with_what_make_env_made(folder: Path) -> None:
    docker_compose = _docker_compose()
    if docker_compose is None:
        pytest.skip("docker compose is not here; make compose-test has it")
    made(folder)
    files = [
        "--project-directory",
        str(folder),
        "--file",
        str(ROOT / "compose.yaml"),
        "--env-file",
        str(folder / ".env"),
    ]
    done = subprocess.run(
        [*docker_compose, *files, "config", "--services"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    profiles = {name for name, service in compose.services().items() if "profiles" in service}
    assert set(done.stdout.split()) | profiles == set(compose.services())


@pytest.mark.parametrize("secret", HOLDERS)
def test_a_secret_is_known_to_those_alone_who_need_it(secret: str) -> None:
    value = GIVEN[secret]
    holders = {name for name, found in compose.environments(GIVEN).items() if value in "".join(found.values())}
    assert holders == HOLDERS[secret]


def test_every_secret_is_looked_at() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|ALERT_URL")
    assert {name for name in compose.variables() if secret.search(name)} == set(HOLDERS)


@pytest.mark.parametrize("secret", [name for name in HOLDERS if name.endswith(("_PASSWORD", "_SECRET_KEY"))])
def test_nothing_starts_with_a_password_that_everybody_knows(secret: str) -> None:
    for value in ("", None):
        given = {name: known for name, known in GIVEN.items() if name != secret}
        if value is not None:
            given[secret] = value
        with pytest.raises(Missing, match="run make env"):
            compose.environments(given)


@pytest.mark.parametrize("name", READS)
def test_a_service_has_the_settings_that_its_command_reads_and_no_others(name: str) -> None:
    kinds: list[type[BaseSettings]] = [*READS[name], LogSettings, TracesSettings]
    read = {str(field.validation_alias) for kind in kinds for field in kind.model_fields.values()}
    has = set(compose.environment(name, GIVEN))
    assert has - (AWS if name == "sqs" else set()) <= read


def test_every_service_of_ours_is_looked_at() -> None:
    ours = {name for name, service in compose.services().items() if service["image"] == "fleettickets"}
    assert ours == set(READS)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_service_reaches_those_alone_that_it_has_to_do_with(name: str) -> None:
    on = {other: set(service["networks"]) for other, service in compose.services().items()}
    assert {other for other in on if other != name and on[other] & on[name]} == NEIGHBOURS[name]


def test_who_has_a_login_reaches_where_it_is_for() -> None:
    on = {name: set(service["networks"]) for name, service in compose.services().items()}
    for name, found in compose.environments(GIVEN).items():
        for host in re.findall(r"(?:@|//)(postgres|rabbitmq|rustfs):", str(found)):
            assert on[name] & on[host], (name, host)


def test_users_and_logins_are_those_that_are_made() -> None:
    made = (broker_users.STORE, broker_users.PUBLISHER, broker_users.POLLER, broker_users.CONSUMER)
    users = {user.name for user in made}
    assert set(re.findall(r"amqp://([\w-]+):", compose.text())) == users
    logins = set(re.findall(r"postgresql://(\w+):", compose.text()))
    given = set(re.findall(r"ALTER ROLE (\w+)", (ROOT / "sql" / "logins.sql").read_text()))
    assert logins == given | {"postgres"}


def test_the_broker_takes_no_message_that_fills_the_memory() -> None:
    arguments = compose.environment("rabbitmq", GIVEN)["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"].split()
    assert arguments == ["-rabbit", "max_message_size", str(16 * 1024**2)]


def test_every_variable_is_described() -> None:
    described = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert compose.variables() - AWS <= described


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def made(folder: Path) -> dict[str, str]:
    subprocess.run(["make", "env"], cwd=folder, check=True, capture_output=True)
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_make_env_gives_each_a_password_of_its_own_and_keeps_it(folder: Path) -> None:
    found = made(folder)
    ends = ("_PASSWORD", "RUSTFS_SECRET_KEY", "_TOKEN", "_TOKENS")
    passwords = [found[name] for name in HOLDERS if name.endswith(ends)]
    assert len(set(passwords)) == len(passwords) == 11
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    compose.environments(found)
    assert made(folder) == found


def test_make_env_adds_what_an_older_one_lacks(folder: Path) -> None:
    (folder / ".env").write_text("POSTGRES_PASSWORD=old\nRABBITMQ_PASSWORD=\nFLEETTICKETS_PREFIX=other/")
    found = made(folder)
    assert (found["POSTGRES_PASSWORD"], found["FLEETTICKETS_PREFIX"]) == ("old", "other/")
    assert found["RABBITMQ_PASSWORD"]
    assert made(folder) == found


def test_the_program_reaches_the_containers_with_what_make_env_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(folder)
    for name in (*found, "FLEETTICKETS_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    url = load(DatabaseSettings).database_url.get_secret_value()
    assert f"fleettickets_consumer:{found['POSTGRES_CONSUMER_PASSWORD']}@127.0.0.1:" in url
    url = load(BrokerSettings).rabbitmq_url.get_secret_value()
    assert f"fleettickets-consumer:{found['RABBITMQ_CONSUMER_PASSWORD']}@127.0.0.1:" in url
    assert load(BucketSettings).secret_key.get_secret_value() == found["RUSTFS_SECRET_KEY"]

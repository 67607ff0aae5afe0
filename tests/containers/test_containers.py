"""Image and compose.yaml, run for real: `make compose-test`, on stand-ins for the images of others (images.py)."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests import compose
from tests.containers.daemon import daemon
from tests.containers.deployment import ALWAYS, OURS, STAYS, Deployment
from tests.containers.images import LABELS
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
KINDS = {"service_healthy": "health_status: healthy", "service_completed_successfully": "die"}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Docker tells of the first start."""
    return tmp_path_factory.mktemp("account") / "events"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, account: Path) -> Iterator[Deployment]:
    with daemon() as docker:
        made = Deployment(docker, tmp_path_factory.mktemp("compose"))
        made.compose("down", "--volumes", "--remove-orphans")
        try:
            with made.watched(account):
                made.up()
                made.wait_until_well(*ALWAYS)
            yield made
        finally:
            for service in compose.services():
                for container in made.containers(service):
                    print(f"\n{service} {container['State']}\n{made.logs(container)[-2000:]}")  # noqa: T201
            made.compose("--profile", "api", "--profile", "webhook", "down", "--volumes", "--remove-orphans")


def change(key: str) -> bytes:
    """A file of one ticket, which no other file has."""
    return csv([ticket(f"INC{''.join(filter(str.isdigit, key))}")])


def put_and_wait(deployment: Deployment, *keys: str) -> None:
    for key in keys:
        deployment.put(key, change(key))
    wait_until(lambda: deployment.done(*keys), f"all are done: {keys}", 120)


@pytest.mark.usefixtures("deployment")
def test_each_starts_once_what_it_needs_is_there(account: Path) -> None:
    """By Docker's own account of what happened when."""
    began: dict[str, int] = {}
    reached: dict[tuple[str, str], int] = {}
    for event in map(json.loads, account.read_text().splitlines()):
        about = event.get("Actor", {}).get("Attributes", {})
        service = about.get("com.docker.compose.service")
        if event.get("Type") != "container" or service is None:
            continue
        if event["Action"] == "start":
            began.setdefault(service, event["timeNano"])
        for condition, action in KINDS.items():
            if event["Action"] == action and about.get("exitCode", "0") == "0":
                reached.setdefault((service, condition), event["timeNano"])
    needs = {
        (name, other, how["condition"])
        for name, service in compose.services().items()
        if name in began
        for other, how in service.get("depends_on", {}).items()
    }
    assert len(needs) >= 10
    assert {need for need in needs if began[need[0]] <= reached[need[1:]]} == set()


@pytest.mark.promise("Exactly once")
def test_a_file_becomes_rows(deployment: Deployment) -> None:
    key = key_at(0)
    put_and_wait(deployment, key)
    (row,) = deployment.query("SELECT decision, archive_key FROM ingest.ledger WHERE key = %s", key)
    assert row["decision"] == "new"
    assert row["archive_key"].startswith("automations/inc/processed/")
    assert len(deployment.query("SELECT FROM tickets.inc")) == 1


@pytest.mark.promise("Exactly once")
def test_three_consumers_share_the_files(deployment: Deployment) -> None:
    keys = [key_at(number) for number in range(100, 250)]
    put_and_wait(deployment, *keys)
    wait_until(lambda: len(hosts(deployment)) == 3, "three consumers say that they live")
    said = [deployment.logs(container).count('"event": "file"') for container in deployment.containers("consumer")]
    assert len(said) == 3
    assert min(said) > 0
    assert len(deployment.query("SELECT FROM tickets.inc")) == 151
    # What is left to the poller is at most what was just put when it looked.
    announced = deployment.query("SELECT FROM ingest.ledger WHERE first_seen_by = 'notification'")
    assert len(announced) > 75


def hosts(deployment: Deployment) -> set[str]:
    return {row["host"] for row in deployment.query("SELECT host FROM ingest.heartbeats WHERE kind = 'consumer'")}


def test_the_verdict_is_asked_in_a_container(deployment: Deployment) -> None:
    asked = deployment.program("status")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "FLOWING" in asked.stdout
    verified = deployment.program("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("service", ALWAYS)
def test_nothing_of_a_container_can_be_changed_from_inside(deployment: Deployment, service: str) -> None:
    for container in deployment.containers(service):
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        status = Path(f"/proc/{deployment.process(container)}/status").read_text()
        held = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert held["NoNewPrivs"] == "1"
        assert held["Uid"].split()[0] != "0", "it runs as root"
        if service in OURS:
            assert held["Uid"].split()[0] == "10001"
        if service in OURS or service == "rustfs":
            assert int(held["CapEff"], 16) == int(held["CapBnd"], 16) == 0
        written = deployment.docker.ended("/usr/bin/docker", "exec", container["Id"], "touch", "/usr/x")
        assert "Read-only file system" in written.stderr + written.stdout


def test_what_they_say_fills_no_disk(deployment: Deployment) -> None:
    for service in compose.services():
        for container in deployment.containers(service):
            kept = container["HostConfig"]["LogConfig"]
            assert (kept["Type"], kept["Config"]) == ("json-file", {"max-size": "10m", "max-file": "5"}), service


def test_nothing_is_reached_from_beyond_this_machine(deployment: Deployment) -> None:
    ports = {
        (service, port): {bound["HostIp"] for bound in where or ()}
        for service in ALWAYS
        for container in deployment.containers(service)
        for port, where in container["NetworkSettings"]["Ports"].items()
    }
    assert {bound for where in ports.values() for bound in where} == {"127.0.0.1"}
    # The address of this machine that somebody on its network would use.
    subprocess.run(["ip", "link", "add", "outside", "type", "veth", "peer", "name", "wall"], check=True)
    subprocess.run(["ip", "addr", "add", "198.51.100.1/24", "dev", "outside"], check=True)
    for end in ("outside", "wall"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    for port in (5432, 5672, 15672, 9000):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(OSError):  # noqa: PT011 - refused or not answered
            socket.create_connection(("198.51.100.1", port), timeout=5)


def test_no_login_that_everybody_knows_is_let_in(deployment: Deployment) -> None:
    for user, password in (("guest", "guest"), ("fleettickets", "fleettickets"), ("fleettickets", "")):
        answer = requests.get("http://127.0.0.1:15672/api/whoami", auth=(user, password), timeout=10)
        assert answer.status_code == 401, user
    for password in ("", "postgres", "fleettickets"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres:{password}@127.0.0.1:5432/fleettickets")
    assert deployment.given["RABBITMQ_PASSWORD"] != deployment.given["POSTGRES_PASSWORD"]


def test_the_image_says_what_it_was_made_of(deployment: Deployment) -> None:
    image = deployment.inspect("fleettickets")["Config"]
    assert image["User"] == "fleettickets"
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in image["Labels"].items() if name.startswith(prefix)}
    assert {name.upper(): labels[name] for name in ("version", "revision", "created")} == LABELS
    assert labels["title"] == "fleettickets"


@pytest.mark.promise("Nothing lost", "Exactly once")
@pytest.mark.parametrize(("number", "service"), list(enumerate(ALWAYS)))
def test_one_that_is_killed_under_load_comes_back_and_nothing_is_lost(
    deployment: Deployment, number: int, service: str
) -> None:
    first = 1000 * (number + 1)
    before, within = [[key_at(first + 100 * part + count) for count in range(20)] for part in range(2)]
    killed = {container["Id"]: container["RestartCount"] for container in deployment.containers(service)}
    for key in before:
        deployment.put(key, change(key))
    deployment.kill(service)
    for key in within:
        put_in_the_end(deployment, key)
    wait_until(lambda: deployment.done(*before, *within), "all are done", 240)
    deployment.wait_until_well(*ALWAYS)
    now = {container["Id"]: container["RestartCount"] for container in deployment.containers(service)}
    assert now == {name: count + 1 for name, count in killed.items()}
    assert deployment.query("SELECT FROM ingest.ledger WHERE key = ANY(%s) AND attempts > 0", before + within) == []
    verified = deployment.program("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def put_in_the_end(deployment: Deployment, key: str) -> None:
    """The exporter tries again while the store is away."""

    def is_put() -> bool:
        try:
            deployment.put(key, change(key))
        except Exception:  # noqa: BLE001 - whatever way it is away
            return False
        return True

    wait_until(is_put, f"{key} is put", 120)


@pytest.mark.promise("Nothing lost")
def test_all_are_stopped_within_their_grace_and_go_on_where_they_were(deployment: Deployment) -> None:
    keys = [key_at(number) for number in range(20_000, 20_120)]
    for key in keys:
        deployment.put(key, change(key))
    took: dict[str, float] = {}
    for service in ("consumer", "poller", "rustfs", "rabbitmq", "postgres"):
        began = time.monotonic()
        deployment.compose("stop", service)
        took[service] = time.monotonic() - began
    for service in ALWAYS:
        for container in deployment.containers(service):
            assert container["State"]["ExitCode"] == 0, (service, container["State"], took)
    deployment.up()
    deployment.wait_until_well(*ALWAYS)
    wait_until(lambda: deployment.done(*keys), "all are done", 240)
    assert deployment.query("SELECT FROM ingest.ledger WHERE attempts > 0") == []


def test_containers_made_anew_find_what_there_was(deployment: Deployment) -> None:
    (before,) = deployment.query("SELECT count(*) AS files FROM ingest.ledger WHERE state = 'done'")
    deployment.compose("down")
    deployment.up()
    deployment.wait_until_well(*ALWAYS)
    (after,) = deployment.query("SELECT count(*) AS files FROM ingest.ledger WHERE state = 'done'")
    assert after == before
    put_and_wait(deployment, key_at(30_000))
    assert deployment.program("verify").returncode == 0


def test_what_is_there_on_request_is_well_and_answers(deployment: Deployment) -> None:
    deployment.up("--profile", "api", "--profile", "webhook")
    deployment.wait_until_well("api", "webhook")
    assert {"api", "webhook"} < set(STAYS)
    token = {"Authorization": f"Bearer {deployment.given['FLEETTICKETS_API_TOKENS']}"}
    rows: dict[str, Any] = requests.get("http://127.0.0.1:8090/api/inc/map", headers=token, timeout=30).json()
    assert rows
    assert requests.get("http://127.0.0.1:8090/api/inc/map", timeout=30).status_code == 401
    token = {"Authorization": f"Bearer {deployment.given['FLEETTICKETS_WEBHOOK_TOKEN']}"}
    posted = requests.post("http://127.0.0.1:8080/", headers=token, json={"Event": "s3:TestEvent"}, timeout=30)
    assert posted.status_code == 200


def test_a_dump_is_restored_by_the_lines_of_the_page(deployment: Deployment, tmp_path: Path) -> None:
    first, second = key_at(900), key_at(901)
    put_and_wait(deployment, first)
    follow(deployment, "docker compose exec -T postgres pg_dump", tmp_path)
    put_and_wait(deployment, second)
    said = follow(deployment, "docker compose --profile api stop", tmp_path)
    assert "unrecorded:" in said
    assert said.rstrip().endswith("everything is accounted for")
    assert deployment.done(first, second)


def test_an_epoch_that_was_forgotten_is_made_up_for_by_the_lines_of_the_page(
    deployment: Deployment, tmp_path: Path
) -> None:
    put_and_wait(deployment, key_at(910))
    (tmp_path / "missed").mkdir()
    older = tmp_path / "missed" / key_at(1).rpartition("/")[2]
    older.write_bytes(change(key_at(910)).replace(b"open", b"closed"))
    assert b"closed" in older.read_bytes()
    follow(deployment, "chmod -R a+rX missed", tmp_path, page="cut-over.md")
    name = "INC" + "".join(filter(str.isdigit, key_at(910)))
    (row,) = deployment.query("SELECT normalized_status FROM tickets.inc WHERE ticket_id = %s", name)
    assert row["normalized_status"] == "closed"


def follow(deployment: Deployment, begins: str, folder: Path, page: str = "deployment-and-operations.md") -> str:
    """What is said by the block of a page that begins so; none of its lines may fail."""
    text = (compose.ROOT / "docs" / page).read_text()
    (block,) = re.findall(rf"^ *```sh\n( *{re.escape(begins)}.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return deployment.shell(block, folder)

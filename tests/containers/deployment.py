"""compose.yaml, run: its containers, and what an operator beside them can see."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psycopg
from botocore.config import Config
from psycopg.rows import dict_row

from tests.compose import ROOT, services
from tests.containers.daemon import Docker
from tests.stage.stage import wait_until

PROJECT = "fleettickets"
STAYS = tuple(name for name, service in services().items() if "restart" in service)
"""Services that run until they are told to stop; the others end by themselves."""
ALWAYS = tuple(name for name in STAYS if "profiles" not in services()[name])
OURS = tuple(name for name, service in services().items() if service["image"] == "fleettickets")


class Deployment:
    def __init__(self, docker: Docker, folder: Path) -> None:
        self.docker = docker
        for name in ("Makefile", ".env.example"):
            shutil.copy(ROOT / name, folder)
        subprocess.run(["make", "env"], cwd=folder, check=True, capture_output=True)
        self._env = folder / ".env"
        text = self._env.read_text()
        # Files of most tests name no more columns than they are about.
        self._env.write_text(text.replace("FLEETTICKETS_MISSING_COLUMNS=refuse", "FLEETTICKETS_MISSING_COLUMNS=allow"))
        lines = self._env.read_text().splitlines()
        self.given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def compose(self, *arguments: str, seconds: float = 600) -> str:
        """What it prints; Raises: DockerFailed."""
        return self.docker.run(
            "/usr/bin/docker-compose", "--project-directory", ROOT, "--file", ROOT / "compose.yaml",
            "--env-file", self._env, "--project-name", PROJECT, *arguments, seconds=seconds,
        )  # fmt: skip

    def shell(self, lines: str, folder: Path) -> str:
        """What lines of `docker compose …` print, in this folder; Raises: DockerFailed."""
        words = (
            "/usr/bin/docker-compose", "--project-directory", str(ROOT), "--file", str(ROOT / "compose.yaml"),
            "--env-file", str(self._env), "--project-name", PROJECT,
        )  # fmt: skip
        return self.docker.run(
            "sh", "-eux", "-c", f"cd {shlex.quote(str(folder))}\n" + lines.replace("docker compose", shlex.join(words))
        )

    def up(self, *arguments: str) -> None:
        self.compose(*arguments, "up", "--detach", "--no-build", "--scale", "consumer=3")

    def ids(self, service: str) -> list[str]:
        """Its containers, also those that have ended."""
        labels = (f"project={PROJECT}", f"service={service}")
        filters = [word for label in labels for word in ("--filter", f"label=com.docker.compose.{label}")]
        return self.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()

    def inspect(self, what: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", what))
        return found[0]

    def containers(self, service: str) -> list[dict[str, Any]]:
        return [self.inspect(name) for name in self.ids(service)]

    def process(self, container: dict[str, Any]) -> int:
        """The number of what the container is for, as this machine counts; not of the init before it."""
        first = int(container["State"]["Pid"])
        if not container["HostConfig"].get("Init"):
            return first
        (child,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return int(child)

    def logs(self, container: dict[str, Any]) -> str:
        ended = self.docker.ended("/usr/bin/docker", "logs", container["Id"])
        return ended.stdout + ended.stderr

    def kill(self, service: str) -> None:
        """As the kernel would that has no memory left: Docker is not told, and starts it again."""
        for container in self.containers(service):
            os.kill(container["State"]["Pid"], signal.SIGKILL)

    def wait_until_well(self, *names: str, seconds: float = 180) -> None:
        for name in names:
            wait_until(lambda name=name: self._is_well(name), f"{name} is well", seconds)  # type: ignore[misc]

    def _is_well(self, service: str) -> bool:
        states = [container["State"] for container in self.containers(service)]
        return bool(states) and all(state["Running"] and state["Health"]["Status"] == "healthy" for state in states)

    def program(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command in a container of the consumer's."""
        return self.docker.ended("/usr/bin/docker", "exec", self.ids("consumer")[0], "fleettickets", *arguments)

    def put(self, key: str, body: bytes) -> None:
        s3 = boto3.client(
            "s3", endpoint_url="http://127.0.0.1:9000", region_name=self.given["RUSTFS_REGION"],
            aws_access_key_id=self.given["RUSTFS_ACCESS_KEY"], aws_secret_access_key=self.given["RUSTFS_SECRET_KEY"],
            config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "total_max_attempts": 8}),
        )  # fmt: skip
        s3.put_object(Bucket=self.given["RUSTFS_BUCKET"], Key=key, Body=body)
        s3.close()

    def query(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """By the consumer's login, through the published port."""
        password = self.given["POSTGRES_CONSUMER_PASSWORD"]
        url = f"postgresql://fleettickets_consumer:{password}@127.0.0.1:5432/fleettickets?connect_timeout=5"
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def done(self, *keys: str) -> bool:
        try:
            (row,) = self.query(
                "SELECT count(*) AS files FROM ingest.ledger WHERE state = 'done' AND key = ANY(%s)", list(keys)
            )
        except psycopg.OperationalError:  # it has just been killed
            return False
        return int(row["files"]) == len(keys)

    @contextmanager
    def watched(self, file: Path) -> Iterator[None]:
        """Docker's account of what happens meanwhile goes to the file: the daemon itself forgets all but 256 events."""
        kinds = [word for kind in ("start", "die", "health_status") for word in ("--filter", f"event={kind}")]
        with file.open("wb") as out:
            watching = self.docker.begin("/usr/bin/docker", "events", "--format", "{{json .}}", *kinds, out=out)
        try:
            yield
        finally:
            watching.terminate()
            watching.wait()

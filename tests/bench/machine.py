"""On what the figures were taken: machine, services, ways and commit, as each of them tells of itself."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psycopg
import requests
from psycopg.rows import tuple_row

from tests.bench import competitor
from tests.bench.plain import client
from tests.conftest import ROOT
from tests.stage.commit import commit

_SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
_GB = 1 << 30


def told() -> Iterator[tuple[str, str]]:
    yield "commit", f"{commit()} of {_first_line('git', 'log', '-1', '--format=%cs')}"
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GB:.0f} GB"
    yield (
        "machine",
        f"{os.cpu_count()} cores, {_processor()}, {memory}, {platform.system()}",
    )
    yield "load when it began", f"{os.getloadavg()[0]:.1f}; all services and contenders are on this machine"
    yield "PostgreSQL", _postgres(os.environ["DATABASE_URL"])
    yield "RabbitMQ", _rabbitmq(os.environ.get("RABBITMQ_MANAGEMENT_URL"))
    yield "store", _store()
    libraries = ("psycopg", "boto3", "pika")
    yield "consumer", ", ".join([f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in libraries)])
    yield (
        "competitors",
        f"{_first_line('psql', '--version')}; least script: as the consumer; dlt {competitor.version()}",
    )


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _postgres(url: str) -> str:
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [list(_SETTINGS)]
        )
        found: dict[str, str] = dict(rows.fetchall())
    return ", ".join([found["server_version"], *(f"{name} {found[name]}" for name in _SETTINGS[1:])])


def _rabbitmq(management: str | None) -> str:
    if management is None:
        return "tells its version by its management API alone, which is not given"
    answer = requests.get(f"{management}/api/overview", timeout=10)
    answer.raise_for_status()
    told = answer.json()
    return f"{told['rabbitmq_version']}, Erlang {told['erlang_version']}, one node, quorum queues"


def _store() -> str:
    """The gateway of our own stack has its version on the command line alone."""
    answer = client().list_buckets()["ResponseMetadata"]["HTTPHeaders"]
    if "EXPORTER_ENDPOINT" in os.environ and shutil.which("radosgw"):
        return re.sub(r"\s*\(.*?\)", "", _first_line("radosgw", "--version"), count=1)
    return answer.get("server", "tells no name")


def _first_line(*command: str) -> str:
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return ended.stdout.splitlines()[0]

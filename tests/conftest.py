"""Where the services are, and a fresh database for each test."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

from tests.doubles.aws import moto_server
from tests.stage.database import fresh_database
from tests.stage.program import Forked

ROOT = Path(__file__).parents[1]
LONGEST = (
    "test_whose_fault.py",
    "test_hostile.py",
    "test_sqs.py",
    "test_everything_fails.py",
    "test_geocoding.py",
    "test_poller.py",
    "test_postgres_faults.py",
    "test_soak.py",
    "test_secrets.py",
    "test_order_and_duplicates.py",
)
NEEDED = ("DATABASE_URL", "RABBITMQ_URL", "RUSTFS_ENDPOINT", "RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY")

# How long an example takes says how busy the machine is. In CI Hypothesis has further settings, which stay.
settings.register_profile("busy", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_xdist_auto_num_workers() -> int:
    """Five, since much is waiting; but one on a broker on which no virtual host can be made for each."""
    shared = "RABBITMQ_URL" in os.environ and "RABBITMQ_MANAGEMENT_URL" not in os.environ
    return 1 if shared else 5


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that nobody waits for one of them alone in the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as properties: what they print themselves is shown of failed ones only."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    told = [report for report in reports if report.when == "call" and report.user_properties]
    if told:
        terminalreporter.section("figures")
    for report in told:
        figures = ", ".join(f"{name} {value}" for name, value in report.user_properties)
        terminalreporter.line(f"{report.nodeid}: {figures}")


@dataclass(frozen=True)
class Database:
    """A database of one test; `url` is what DATABASE_URL would be."""

    url: str


@pytest.fixture(scope="session")
def services() -> dict[str, str]:
    """The settings of running services: from the environment, or from what `make up` started."""
    found = {}
    started = ROOT / ".local" / "env"
    if started.exists():
        found = dict(line.split("=", 1) for line in started.read_text().splitlines() if "=" in line)
    if os.environ.get("RUSTFS_ENDPOINT", found.get("RUSTFS_ENDPOINT")) != found.get("RUSTFS_ENDPOINT"):
        found.pop("EXPORTER_ENDPOINT", None)  # it belongs to the other store
    found |= {name: value for name, value in os.environ.items() if name in found or name in NEEDED}
    missing = [name for name in NEEDED if not found.get(name)]
    if missing:
        pytest.fail(f"no services to test against ({', '.join(missing)} not set): make test, or make up before pytest")
    return found


@pytest.fixture(scope="session")
def _template(services: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database to copy, since copying takes a tenth of migrating."""
    folder = tmp_path_factory.mktemp("migrate")
    with fresh_database(services["DATABASE_URL"]) as url:
        migrating = Forked(["migrate"], {**os.environ, "DATABASE_URL": url}, folder, folder / "out", folder / "out")
        assert migrating.wait(60) == 0, (folder / "out").read_text()
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
def database(services: dict[str, str], _template: str) -> Iterator[Database]:
    """A fresh database at the current schema."""
    with fresh_database(services["DATABASE_URL"], _template) as url:
        yield Database(url)


@pytest.fixture
def empty_database(services: dict[str, str]) -> Iterator[Database]:
    """A fresh database without any schema of ours."""
    with fresh_database(services["DATABASE_URL"]) as url:
        yield Database(url)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of moto's S3, SNS and SQS."""
    with moto_server(tmp_path_factory.mktemp("moto")) as port:
        yield port

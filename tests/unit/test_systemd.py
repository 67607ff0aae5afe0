"""The units of docs/systemd: systemd takes them, they leave a service little to do harm with, and run what there is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_pages import wrong_with

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "docs" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
PROGRAM = "/opt/fleettickets/bin/fleettickets"
SECURITY = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager"]
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
each_service = pytest.mark.parametrize("name", SERVICES)
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here: apt-get install systemd")


def instance(name: str) -> str:
    return name.replace("@.", "@1.")


def sections(name: str) -> dict[str, str]:
    """The last value of each setting, as systemd reads the unit and then what all have in common."""
    text = (UNITS / name).read_text() + (UNITS / "fleettickets-.service.d" / "hardening.conf").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with the units and the program, as far as systemd looks."""
    shutil.copytree(UNITS, tmp_path / "etc" / "systemd" / "system")
    program = tmp_path / PROGRAM.lstrip("/")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


@needs_systemd
@each_service
def test_a_service_can_do_little_harm(root: Path, name: str) -> None:
    asked = subprocess.run([*SECURITY, f"--root={root}", instance(name)], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert re.search(r"Overall exposure level .*: [01]\.\d", asked.stdout)


@needs_systemd
def test_without_what_they_have_in_common_they_could_do_much(root: Path) -> None:
    shutil.rmtree(root / "etc" / "systemd" / "system" / "fleettickets-.service.d")
    asked = subprocess.run(
        [*SECURITY, f"--root={root}", "fleettickets-api.service"], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 1, asked.stdout


@needs_systemd
def test_systemd_takes_every_unit(root: Path) -> None:
    names = [instance(path.name) for path in UNITS.iterdir() if path.is_file()]
    asked = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", f"--root={root}", *names],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in asked.stderr.splitlines() if "fleettickets" in line and "not found" not in line]
    assert ours == [], asked.stderr


@needs_systemd
@pytest.mark.parametrize("timer", sorted(path.name for path in UNITS.glob("*.timer")))
def test_a_timer_means_the_time_of_nairobi(timer: str) -> None:
    when = re.search(r"^OnCalendar=(.+)$", (UNITS / timer).read_text(), re.MULTILINE)
    assert when is not None
    assert when[1].endswith(" Africa/Nairobi")
    subprocess.run(["systemd-analyze", "calendar", when[1]], check=True, capture_output=True)
    assert (UNITS / timer.replace(".timer", ".service")).exists()


@each_service
def test_a_service_runs_a_command_that_there_is(name: str) -> None:
    program, *words = sections(name)["ExecStart"].replace("%i", "1").split()
    assert program == PROGRAM
    assert wrong_with(["fleettickets", *words]) is None


def test_a_drain_captures_the_history_which_no_consumer_does() -> None:
    program, *words = sections("fleettickets-drain.service")["ExecStopPost"].split()
    assert (program, words[0], wrong_with(["fleettickets", *words])) == (PROGRAM, "capture-history", None)


@each_service
def test_what_runs_for_long_is_watched_and_what_ends_is_not(name: str) -> None:
    found = sections(name)
    is_timed = (UNITS / name.replace(".service", ".timer")).exists()
    assert found["Type"] == ("oneshot" if is_timed else "notify")
    assert ("WatchdogSec" in found, "Restart" in found) == (not is_timed, not is_timed)
    assert "MemoryMax" in found


def test_no_two_services_of_a_host_want_the_same_port() -> None:
    ports = [port for name in SERVICES for port in re.findall(r"--metrics (\d+)", sections(name)["ExecStart"])]
    assert len(set(ports)) == len(ports) > 1

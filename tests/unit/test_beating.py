"""Without a database to beat into, or with a wrong address of one, a process works on as always."""

from pathlib import Path

import pytest
import structlog

from consumer.commands.beating import beating
from publisher.heartbeat import ProcessKind, Pulse


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


def lines_of_beating() -> list[str]:
    with structlog.testing.capture_logs() as lines, beating(ProcessKind.WEBHOOK, Pulse()):
        pass
    return [line["detail"] for line in lines]


def test_without_a_database_nothing_is_said() -> None:
    assert lines_of_beating() == []


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_URL", "mysql://h/d"), ("FLEETTICKETS_HEARTBEAT_SECONDS", "often")]
)
def test_a_setting_that_is_wrong_is_told_once_and_is_no_reason_to_end(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv(name, value)
    (told,) = lines_of_beating()
    assert name in told


def test_a_database_that_is_away_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/d")
    (told,) = lines_of_beating()
    assert told.startswith("DatabaseDown: postgres is not available")

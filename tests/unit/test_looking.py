"""What a long-running command says of its settings, and where settings are loaded."""

import ast
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from pydantic_settings import BaseSettings

import consumer.settings
import publisher.settings
from publisher.settings import load, log_settings

ROOT = Path(__file__).parents[2]
GROUPS = sorted(
    {
        kind
        for module in (publisher.settings, consumer.settings)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, BaseSettings) and kind is not BaseSettings
    },
    key=lambda kind: kind.__name__,
)
LOGIN = "keeper:Zpass1%40Ypass2@h:1"
URLS = {
    "DATABASE_URL": "postgresql",
    "RABBITMQ_URL": "amqp",
    "RABBITMQ_MANAGEMENT_URL": "http",
    "FLEETTICKETS_ALERT_URL": "https",
}


def given(kind: type[BaseSettings]) -> BaseSettings:
    """With a secret in every setting that can hold one."""
    values: dict[str, object] = {
        "endpoint": "http://h:1", "access_key": "Zkey1", "queue_url": f"http://{LOGIN}/1/name?p=Zquery1",
    }  # fmt: skip
    for name, field in kind.model_fields.items():
        if SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ())):
            scheme = URLS.get(str(field.validation_alias))
            query = "?sslpassword=Zquery1" if scheme == "postgresql" else "?p=Zquery1"
            values[name] = f"{scheme}://{LOGIN}/d{query}" if scheme else "Zsecret1-of-the-test"
    return load(kind, **{name: value for name, value in values.items() if name in kind.model_fields})


@pytest.mark.parametrize("kind", GROUPS)
def test_no_secret_of_any_setting_is_logged(kind: type[BaseSettings]) -> None:
    with structlog.testing.capture_logs() as lines:
        log_settings(given(kind))
    (line,) = lines
    shown = str(line)
    assert not [word for word in ("Zpass1", "Ypass2", "Zquery1", "Zsecret1", "Zkey1") if word in shown]
    assert set(line[kind.__name__.removesuffix("Settings").lower()]) == set(kind.model_fields)


def test_of_a_url_all_but_its_password_is_logged() -> None:
    with structlog.testing.capture_logs() as lines:
        log_settings(given(publisher.settings.BrokerSettings))
    assert lines[0]["broker"]["rabbitmq_url"] == "amqp://keeper:***@h:1/d?***"


def test_settings_are_loaded_in_commands_only() -> None:
    loading = {
        path.relative_to(ROOT).as_posix()
        for room in ("consumer", "publisher")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module == "publisher.settings"
        and "load" in {alias.name for alias in node.names}
    }
    # How much is logged, every command is told by the program.
    allowed = ("consumer/commands/", "publisher/commands/", "consumer/demo/", "publisher/program.py")
    assert loading
    assert sorted(path for path in loading if not path.startswith(allowed)) == []

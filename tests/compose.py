"""compose.yaml, read as Docker reads it."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")

Service = dict[str, Any]

BROKER_PASSWORDS = {
    f"RABBITMQ_{user}_PASSWORD": f"of-the-{user.lower()}" for user in ("STORE", "PUBLISHER", "POLLER", "CONSUMER")
}
"""For every test: the broker's users belong to the whole server, and other tests may use them at the same time."""


class Missing(Exception):
    """Docker would refuse to start for want of this variable."""


@cache
def text() -> str:
    return (ROOT / "compose.yaml").read_text()


@cache
def whole() -> dict[str, Any]:
    return dict(yaml.safe_load(text()))


def services() -> dict[str, Service]:
    return dict(whole()["services"])


def variables() -> set[str]:
    """Every variable that it reads."""
    return {found[1] for found in _VARIABLE.finditer(text())}


def interpolated(value: str, given: Mapping[str, str]) -> str:
    """A value with its variables filled in.

    Raises: Missing.
    """

    def fill(found: re.Match[str]) -> str:
        name, how, other = found.groups()
        if given.get(name):
            return given[name]
        if how == "?":
            raise Missing(name, other)
        return other or ""

    return _VARIABLE.sub(fill, value)


def environments(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """That of every service.

    Raises: Missing.
    """
    return {name: environment(name, given) for name in services()}


def environment(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """What the service's process has in its environment.

    Raises: Missing.
    """
    found = services()[service].get("environment", {})
    return {name: interpolated(str(value), given) for name, value in found.items()}

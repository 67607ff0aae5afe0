"""The services that the demo runs on: those that the environment names, and the checkout's own for the rest."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consumer.demo import children
from consumer.demo.children import CODE, DemoFailed
from publisher.errors import Misconfigured

STACK = CODE / "tests" / "stack" / "stack.py"
_NEEDED = ("DATABASE_URL", "RABBITMQ_URL", "RUSTFS_ENDPOINT")
_WITH = {
    "RABBITMQ_URL": ("RABBITMQ_MANAGEMENT_URL",),
    "RUSTFS_ENDPOINT": ("RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY", "RUSTFS_REGION"),
}
_UP_SECONDS, _DOWN_SECONDS = 120, 60


@dataclass(frozen=True, slots=True)
class Services:
    """`environment` has the settings that name them; `started` those that this demo has to stop."""

    environment: dict[str, str]
    started: tuple[str, ...] = ()


@contextmanager
def running(log: Path, *, keep: bool) -> Iterator[Services]:
    """Services for the length of the block. What was up before stays up, and with `keep` what was started as well.

    Raises: Misconfigured, DemoFailed.
    """
    given = _given()
    if not missing():
        yield Services(given)
        return
    if not STACK.exists():
        raise Misconfigured(
            f"set {', '.join(missing())} (and what they need, see fleettickets --help): "
            "only a checkout of the source can start services of its own"
        )
    answer = json.loads(_stack("up", "--json", log=log, seconds=_UP_SECONDS))
    services = Services(answer["environment"] | given, tuple(answer["started"]))
    try:
        yield services
    finally:
        children.no_more_interruptions()
        if services.started and not keep:
            _stack("down", *services.started, log=log, seconds=_DOWN_SECONDS)


def missing() -> list[str]:
    """Name the variables of services that the environment does not give."""
    return [name for name in _NEEDED if not os.environ.get(name)]


def _given() -> dict[str, str]:
    names = [name for needed in _NEEDED if needed not in missing() for name in (needed, *_WITH.get(needed, ()))]
    return {name: os.environ[name] for name in names if name in os.environ}


def _stack(*arguments: str, log: Path, seconds: float) -> bytes:
    """Give what the stack's script prints; interrupted, it takes back what it has begun."""
    with log.open("ab") as errors:
        process = children.popen([sys.executable, str(STACK), *arguments], {}, subprocess.PIPE, errors, log.parent)
    child = children.Child(f"{STACK.name} {arguments[0]}", process, log)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{child.name} took more than {seconds:.0f} s (see {log})") from None
    finally:
        children.stop([child])
    if process.returncode:
        child.require_alive()
    return output

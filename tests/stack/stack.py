"""PostgreSQL, RabbitMQ and an S3 store of this checkout's own, for tests and the demo.

    stack.py install | up [--json] | mqtt | down [SERVICE...] | status | env [--json] | run COMMAND...

They listen on loopback and keep everything under .local/. A service whose variable (DATABASE_URL,
RABBITMQ_URL, RUSTFS_ENDPOINT) is set in the environment is not started: the given one is used.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import packages
from processes import StackError
from services import Services, given, say

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="the Debian packages that are missing")
    commands.add_parser("up", help="start what is not up").add_argument("--json", action="store_true")
    commands.add_parser("mqtt", help="have our own RabbitMQ speak MQTT as well, and print where")
    commands.add_parser("down", help="stop and forget; all, or those named").add_argument("service", nargs="*")
    commands.add_parser("status", help="one line each; exit status 0 when all answer")
    commands.add_parser("env", help="their addresses, to be evaluated by a shell").add_argument(
        "--json", action="store_true"
    )
    commands.add_parser("run", help="up, COMMAND, down").add_argument("argv", nargs=argparse.REMAINDER)
    asked = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    services = Services(ROOT)
    match asked.command:
        case "install":
            services.install()
        case "up":
            started = services.up()
            if asked.json:
                _print(json.dumps({"started": started, "environment": services.environment()}))
        case "mqtt":
            services.mqtt()
            _print(services.environment()["RABBITMQ_MQTT_URL"])
        case "down":
            if unknown := set(asked.service) - services.names:
                parser.error(f"no such service: {' '.join(sorted(unknown))}")
            services.down(asked.service)
        case "status":
            return _status(services)
        case "env":
            return _env(services, as_json=asked.json)
        case "run":
            return _run(services, asked.argv)
    return 0


def _status(services: Services) -> int:
    states = services.status()
    for service, up, address in states:
        origin = f" (given by {service.variable})" if given(service) else ""
        _print(f"{service.name:10} {'up' if up else 'down':5} {address}{origin}")
    return 0 if all(up for _, up, _ in states) else 1


def _env(services: Services, *, as_json: bool) -> int:
    environment = services.environment()
    if not environment:
        say("stack", "is not up")
        return 1
    _print(json.dumps(environment) if as_json else _exports(environment))
    return 0


def _run(services: Services, command: list[str]) -> int:
    """Give the exit status of `command`, run with the services up; stop what had to be started."""
    started = services.up()
    try:
        child = subprocess.Popen(command, env={**os.environ, **services.environment()})
        return _wait(child, lambda: services.revive(started))
    finally:
        for interruption in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(interruption, signal.SIG_IGN)
        if started:
            services.down(started)


def _wait(child: subprocess.Popen[bytes], each_second: Callable[[], None]) -> int:
    while True:
        try:
            status = child.wait(1)
            return status if status >= 0 else 128 - status
        except subprocess.TimeoutExpired:
            each_second()
        except KeyboardInterrupt:
            # The terminal told the child as well.
            continue
        except SystemExit:
            # Not SIGTERM: pytest tears its fixtures down on an interrupt only.
            child.send_signal(signal.SIGINT)


def _exports(environment: dict[str, str]) -> str:
    quoted = {name: "'" + value.replace("'", "'\\''") + "'" for name, value in environment.items()}
    return "\n".join(f"export {name}={value}" for name, value in quoted.items())


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        say("stack", str(error))
        sys.exit(1)
    except packages.InstallError as error:
        say("install", str(error))
        sys.exit(2)
    except PermissionError as error:
        say("stack", f"something here belongs to another user: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

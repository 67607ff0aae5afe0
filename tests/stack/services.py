"""The services of one checkout together: started at once, stopped, asked."""

import contextlib
import fcntl
import os
import socket
import sys
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Protocol

import packages
import place
from ceph import Ceph
from place import Place
from postgres import Postgres
from processes import StackError
from rabbitmq import RabbitMQ

_OF_TESTS = {
    "prometheus": Path("/usr/bin/prometheus"),
    # What an operator's host has, and looks at what is in docs/ for it.
    "systemd": Path("/usr/bin/systemd-analyze"),
    "logrotate": Path("/usr/sbin/logrotate"),
    "shellcheck": Path("/usr/bin/shellcheck"),
}


class Service(Protocol):
    name: str
    variable: str
    packages: ClassVar[dict[str, Path]]
    """Debian package -> a file that is there when it is installed."""

    @property
    def url(self) -> str: ...
    def environment(self) -> dict[str, str]: ...
    def running(self) -> bool:
        """Whether all its processes live."""

    def answers(self) -> bool: ...
    def start(self) -> None:
        """Return when it answers; take up the state that is there, where that can be."""

    def stop(self) -> None:
        """End its processes, started to the end or not, and remove its state."""


class Services:
    def __init__(self, root: Path) -> None:
        self._use(place.remembered(root))

    @property
    def names(self) -> set[str]:
        return {service.name for service in self._services}

    def install(self) -> None:
        began = time.monotonic()
        if missing := packages.install(self._packages()):
            say("install", f"{' '.join(missing)} in {time.monotonic() - began:.0f} s")

    def up(self) -> list[str]:
        """Start what does not answer, all at once; give the names of what was started.

        When one of them does not come up, none of them stays.
        """
        if missing := packages.missing_of(self._packages()):
            raise packages.InstallError(f"not installed: {' '.join(missing)}; run: {sys.argv[0]} install")
        with self._locked():
            if not any(service.running() for service in self._services):
                # After a crash or a reboot: a store in memory is empty, so the others begin anew with it.
                _stop(self._services)
                self._use(place.settle(self.place))
            self.place.logs.mkdir(exist_ok=True)
            down = [service for service in self._own() if not (service.running() and service.answers())]
            for service in self._services:
                if service not in down:
                    say(service.name, f"given by {service.variable}" if given(service) else "is up")
            if errors := self._start(down):
                _stop(down)
                for name, error in errors.items():
                    _explain(name, error)
                raise SystemExit(1)
            self._write_environment()
            return [service.name for service in down]

    def revive(self, names: list[str]) -> None:
        """Start again what ended by itself, as a supervisor would; its state stays, where that can be."""
        with self._locked():
            for service in self._services:
                if service.name in names and not service.running():
                    with contextlib.suppress(StackError):  # the next second is another chance
                        service.start()
                    say(service.name, "ended by itself, and was started again")

    def mqtt(self) -> None:
        """Have our own RabbitMQ, which has to be up, speak MQTT, and write down where.

        Raises: StackError.
        """
        if given(self._rabbitmq) or not self._rabbitmq.running():
            raise StackError("no RabbitMQ of our own is up")
        with self._locked():
            began = time.monotonic()
            self._rabbitmq.enable_mqtt()
            self._write_environment()
            say(self._rabbitmq.name, f"speaks MQTT after {time.monotonic() - began:.1f} s")

    def down(self, names: list[str]) -> None:
        with self._locked():
            for service in self._services:
                if not names or service.name in names:
                    began, ran = time.monotonic(), service.running()
                    service.stop()
                    if ran:
                        say(service.name, f"stopped in {time.monotonic() - began:.1f} s")
            if not any(service.running() for service in self._services):
                self._environment_file.unlink(missing_ok=True)

    def status(self) -> list[tuple[Service, bool, str]]:
        """Give each service, whether it answers, and where it is."""
        return [(service, _reachable(service), _address(service)) for service in self._services]

    def environment(self) -> dict[str, str]:
        """Read what the last `up` wrote; empty when there was none."""
        try:
            lines = self._environment_file.read_text().splitlines()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in lines)

    def _use(self, chosen: Place) -> None:
        self.place = chosen
        self._rabbitmq = RabbitMQ(chosen)
        self._services: list[Service] = [Postgres(chosen), self._rabbitmq, Ceph(chosen)]

    def _own(self) -> list[Service]:
        return [service for service in self._services if not given(service)]

    def _packages(self) -> dict[str, Path]:
        """Of the services, and of what only tests start."""
        return _OF_TESTS | {name: file for service in self._own() for name, file in service.packages.items()}

    def _start(self, services: list[Service]) -> dict[str, StackError]:
        """Give what did not come up, and why."""
        errors: dict[str, StackError] = {}

        def start(service: Service) -> None:
            began = time.monotonic()
            self.place.log(service.name).write_bytes(b"")
            if service.running():
                # It lives and does not answer.
                service.stop()
            try:
                service.start()
            except StackError as error:
                errors[service.name] = error
            else:
                say(service.name, f"up in {time.monotonic() - began:.1f} s")

        try:
            with ThreadPoolExecutor(max_workers=len(self._services)) as pool:
                try:
                    for outcome in [pool.submit(start, service) for service in services]:
                        outcome.result()
                except BaseException:
                    # The threads end soon, each because its processes are gone.
                    _stop(services)
                    raise
        except BaseException:
            _stop(services)
            raise
        return errors

    def _write_environment(self) -> None:
        values: dict[str, str] = {}
        for service in self._services:
            own = service.environment()
            values |= {name: os.environ[name] for name in own if name in os.environ} if given(service) else own
        draft = self._environment_file.with_suffix(".new")
        draft.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        draft.replace(self._environment_file)

    @property
    def _environment_file(self) -> Path:
        return self.place.local / "env"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.place.local.mkdir(exist_ok=True)
        with (self.place.local / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("stack", "waits for another up or down")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def given(service: Service) -> bool:
    """Whether the environment names a service of somebody else's; the output of `env` names our own."""
    return os.environ.get(service.variable) not in (None, "", service.url)


def _address(service: Service) -> str:
    url = urllib.parse.urlsplit(os.environ[service.variable] if given(service) else service.url)
    return f"{url.hostname}:{url.port}"


def _reachable(service: Service) -> bool:
    if not given(service):
        return service.running() and service.answers()
    host, _, port = _address(service).rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, ValueError):
        return False
    return True


def _stop(services: list[Service]) -> None:
    for service in services:
        service.stop()


def _explain(name: str, error: StackError) -> None:
    say(name, f"did not come up: {error}")
    if error.log is not None and error.log.exists():
        tail = error.log.read_text(errors="replace").splitlines()[-20:]
        sys.stderr.write("".join(f"  {line}\n" for line in [*tail, f"(the end of {error.log})"]))


def say(name: str, what: str) -> None:
    sys.stderr.write(f"{name:10} {what}\n")
    sys.stderr.flush()

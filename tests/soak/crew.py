"""The running components, to be killed and started again by name; and the proxies between program and services."""

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

from processes import StackError
from services import Service

from tests.doubles.proxy import Proxy
from tests.doubles.receiver import Receiver, free_port
from tests.soak.plan import Fault
from tests.stage.ending import end_crew
from tests.stage.private import PrivateStack
from tests.stage.stage import Process, Stage, wait_until

CONSUMERS = 3


class Crew:
    """One thread makes the faults; another may ask `revive`, which is what a supervisor would do."""

    def __init__(self, stage: Stage, stack: PrivateStack, proxies: dict[str, Proxy]) -> None:
        self._stage = stage
        self._stack = stack
        self._proxies = proxies
        self._lock = threading.Lock()
        self._running: dict[str, Process] = {}
        self._away: set[str] = set()
        self._receiver_port = free_port()
        self.receiver: Receiver | None = None
        self.kills: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()
        self.stalls: Counter[str] = Counter()
        self.crashes = 0
        """Of the gateway, without being killed: Ceph 16 sometimes does when the broker goes away under it."""
        self.ended: list[str] = []
        """What else ended without being killed; nothing of it may."""

    def start_all(self) -> None:
        for name in self._members():
            self._start(name)
        first = self._running["consumer 0"]
        wait_until(lambda: "consuming" in first.output(), "a consumer is there")

    def make(self, fault: Fault) -> None:
        """Do it, wait, and undo it; Raises: StackError, when a service does not come back."""
        targets = [f"consumer {fault.number % CONSUMERS}" if name == "consumer" else name for name in fault.targets]
        for name, kind in zip(targets, fault.targets, strict=True):
            match fault.how:
                case "kill":
                    self._kill(name)
                    self.kills[kind] += 1
                case "cut":
                    self._proxies[name].cut()
                    self.cuts[kind] += 1
                case "stall":
                    self._proxies[name].stall()
                    self.stalls[kind] += 1
        if fault.how == "cut":
            return
        time.sleep(fault.pause)
        for name in targets:
            if fault.how == "stall":
                self._proxies[name].restore()
            else:
                self._start(name)

    def revive(self) -> None:
        with self._lock:
            for name, process in list(self._running.items()):
                if name not in self._away and not process.running:
                    self.ended.append(f"{name} ended by itself with {process.wait()}: {process.log.name}")
                    self._start(name)
            if "gateway" not in self._away and not self._stack.ceph.running():
                self.crashes += 1
                self._start("gateway")

    def away(self) -> str:
        return ", ".join(sorted(self._away)) or "nothing"

    def stop(self) -> Iterator[str]:
        """In an orderly way; give what does not end well.

        The poller goes on offering the files of dead letters, so the consumers end when it has, with nothing left.
        """
        with self._lock:
            consumers = {name: process for name, process in self._running.items() if name.startswith("consumer")}
            others = {name: process for name, process in self._running.items() if name not in consumers}
            yield from end_crew(self._stage, consumers, others)

    @staticmethod
    def _members() -> list[str]:
        return [*(f"consumer {number}" for number in range(CONSUMERS)), "poller", "receiver"]

    def _kill(self, name: str) -> None:
        with self._lock:
            self._away.add(name)
            if name in self._running:
                self._running[name].kill()
                return
        match name:
            case "rabbitmq":
                self._stack.rabbitmq.halt()
            case "postgres":
                self._stack.postgres.halt(signal.SIGQUIT)
            case "gateway":
                self._stack.ceph.halt_gateway()

    def _start(self, name: str) -> None:
        match name.partition(" ")[0]:
            case "rabbitmq":
                _start_patiently(self._stack.rabbitmq)
            case "postgres":
                _start_patiently(self._stack.postgres)
            case "gateway":
                _start_patiently(self._stack.ceph)
            case "consumer":
                self._running[name] = self._stage.start("consume")
            case "poller":
                self._running[name] = self._stage.start("poll", "--every", "3")
            case "receiver":
                self.receiver = Receiver(self._stage, self._receiver_port)
                self._running[name] = self.receiver.process
        self._away.discard(name)


def _start_patiently(service: Service) -> None:
    """A machine that is busy with other things may not have it up within a minute."""
    try:
        service.start()
    except StackError:
        service.start()


@contextlib.contextmanager
def proxies_of(stage: Stage) -> Iterator[dict[str, Proxy]]:
    """Proxies before all three services, which every process started on the stage from now on uses."""
    variables = {"rabbitmq": "RABBITMQ_URL", "postgres": "DATABASE_URL", "gateway": "RUSTFS_ENDPOINT"}
    with contextlib.ExitStack() as opened:
        proxies = {name: opened.enter_context(Proxy(stage.environment[variables[name]])) for name in variables}
        stage.environment |= {variables[name]: proxy.url for name, proxy in proxies.items()}
        yield proxies

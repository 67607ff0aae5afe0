"""A private RabbitMQ node with the management API, and an epmd of its own.

Debian's wrappers in /usr/sbin are not used: each call of one leaves an epmd behind that listens everywhere.
"""

import base64
import secrets
import shutil
import socket
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, ClassVar

import processes
from place import Place

if TYPE_CHECKING:
    import subprocess

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PLUGINS = SERVER.with_name("rabbitmq-plugins")
CONTROL = SERVER.with_name("rabbitmqctl")

_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
loopback_users.guest = true
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 67108864
log.file.level = info
mqtt.listeners.tcp.1 = 127.0.0.1:{mqtt}
"""

# What a full queue refuses the server dead-letters again after three minutes, otherwise.
_ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n"

_TLS = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
"""

_CLUSTER = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
"""


class RabbitMQ:
    name = "rabbitmq"
    variable = "RABBITMQ_URL"
    packages: ClassVar[dict[str, Path]] = {"rabbitmq-server": SERVER}

    def __init__(
        self,
        place: Place,
        members: Sequence[Place] = (),
        cookie: str = "",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """With `members`, of which `place` is one, it is a node of a cluster; all need the same cookie.

        With a certificate and its key it speaks TLS, too, at `tls_port`.
        """
        self._certificate = certificate
        self.tls_port = place.port + 9
        self._members = members
        self._cookie = cookie or secrets.token_hex(16)
        self._children: list[subprocess.Popen[bytes]] = []
        self._log = place.log(self.name)
        self._directory = place.local / "rabbitmq"
        self.node = f"{place.name}@localhost"
        self._amqp, self._management, self._distribution, self._epmd = range(place.port + 1, place.port + 5)
        if members:
            self._epmd = members[0].port + 4  # nodes find each other by one epmd
        self._mqtt = place.port + 8

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._amqp}/"

    def environment(self) -> dict[str, str]:
        found = {
            "RABBITMQ_URL": self.url,
            "RABBITMQ_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{self._management}",
        }
        if _listens(self._mqtt):
            found["RABBITMQ_MQTT_URL"] = f"mqtt://guest:guest@127.0.0.1:{self._mqtt}"
        return found

    def running(self) -> bool:
        return bool(processes.find("beam.smp", self._mark))

    def answers(self) -> bool:
        # The management API answers some time before AMQP does.
        return self._speaks_amqp() and self._manages()

    def start(self) -> None:
        self._configure()
        self.start_epmd()
        server = processes.spawn([SERVER], log=self._log, env=self._erlang | self._settings())
        self._children.append(server)
        processes.wait_until(self.answers, process=server, log=self._log)

    def start_epmd(self) -> None:
        if not processes.find("epmd", self._epmd_mark):
            epmd = ["epmd", "-port", str(self._epmd), "-address", "127.0.0.1"]
            self._children.append(processes.spawn(epmd, log=self._log))

    def enable_mqtt(self) -> None:
        """Have the running broker speak MQTT; only when asked for, since every start would take four seconds longer."""
        if not _listens(self._mqtt):
            processes.call([PLUGINS, "enable", "rabbitmq_mqtt"], log=self._log, env=self._erlang | self._settings())

    def halt(self) -> None:
        """Kill it and keep what it holds."""
        processes.stop("beam.smp", self._mark)

    def signal(self, number: Signals) -> None:
        """Have it stand still (SIGSTOP) and go on (SIGCONT)."""
        processes.stop("beam.smp", self._mark, by=number, grace=None)

    def control(self, *arguments: str) -> None:
        """Run rabbitmqctl on it; that takes seconds."""
        processes.call([CONTROL, *arguments], log=self._log, env=self._erlang | self._settings())

    def stop(self) -> None:
        # An orderly stop takes six seconds and saves what is thrown away right after.
        self.halt()
        processes.stop("epmd", self._epmd_mark)
        for child in self._children:
            child.wait(10)
        self._children.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _erlang(self) -> dict[str, str]:
        return {"ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(self._epmd)}

    @property
    def _mark(self) -> str:
        return f"-home {self._directory}/home"

    @property
    def _epmd_mark(self) -> str:
        return f"-port {self._epmd} -address 127.0.0.1"

    def _configure(self) -> None:
        for name in ("home", "mnesia", "generated"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        cookie = self._directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(self._cookie)
        configuration = _CONFIGURATION.format(amqp=self._amqp, management=self._management, mqtt=self._mqtt)
        if self._certificate:
            configuration += _TLS.format(port=self.tls_port, certificate=self._certificate[0], key=self._certificate[1])
        if self._members:
            configuration += _CLUSTER + "".join(
                f"cluster_formation.classic_config.nodes.{number} = {member.name}@localhost\n"
                for number, member in enumerate(self._members, start=1)
            )
        (self._directory / "rabbitmq.conf").write_text(configuration)
        (self._directory / "advanced.config").write_text(_ADVANCED)
        (self._directory / "enabled_plugins").write_text("[rabbitmq_management].\n")

    def _settings(self) -> dict[str, str]:
        on_loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        at = self._directory
        return {
            "HOME": str(at / "home"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._amqp),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(at / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(at / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(at / "generated"),
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            "RABBITMQ_LOG_BASE": str(at),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": on_loopback,
            "RABBITMQ_CTL_ERL_ARGS": on_loopback,
        }

    def _speaks_amqp(self) -> bool:
        """Whether the broker answers the protocol header with its first method frame."""
        try:
            with socket.create_connection(("127.0.0.1", self._amqp), timeout=3) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def _manages(self) -> bool:
        guest = base64.b64encode(b"guest:guest").decode()
        headers = {"Authorization": f"Basic {guest}"}
        return processes.http_status(self._management, "/api/overview", headers) == HTTPStatus.OK


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=3).close()
    except OSError:
        return False
    return True

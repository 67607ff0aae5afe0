"""A private RabbitMQ node with the management API, and an epmd of its own.

Debian's wrappers in /usr/sbin are not used: each call of one leaves an epmd behind that listens everywhere.
"""

import base64
import secrets
import shutil
import socket
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

import processes
from place import Place

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PLUGINS = SERVER.with_name("rabbitmq-plugins")

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


class RabbitMQ:
    name = "rabbitmq"
    variable = "RABBITMQ_URL"
    packages: ClassVar[dict[str, Path]] = {"rabbitmq-server": SERVER}

    def __init__(self, place: Place) -> None:
        self._log = place.log(self.name)
        self._directory = place.local / "rabbitmq"
        self._node = f"{place.name}@localhost"
        self._amqp, self._management, self._distribution, self._epmd = range(place.port + 1, place.port + 5)
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
        if not processes.find("epmd", self._epmd_mark):
            processes.spawn(["epmd", "-port", str(self._epmd), "-address", "127.0.0.1"], log=self._log)
        server = processes.spawn([SERVER], log=self._log, env=self._erlang | self._settings())
        processes.wait_until(self.answers, process=server, log=self._log)

    def enable_mqtt(self) -> None:
        """Have the running broker speak MQTT; only when asked for, since every start would take four seconds longer."""
        if not _listens(self._mqtt):
            processes.call([PLUGINS, "enable", "rabbitmq_mqtt"], log=self._log, env=self._erlang | self._settings())

    def stop(self) -> None:
        # An orderly stop takes six seconds and saves what is thrown away right after.
        processes.stop("beam.smp", self._mark)
        processes.stop("epmd", self._epmd_mark)
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
            cookie.write_text(secrets.token_hex(16))
        configuration = _CONFIGURATION.format(amqp=self._amqp, management=self._management, mqtt=self._mqtt)
        (self._directory / "rabbitmq.conf").write_text(configuration)
        (self._directory / "enabled_plugins").write_text("[rabbitmq_management].\n")

    def _settings(self) -> dict[str, str]:
        on_loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        at = self._directory
        return {
            "HOME": str(at / "home"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self._node,
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

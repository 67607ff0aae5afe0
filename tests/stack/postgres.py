"""A private PostgreSQL with PostGIS at hand: loopback only, no passwords, not made to survive a crash."""

import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import processes
from place import Place

_OF_DEBIAN = {"12": "15", "13": "17"}
VERSION = _OF_DEBIAN.get(platform.freedesktop_os_release().get("VERSION_ID", ""), "17")
BIN = Path(f"/usr/lib/postgresql/{VERSION}/bin")
DATABASE = "fleettickets"


class Postgres:
    name = "postgres"
    variable = "DATABASE_URL"
    packages: ClassVar[dict[str, Path]] = {
        f"postgresql-{VERSION}": BIN / "postgres",
        f"postgresql-{VERSION}-postgis-3": Path(f"/usr/share/postgresql/{VERSION}/extension/postgis.control"),
        "pgbouncer": Path("/usr/sbin/pgbouncer"),  # that tests put before it
    }

    def __init__(self, place: Place, certificate: tuple[Path, Path] | None = None, language: str = "") -> None:
        """With a certificate and its key it speaks TLS, too; English, unless its messages are to be in a language."""
        self._place = place
        self._language = language
        self._certificate = certificate
        self._server: subprocess.Popen[bytes] | None = None
        self._port = place.port
        self._log = place.log(self.name)
        # A link to a directory elsewhere when the checkout is closed to the postgres user.
        self._directory = place.local / "postgres"
        # Not the data directory: it can be elsewhere, and `down` has to work without the link to it.
        self._mark = f"cluster_name={place.name}"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{DATABASE}"

    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self.url}

    def running(self) -> bool:
        return bool(processes.find("postgres", self._mark))

    def answers(self) -> bool:
        return self._psql("select 1")

    def start(self) -> None:
        data = self._data()
        if not (data / "PG_VERSION").exists():
            self._initdb(data)
        if self._certificate:
            self._install(*self._certificate)
        _forget_dead_server(data)
        self._server = server = processes.spawn(
            [*_as_postgres(), BIN / "postgres", "-D", data, *self._options()],
            log=self._log,
            env={"LANGUAGE": self._language},
        )
        processes.wait_until(lambda: self._psql("select 1", "postgres"), process=server, log=self._log)
        if not self.answers() and not self._psql(f"create database {DATABASE}", "postgres"):
            raise processes.StackError(f"cannot create the database {DATABASE}", self._log)

    def halt(self, by: signal.Signals = signal.SIGINT) -> None:
        """End it and keep what it holds: SIGINT as for a restart, SIGQUIT as a crash would."""
        processes.stop("postgres", self._mark, by=by)
        if self._server is not None:
            self._server.wait(10)

    def certify(self, certificate: Path, key: Path) -> None:
        """Show another certificate from now on."""
        self._install(certificate, key)
        processes.stop("postgres", self._mark, by=signal.SIGHUP, grace=None)

    def stop(self) -> None:
        self.halt()
        if self._directory.is_symlink():
            shutil.rmtree(self._directory.resolve(), ignore_errors=True)
            self._directory.unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _options(self) -> list[str]:
        settings = {
            "port": self._port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "cluster_name": self._place.name,
            "max_connections": 200,
            "shared_buffers": "64MB",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "ssl": "on" if self._certificate else "off",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _initdb(self, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        flags = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        processes.call([*_as_postgres(), BIN / "initdb", "-D", data, *flags], log=self._log)

    def _install(self, certificate: Path, key: Path) -> None:
        # The server takes a key of nobody but its own user or root, and finds it under this name by itself.
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            copy = self._data() / name
            copy.unlink(missing_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(copy, "postgres")

    def _data(self) -> Path:
        """Give the data directory, in a parent that the user the server runs as can enter."""
        if not self._directory.exists():
            self._directory.unlink(missing_ok=True)
            if _enterable(self._place.local):
                self._directory.mkdir(mode=0o700)
            else:
                self._directory.symlink_to(tempfile.mkdtemp(prefix="fleettickets-postgres-", dir="/var/tmp"))
            if os.geteuid() == 0:
                owner = pwd.getpwnam("postgres")
                os.chown(self._directory, owner.pw_uid, owner.pw_gid)
        return self._directory.resolve() / "data"

    def _psql(self, statement: str, database: str = DATABASE) -> bool:
        url = f"postgresql://postgres@127.0.0.1:{self._port}/{database}?connect_timeout=3"
        done = subprocess.run(
            [BIN / "psql", "-X", "-q", "-d", url, "-c", statement],
            env=processes.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done.returncode == 0


def _forget_dead_server(data: Path, seconds: float = 10) -> None:
    """Remove the pid file of a killed server once that is gone.

    A new server takes a pid that is still in the process table, even of a zombie, for one that runs.
    """
    file = data / "postmaster.pid"
    if file.exists():
        process = Path("/proc") / file.read_text().split("\n", 1)[0]
        end = time.monotonic() + seconds
        while process.exists() and time.monotonic() < end:
            time.sleep(0.05)
        file.unlink()


def _as_postgres() -> list[str]:
    # The server refuses to run as root.
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


def _enterable(directory: Path) -> bool:
    return subprocess.run([*_as_postgres(), "test", "-x", directory], check=False).returncode == 0

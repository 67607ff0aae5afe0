"""Two Ceph RADOS Gateways over one in-memory OSD: S3 with AMQP notifications; it forgets all when it stops.

Ceph 16's gateway can end by itself while it publishes. So there is one for whoever makes it publish, by putting objects
into a bucket that announces them, and one for everybody else, who is then not disturbed by that.
"""

import shutil
import subprocess
import uuid
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

import processes
from place import Place

BIN = Path("/usr/bin")
ACCESS_KEY = "fleettickets"
SECRET_KEY = "fleettickets-local"
REGION = "default"

# The paxos intervals bring the start from 15 s to 2 s. cephx stays on: without it radosgw hangs.
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind port min = {osd_first}
ms bind port max = {osd_last}
ms bind ipv4 = true
ms bind ipv6 = false
run dir = {at}/run
admin socket =
pid file =
log file = {log}
crash dir = {at}/crash
# What it would only keep in memory for the report of a crash costs it a third of its time.
debug rgw = 0/0
debug ms = 0/0
debug osd = 0/0
debug objecter = 0/0
debug rados = 0/0
debug mon = 0/0
debug paxos = 0/0
debug auth = 0/0
debug monc = 0/0
keyring = {at}/keyring
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
paxos propose interval = 0.05
paxos min wait = 0.01
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon pg warn min per osd = 0
mon data avail warn = 2
mon data avail crit = 1
[mon]
mon data = {at}/mon
[osd]
osd data = {at}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw data = {at}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw} tcp_nodelay=1
rgw dns name = localhost
# So that a test of more than one page needs few objects; the default is a thousand.
rgw max listing results = 250
[client.rgw.b]
rgw data = {at}/rgw
rgw frontends = beast endpoint=127.0.0.1:{announcing} tcp_nodelay=1
rgw dns name = localhost
"""

_CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
    "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx"},
    "client.rgw.b": {"mon": "allow rw", "osd": "allow rwx"},
}


class Ceph:
    name = "ceph"
    variable = "RUSTFS_ENDPOINT"
    packages: ClassVar[dict[str, Path]] = {
        "ceph-base": BIN / "monmaptool",
        "ceph-common": BIN / "ceph",
        "ceph-mon": BIN / "ceph-mon",
        "ceph-osd": BIN / "ceph-osd",
        "radosgw": BIN / "radosgw",
    }

    def __init__(self, place: Place) -> None:
        self._log = place.log(self.name)
        self._directory = place.local / "ceph"
        self._conf = self._directory / "ceph.conf"
        self._mark = f"-c {self._conf}"
        self._children: list[subprocess.Popen[bytes]] = []
        self._rgw, self._mon_v2, self._mon_v1 = range(place.port + 5, place.port + 8)
        self._announcing = place.port + 10
        self._osd_first, self._osd_last = place.port + 11, place.port + 39

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._rgw}"

    def environment(self) -> dict[str, str]:
        return {
            "RUSTFS_ENDPOINT": self.url,
            "RUSTFS_ACCESS_KEY": ACCESS_KEY,
            "RUSTFS_SECRET_KEY": SECRET_KEY,
            "RUSTFS_REGION": REGION,
            "EXPORTER_ENDPOINT": f"http://127.0.0.1:{self._announcing}",
        }

    def running(self) -> bool:
        return self._has_cluster() and all(processes.find("radosgw", mark) for mark in self._gateways())

    def answers(self) -> bool:
        return all(_serves(port) for port in self._gateways().values())

    def start(self) -> None:
        anew = not self._has_cluster()
        if anew:
            # What the OSD held is gone with it, so nothing of the old cluster is worth keeping.
            self.stop()
            self._make_cluster()
        # One after the other, since the first one makes the pools.
        for mark, port in self._gateways().items():
            if not processes.find("radosgw", mark):
                gateway = self._spawn("radosgw", "-n", mark.rpartition(" ")[2])
                processes.wait_until(partial(_serves, port), process=gateway, log=self._log)
        if anew:
            self._make_user()

    def halt_gateway(self) -> None:
        """Kill the gateways and keep what the store holds; `start` brings them back."""
        processes.stop("radosgw", self._mark)

    def stop(self) -> None:
        # From the top down, for a gateway without its OSD hangs. What they hold is in memory: no orderly end.
        for program in ("radosgw", "ceph-osd", "ceph-mon"):
            processes.stop(program, self._mark)
        for child in self._children:
            child.wait(10)
        self._children.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _has_cluster(self) -> bool:
        return all(processes.find(program, self._mark) for program in ("ceph-mon", "ceph-osd"))

    def _gateways(self) -> dict[str, int]:
        """What is in the command line of each, and its port."""
        return {f"{self._mark} -n client.rgw.a": self._rgw, f"{self._mark} -n client.rgw.b": self._announcing}

    def _make_cluster(self) -> None:
        at, fsid, osd = self._directory, str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd", "rgw", "run"):
            (at / name).mkdir(parents=True)
        self._conf.write_text(
            _CONFIGURATION.format(
                at=at,
                log=self._log,
                fsid=fsid,
                rgw=self._rgw,
                announcing=self._announcing,
                mon_v1=self._mon_v1,
                mon_v2=self._mon_v2,
                osd_first=self._osd_first,
                osd_last=self._osd_last,
            )
        )
        self._make_keys()
        addresses = f"[v2:127.0.0.1:{self._mon_v2},v1:127.0.0.1:{self._mon_v1}]"
        self._call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, at / "monmap")
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", at / "monmap", "--keyring", at / "keyring")
        self._spawn("ceph-mon", "-i", "a")
        self._call("ceph", "osd", "new", osd, "0")
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._spawn("ceph-osd", "-i", "0")

    def _make_keys(self) -> None:
        create = ["--create-keyring"]
        for entity, capabilities in _CAPABILITIES.items():
            granted = [part for kind, what in capabilities.items() for part in ("--cap", kind, what)]
            self._call("ceph-authtool", *create, "--gen-key", "-n", entity, *granted, self._directory / "keyring")
            create = []

    def _make_user(self) -> None:
        keys = [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        self._call(
            "radosgw-admin",
            "-n",
            "client.rgw.a",
            "user",
            "create",
            "--uid=fleettickets",
            "--display-name=x",
            *keys,
        )

    def _call(self, program: str, *arguments: str | Path) -> None:
        processes.call([BIN / program, "-c", self._conf, *arguments], log=self._log)

    def _spawn(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        child = processes.spawn([BIN / program, "-f", "-c", self._conf, *arguments], log=self._log)
        self._children.append(child)
        return child


def _serves(port: int) -> bool:
    return processes.http_status(port, "/") == HTTPStatus.OK

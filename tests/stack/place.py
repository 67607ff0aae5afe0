"""Where one checkout keeps its services: directory, ports, a name that no other checkout has."""

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

# Below what the kernel hands out to clients: no outgoing connection takes a port between two starts.
_FIRST_PORT = 20_000
_BLOCKS = 300
_BLOCK = 40


@dataclass(frozen=True)
class Place:
    root: Path
    port: int
    """The first of a block of 40 ports that belong to this checkout."""

    @property
    def local(self) -> Path:
        return self.root / ".local"

    @property
    def logs(self) -> Path:
        return self.local / "log"

    @property
    def name(self) -> str:
        return name_of(self.root)

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"


def name_of(root: Path) -> str:
    return "fleettickets-" + _digest(root)[:10]


def remembered(root: Path) -> Place:
    """Give the place of the last `up`, or where a first one would begin to look for ports."""
    try:
        return Place(root, int((root / ".local" / "port").read_text()))
    except (OSError, ValueError):
        return Place(root, _block(root, 0))


def settle(place: Place) -> Place:
    """Keep the remembered ports, or take others if somebody has one; for when nothing of ours runs."""
    candidates = [place.port, *(_block(place.root, n) for n in range(_BLOCKS))]
    port = next((first for first in candidates if _free(first)), place.port)
    place.local.mkdir(exist_ok=True)
    (place.local / "port").write_text(f"{port}\n")
    return Place(place.root, port)


def _digest(root: Path) -> str:
    return hashlib.sha256(str(root).encode()).hexdigest()


def _block(root: Path, n: int) -> int:
    return _FIRST_PORT + (int(_digest(root), 16) + n) % _BLOCKS * _BLOCK


def _free(first: int) -> bool:
    for port in range(first, first + _BLOCK):
        with socket.socket() as probe:
            # A connection of the last run that lingers in TIME_WAIT does not make a port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True

"""The Debian packages that hold the services; installing them starts nothing."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# While packages are installed only: Debian starts what it installs, on the standard ports, and PostgreSQL
# makes and starts a cluster "main". Both are left to the owner of the machine.
_HOLDS = {
    Path("/usr/sbin/policy-rc.d"): (
        "#!/bin/sh\n# fleettickets: tests/stack installs packages\nexit 101\n",
        "755",
    ),
    Path("/etc/postgresql-common/createcluster.d/fleettickets.conf"): (
        "create_main_cluster = false\n",
        "644",
    ),
}


class InstallError(Exception):
    """What is missing could not be installed; the text says what to do by hand."""


def missing_of(wanted: Mapping[str, Path]) -> list[str]:
    """Give the packages whose file is not there."""
    return [package for package, file in wanted.items() if not file.exists()]


def install(wanted: Mapping[str, Path]) -> list[str]:
    """Install what is missing, and what a virtual environment needs; give the names of what was installed."""
    missing = missing_of(wanted)
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    if not missing:
        return []
    by_hand = f"install by hand: apt-get install --no-install-recommends {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise InstallError(f"there is no apt-get on this machine; {by_hand}")
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise InstallError(f"neither root nor sudo; {by_hand}")
    try:
        _as_root("apt-get", "-q", "update")
        with _nothing_starts():
            _as_root(
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "-qq",
                "-y",
                "-o",
                "DPkg::Lock::Timeout=300",
                "--no-install-recommends",
                "install",
                *missing,
            )
    except subprocess.CalledProcessError as failed:
        raise InstallError(
            f"apt-get failed with status {failed.returncode}, its words are above; {by_hand}"
        ) from failed
    return missing


@contextlib.contextmanager
def _nothing_starts() -> Iterator[None]:
    made = []
    try:
        for path, (text, mode) in _HOLDS.items():
            # One left by an earlier, killed install is ours to remove; any other belongs to the machine.
            if not path.exists() or path.read_text() == text:
                made.append(path)
                _as_root("install", "-D", "-m", mode, "/dev/stdin", str(path), text=text)
        yield
    finally:
        if made:
            _as_root("rm", "-f", *(str(path) for path in made))


def _as_root(*argv: str, text: str = "") -> None:
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    # Standard output belongs to the caller's answer.
    subprocess.run([*prefix, *argv], input=text.encode(), stdout=sys.stderr, check=True)

"""The images of `make compose-test`: stand-ins under the names that Dockerfile and compose.yaml have, then our own.

    python -m tests.containers.images

No registry of images is asked. A stand-in is Debian's package of the same service, with an entrypoint that does of the
real one's work what compose.yaml relies on; RustFS, which Debian has not, is moto with RustFS's events (store.py).
Python is Debian's 3.11, with which the same wheel and the same pinned packages are installed.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import packages

from tests import compose
from tests.compose import ROOT
from tests.containers.daemon import FOLDER, PACKAGES, Docker, daemon

BASE = "fleettickets-base"
OURS = "fleettickets"
LABELS = {"VERSION": "of-the-test", "REVISION": "0123456789abcdef", "CREATED": "2026-06-25T14:20:00Z"}
_STAND_INS = Path(__file__).parent / "stand_ins"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_OF_THE_STORE = ("moto[s3,sqs]", "flask", "flask-cors", "pika")


def python_image() -> str:
    found = re.search(r"^ARG PYTHON=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def image_of(service: str) -> str:
    return compose.interpolated(compose.services()[service]["image"], {})


def main() -> None:
    packages.install(PACKAGES)
    # Building needs this machine's network and no other.
    with daemon("--bridge", "none", "--iptables=false") as docker:
        if not docker("image", "ls", "--quiet", BASE).strip():
            _make_base(docker)
        for name, folder in (
            (python_image(), "python"),
            (image_of("rabbitmq"), "rabbitmq"),
            (image_of("postgres"), "postgis"),
            (image_of("rustfs"), "rustfs"),
        ):
            _build(docker, name, folder)
        arguments = [word for name, value in LABELS.items() for word in ("--build-arg", f"{name}={value}")]
        docker("build", "--network", "host", *arguments, "--tag", OURS, ROOT, seconds=1200)
        _say(f"{OURS} is built")


def _make_base(docker: Docker) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as root:
        subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", root],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        changes = []
        if _AUTHORITIES.exists():
            # This machine may reach its registries through somebody whom only it trusts.
            shutil.copy(_AUTHORITIES, Path(root) / "usr/local/share/authorities.pem")
            changes = ["--change", "ENV PIP_CERT=/usr/local/share/authorities.pem"]
        archive = FOLDER / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        docker("import", *changes, archive, BASE)
        archive.unlink()
    _say(f"{BASE} is made")


def _build(docker: Docker, name: str, folder: str) -> None:
    with tempfile.TemporaryDirectory() as context:
        shutil.copytree(_STAND_INS / folder, context, dirs_exist_ok=True)
        pinned = re.findall(r"^([a-z0-9._-]+==[^ ;\\]+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
        (Path(context) / "constraints.txt").write_text("\n".join(pinned))
        (Path(context) / "requirements.txt").write_text("\n".join(_OF_THE_STORE))
        build = ["build", "--network", "host", "--build-arg", f"PYTHON={python_image()}", "--tag", name, context]
        docker(*build, seconds=1200)
    _say(f"{name} stands in")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Whoever ends it ends the daemon as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()

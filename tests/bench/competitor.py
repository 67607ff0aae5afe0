"""dlt, in an environment of its own that is made when it is first needed: it is no dependency of the project."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.plain import HERE
from tests.conftest import ROOT
from tests.stage.stage import Stage

REQUIREMENTS = HERE / "requirements.txt"
_PLACE = ROOT / ".local" / "bench-dlt"
_SHOWN = 200


class NotThere(Exception):
    """It could not be installed."""


def installed() -> Path:
    """Its interpreter. Raises: NotThere."""
    python, stamp = _PLACE / "bin" / "python", _PLACE / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(_PLACE, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(_PLACE)],
        [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(REQUIREMENTS)],
    ):
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if ended.returncode:
            said = (ended.stderr.strip() or ended.stdout.strip() or "pip failed").splitlines()[-1]
            raise NotThere(f"dlt could not be installed ({said[:_SHOWN]})")
    stamp.write_text(wanted)
    return python


def version() -> str:
    for line in REQUIREMENTS.read_text().splitlines():
        if line.startswith("dlt=="):
            return line.removeprefix("dlt==").partition(" ")[0]
    raise ValueError(f"no dlt in {REQUIREMENTS}")


def way(python: Path) -> Callable[[Stage, Mapping[str, bytes]], float]:
    def load(stage: Stage, files: Mapping[str, bytes]) -> float:
        """From its listing to the merged rows, by itself: without what importing it takes, and without an archive."""
        name = f"tickets_{uuid.uuid4().hex[:8]}"
        environment = os.environ | stage.environment | {
            "RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(stage.folder / name), "PIPELINE": name,
            "DATABASE_URL": _with_password(stage.database),
        }  # fmt: skip
        command = [str(python), str(HERE / "dlt_pipeline.py")]
        ended = subprocess.run(command, cwd=stage.folder, env=environment, check=False, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"dlt's pipeline failed: {ended.stderr}")
        told = json.loads(ended.stdout.splitlines()[-1])
        assert told["files"] == len(files), told
        # What it has loaded it would take for news in another round: it is told by time, and starts anew.
        for key in files:
            stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)
        return float(told["seconds"])

    return load


def _with_password(url: str) -> str:
    """It asks for one also where the server does not."""
    address = urlsplit(url)
    user = f"{address.username or 'postgres'}:{address.password or 'none'}"
    return address._replace(netloc=f"{user}@{address.hostname}:{address.port or 5432}").geturl()

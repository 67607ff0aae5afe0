"""A declaration is written whole or not at all: half of one would end every command, or be another feed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stage.feeds import lines

WRITING = """
import resource, signal
from consumer.program import main
signal.signal(signal.SIGXFSZ, signal.SIG_{disposition})
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
main()
"""
"""The program, which may write 200 bytes of a file: the kernel kills it there, or says that there is no room.

So it is not to write what Python compiles (-B): that would be cut off, too, and taken for whole by all others.
"""


@pytest.mark.parametrize(("disposition", "ends_with"), [("DFL", -25), ("IGN", 2)], ids=["killed", "no room"])
def test_a_declaration_that_could_not_be_written_to_its_end_is_not_there(
    tmp_path: Path, disposition: str, ends_with: int
) -> None:
    folder = tmp_path / "feeds"
    folder.mkdir()
    sample = tmp_path / "sample.csv"
    sample.write_bytes(lines([["id", *(f"column_{number}" for number in range(50))]]))
    new = ["feeds", "new", "wide", "--from", str(sample), "--apply"]
    environment = {**os.environ, "FLEETTICKETS_FEEDS_DIR": str(folder)}
    script = WRITING.format(disposition=disposition)
    ended = subprocess.run(
        [sys.executable, "-B", "-c", script, *new],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == ends_with, ended.stderr
    assert list(folder.glob("*.toml")) == []
    again = subprocess.run(
        [sys.executable, "-m", "consumer", *new], env=environment, capture_output=True, check=False, timeout=60
    )
    assert again.returncode == 0, again.stderr
    (written,) = folder.glob("*.toml")
    assert written.read_text().endswith('column_49 = "any"  # 0% of the rows have a value, nothing to go by\n')
    assert written.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found

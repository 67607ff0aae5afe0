"""Chances that a commit decides: whoever runs the tests of one commit plays the same, wherever and whenever."""

import subprocess
from functools import cache

from tests.conftest import ROOT


@cache
def commit() -> str:
    """The first digits of the commit that is checked out; zeros in a folder that is no repository."""
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True, timeout=30
    )
    return asked.stdout[:7] if asked.returncode == 0 else "0000000"


def seed() -> int:
    return int(commit(), 16)

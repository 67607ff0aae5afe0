"""Minutes of feed with random kills of every component, then the oracle. Run by `make soak MINUTES=60 SEED=7`."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.soak.plan import make_plan
from tests.soak.soaking import soak
from tests.stage.running import Run, say


def play(asked: argparse.Namespace, folder: Path) -> tuple[list[str], Mapping[str, Any]]:
    result = soak(make_plan(asked.seed, 60 * asked.minutes), folder, say)
    return result.differences, result.figures


if __name__ == "__main__":
    sys.exit(Run("soak", __doc__, 60, play, "nothing lost, nothing twice").main())

"""Minutes of hostile files, messages, clients and services beside good traffic: `make hostile MINUTES=15 SEED=7`."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hostile import playing
from tests.hostile.plan import make_plan
from tests.stage.running import Run, say


def play(asked: argparse.Namespace, folder: Path) -> tuple[list[str], Mapping[str, Any]]:
    result = playing.play(make_plan(asked.seed, 60 * asked.minutes, asked.only), folder, say)
    return result.differences + [f"was not played: {name}" for name in result.unplayed], result.figures


def only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", default=[], help="the hostilities with this in their name alone")


if __name__ == "__main__":
    sys.exit(Run("hostile", __doc__, 15, play, "every good file once, every hostile thing decided", only).main())

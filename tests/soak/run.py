"""Minutes of feed with random kills of every component, then the oracle. Run by `make soak MINUTES=60 SEED=7`."""

import argparse
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.soak.plan import make_plan
from tests.soak.soaking import soak

LOGS = Path(__file__).parents[2] / ".local" / "soak"
TOLD = 40
"""Differences that are printed; all are in the folder."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, help="repeats a feed and its faults; otherwise a new one, which is printed")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that went well, too")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    signal.signal(signal.SIGTERM, terminate)
    folder = LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{seed}"
    folder.mkdir(parents=True)
    again = f"make soak MINUTES={asked.minutes:g} SEED={seed}"
    say(f"{asked.minutes:g} minutes with seed {seed}; once more: {again}")
    try:
        result = soak(make_plan(seed, 60 * asked.minutes), folder, say)
    except Exception:  # noqa: BLE001 - whatever it is, the seed and the folder are said
        sys.stderr.write(f"{traceback.format_exc()}the soak itself broke, seed {seed}\nlogs: {folder}\n")
        return 2
    (folder / "differences").write_text("".join(f"{line}\n" for line in result.differences))
    for line in result.differences[:TOLD]:
        say(line)
    for name, value in result.figures.items():
        say(f"{name}: {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    if result.differences:
        sys.stderr.write(f"FAILED with {len(result.differences)} differences, seed {seed}; once more: {again}\n")
        sys.stderr.write(f"logs: {folder}\n")
        return 1
    if asked.keep:
        say(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    say("nothing lost, nothing twice")
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

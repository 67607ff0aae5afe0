"""Minutes of hostile files, messages, clients and services beside good traffic: `make hostile MINUTES=15 SEED=7`."""

import argparse
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.hostile.plan import make_plan
from tests.hostile.playing import play
from tests.soak.run import TOLD, say, terminate

LOGS = Path(__file__).parents[2] / ".local" / "hostile"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, help="repeats a feed and its acts; otherwise a new one, which is printed")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that went well, too")
    parser.add_argument("--only", action="append", default=[], help="the hostilities with this in their name alone")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    signal.signal(signal.SIGTERM, terminate)
    folder = LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{seed}-{os.getpid()}"
    folder.mkdir(parents=True)
    again = f"make hostile MINUTES={asked.minutes:g} SEED={seed}"
    say(f"{asked.minutes:g} minutes with seed {seed}; once more: {again}")
    try:
        result = play(make_plan(seed, 60 * asked.minutes, asked.only), folder, say)
    except Exception:  # noqa: BLE001 - whatever it is, the seed and the folder are said
        sys.stderr.write(f"{traceback.format_exc()}the play itself broke, seed {seed}\nlogs: {folder}\n")
        return 2
    differences = result.differences + [f"was not played: {name}" for name in result.unplayed]
    (folder / "differences").write_text("".join(f"{line}\n" for line in differences))
    for line in differences[:TOLD]:
        say(line)
    for name, value in result.figures.items():
        say(f"{name}: {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    if differences:
        sys.stderr.write(f"FAILED with {len(differences)} differences, seed {seed}; once more: {again}\n")
        sys.stderr.write(f"logs: {folder}\n")
        return 1
    if asked.keep:
        say(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    say("every good file once, every hostile thing decided")
    return 0


if __name__ == "__main__":
    sys.exit(main())

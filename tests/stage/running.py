"""Minutes of a long run from its command line to its exit status, with logs that are kept where it did not go well."""

import argparse
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.conftest import ROOT

TOLD = 40
"""Differences that are printed; all are in the folder."""
Play = Callable[[argparse.Namespace, Path], tuple[list[str], Mapping[str, Any]]]


@dataclass(frozen=True)
class Run:
    """`play` gets the arguments, its seed among them, and the folder; it gives differences and figures."""

    name: str
    """That of its make target and of the folder of its logs."""
    description: str | None
    minutes: float
    play: Play
    verdict: str
    """What can be said when there is no difference."""
    arguments: Callable[[argparse.ArgumentParser], object] = field(default=lambda _parser: None)

    def main(self) -> int:
        parser = argparse.ArgumentParser(description=self.description)
        parser.add_argument("--minutes", type=float, default=self.minutes)
        parser.add_argument("--seed", type=int, help="repeats a run; otherwise a new one, which is printed")
        parser.add_argument("--keep", action="store_true", help="keep the logs of a run that went well, too")
        self.arguments(parser)
        asked = parser.parse_args()
        if asked.seed is None:
            asked.seed = random.randrange(1_000_000)
        signal.signal(signal.SIGTERM, _terminate)
        folder = ROOT / ".local" / self.name / f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{asked.seed}-{os.getpid()}"
        folder.mkdir(parents=True)
        again = f"make {self.name} MINUTES={asked.minutes:g} SEED={asked.seed}"
        say(f"{asked.minutes:g} minutes with seed {asked.seed}; once more: {again}")
        try:
            differences, figures = self.play(asked, folder)
        except Exception:  # noqa: BLE001 - whatever it is, the seed and the folder are said
            sys.stderr.write(f"{traceback.format_exc()}the run itself broke, seed {asked.seed}\nlogs: {folder}\n")
            return 2
        (folder / "differences").write_text("".join(f"{line}\n" for line in differences))
        for line in differences[:TOLD]:
            say(line)
        for name, value in figures.items():
            say(f"{name}: {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
        if differences:
            sys.stderr.write(f"FAILED with {len(differences)} differences, seed {asked.seed}; once more: {again}\n")
            sys.stderr.write(f"logs: {folder}\n")
            return 1
        if asked.keep:
            say(f"logs: {folder}")
        else:
            shutil.rmtree(folder)
        say(self.verdict)
        return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)

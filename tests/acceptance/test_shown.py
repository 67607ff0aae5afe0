"""What is printed for people: nothing is cut on a terminal of 80 columns, nothing padded in a pipe."""

import fcntl
import os
import re
import struct
import subprocess
import termios

import pytest

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

BROKEN, APPLIED = key_at(0), key_at(1)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{3})? EAT \((\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(\.\d{3})? UTC\)")
COMMANDS = {
    "status": ("status",),
    "verify": ("verify",),
    "list": ("dead-letters", "list"),
    "each": ("dead-letters", "list", "--each"),
    "failed": ("explain", BROKEN),
    "applied": ("explain", APPLIED),
}


@pytest.fixture(scope="module")
def lived(shared_stage: Stage) -> Stage:
    stage = shared_stage
    consumer = stage.start("consume")
    stage.bucket.put_all({BROKEN: b"number,owner\nINC1,Otieno\n", APPLIED: csv([ticket("INC1")])})
    stage.bucket.put(f"{PROCESSED}foreign.csv", b"what is this")
    stage.announce(BROKEN, APPLIED)
    stage.wait_for("done", APPLIED)
    wait_until(lambda: stage.ask("dead-letters", "list", "--each"), "a dead letter")
    consumer.stop()
    return stage


def on_a_terminal(stage: Stage, arguments: tuple[str, ...]) -> list[str]:
    """The lines that a terminal of 80 columns is given."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen([PROGRAM, *arguments], stdout=theirs, env=stage.environment, cwd=stage.folder) as process:
        os.close(theirs)
        shown = b""
        while piece := read(ours):
            shown += piece
    os.close(ours)
    assert process.returncode in {0, 1, 3}
    return [line.rstrip("\r\n") for line in shown.decode().splitlines()]


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody writes any more
        return b""


@pytest.mark.parametrize("what", COMMANDS)
def test_a_terminal_of_80_columns_has_every_word_whole(lived: Stage, what: str) -> None:
    lines = on_a_terminal(lived, COMMANDS[what])
    assert lines
    assert not any(mark in line for line in lines for mark in ("\N{HORIZONTAL ELLIPSIS}", "\x1b"))
    for line in lines:
        assert len(line) <= 80 or max(map(len, line.split())) > 60, line
    if what in {"each", "list", "failed"}:
        assert any(BROKEN.removeprefix(CHANGES) in line for line in lines), lines


@pytest.mark.parametrize("what", COMMANDS)
def test_a_pipe_has_nothing_padded_and_nothing_parted(lived: Stage, what: str) -> None:
    shown = lived.run(*COMMANDS[what]).stdout
    assert shown
    assert all(line == line.rstrip() for line in shown.splitlines())
    unzoned = re.findall(r"\d\d:\d\d:\d\d", MOMENT.sub("", shown))
    assert unzoned == [], "every time is told in both zones"
    if what in {"applied", "failed", "each"}:
        assert MOMENT.search(shown)


def test_moments_that_a_latency_is_between_have_milliseconds_and_folders_are_told_once(lived: Stage) -> None:
    shown = lived.run(*COMMANDS["applied"]).stdout
    (applied,) = (line for line in shown.splitlines() if line.split()[:1] == ["applied_at"])
    assert MOMENT.search(applied)[1], applied  # type: ignore[index] # it is there, or this fails
    each = lived.run(*COMMANDS["each"]).stdout
    assert (each.count(CHANGES), each.splitlines()[0]) == (1, CHANGES)
    assert f"    {PROCESSED}\n        foreign.csv: " in lived.run(*COMMANDS["verify"]).stdout

"""The demo's processes end with it, the obstinate ones too, and a signal ends the demo only once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.demo import children
from consumer.demo.children import Child, DemoFailed, Signalled

OBSTINATE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


def child(code: str, log: Path) -> Child:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    log.touch()
    return Child("child", process, log)


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    obstinate = child(OBSTINATE, tmp_path / "log")
    assert obstinate.process.stdout is not None
    obstinate.process.stdout.readline()

    children.stop([obstinate], seconds=0.1)

    assert obstinate.process.returncode == -signal.SIGKILL
    obstinate.process.stdout.close()


def test_a_failure_is_told_with_the_last_line_of_the_log(tmp_path: Path) -> None:
    failing = child("raise SystemExit(3)", tmp_path / "log")
    failing.log.write_text("first\nthe reason\n\n")

    with pytest.raises(DemoFailed, match=r"child ended with status 3: the reason \(see "):
        children.finish(failing, seconds=30)
    failing.process.communicate()


def test_only_the_first_signal_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(Signalled) as stopped, children.interruptible():  # noqa: PT012 - the second must be harmless
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before

"""What the demo shows where there is no terminal, and to a script."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from consumer.demo.checks import Check
from consumer.demo.observing import ROW_COUNTS, Latency, Whereabouts
from consumer.demo.view import Lines, Picture, Summary, as_json, print_summary, view_for

PROGRESS = Whereabouts(
    put=3, applied=2, archived=2, done=2, dead=1, seen_by_poller=1, duplicates=4, rows=dict.fromkeys(ROW_COUNTS, 7),
    history_open=0, delivered_to_committed=Latency(0.0204, 0.1), stored_to_committed=None,
)  # fmt: skip
SUMMARY = Summary(
    seed=1, files=3, announced_by="the store", seconds={"play": 1.25}, progress=PROGRESS, feeds={"inc": PROGRESS},
    checks=[Check("rows", compared=2, different=1, differences=("INC1: owner is [b]K[/b], not None",))],
    logs="logs/", look={"database": "psql x"}, afterwards="The services stop now.",
)  # fmt: skip


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Console(file=io.StringIO())


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_are_lines_and_no_control_codes(console: Console) -> None:
    view = view_for(console)
    view.show(PROGRESS, 3)
    print_summary(console, SUMMARY)

    assert not isinstance(view, Picture)
    assert "\x1b" not in shown(console)
    assert shown(console).startswith("put 3/3, applied 2, archived 2, backlog 0, dead letters 1; rows: 7 inserted")


def test_lines_do_not_repeat_themselves(console: Console) -> None:
    view = Lines(console)
    for _ in range(3):
        view.show(PROGRESS, 3)

    assert shown(console).count("\n") == 1


def test_the_summary_says_what_differs_as_it_is(console: Console) -> None:
    print_summary(console, SUMMARY)

    assert "NOT EQUAL" in shown(console)
    assert "rows: INC1: owner is [b]K[/b], not None" in shown(console)
    assert "p50 20 ms, p99 100 ms" in shown(console)
    assert "tickets.inc" in shown(console)
    assert "2 files, 7 tickets" in shown(console)


def test_a_summary_is_ok_only_with_every_check() -> None:
    right = Check("tickets", compared=1, different=0)

    assert not SUMMARY.ok
    assert not replace(SUMMARY, checks=[right, *SUMMARY.checks]).ok
    assert replace(SUMMARY, checks=[right]).ok


def test_a_script_gets_the_same_as_json() -> None:
    told = json.loads(as_json(SUMMARY))

    assert told["ok"] is False
    assert told["checks"][0]["ok"] is False
    assert told["progress"]["delivered_to_committed"] == {"p50": 0.0204, "p99": 0.1}

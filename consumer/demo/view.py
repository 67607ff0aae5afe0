"""How the demo is watched: a live picture on a terminal, plain lines elsewhere; at the end a summary for either."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from consumer.demo.checks import Check
from consumer.demo.observing import Latency, Whereabouts

_LINE_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to; `look` says what can be looked at next, by kind."""

    seed: int
    files: int
    announced_by: str
    seconds: dict[str, float]
    progress: Whereabouts
    feeds: dict[str, Whereabouts]
    """The same of each feed alone."""
    checks: list[Check]
    logs: str
    look: dict[str, str]
    afterwards: str
    """What becomes of the services."""

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


class Lines:
    """Plain lines without control codes, about one a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0
        self._last = ""

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def show(self, progress: Whereabouts, files: int) -> None:
        rows = progress.rows
        line = (
            f"put {progress.put}/{files}, applied {progress.applied}, archived {progress.archived}, "
            f"backlog {progress.backlog}, dead letters {progress.dead}; rows: {rows['inserted']} inserted, "
            f"{rows['updated']} updated, {rows['unchanged']} unchanged, {rows['stale']} stale, "
            f"{rows['rejected']} rejected, {rows['alarms']} alarms dropped"
        )
        is_last = progress.done + progress.dead == files
        if line != self._last and (is_last or time.monotonic() >= self._next):
            self._last, self._next = line, time.monotonic() + _LINE_EVERY
            self.say(line)

    @contextmanager
    def playing(self) -> Iterator[None]:
        yield


class Picture(Lines):
    """The same, drawn over itself while the feed plays."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def show(self, progress: Whereabouts, files: int) -> None:
        self._live.update(_picture(progress, files), refresh=True)

    @contextmanager
    def playing(self) -> Iterator[None]:
        with self._live:
            yield


def view_for(console: Console) -> Lines:
    return Picture(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


def _picture(progress: Whereabouts, files: int) -> Group:
    bars = Table.grid(padding=(0, 2))
    for name, count in (("put", progress.put), ("applied", progress.applied), ("archived", progress.archived)):
        bars.add_row(f"files {name}", ProgressBar(total=files, completed=count, width=40), f"{count} of {files}")
    figures = Table.grid(padding=(0, 2))
    for name, text in _figures(progress):
        figures.add_row(name, text)
    return Group(bars, figures)


def _figures(progress: Whereabouts) -> list[tuple[str, str | Text]]:
    rows = progress.rows
    dead = Text(str(progress.dead), style="red" if progress.dead else "")
    return [
        ("backlog", f"{progress.backlog} files put and not applied yet"),
        ("dead letters", dead),
        ("rows", f"{rows['inserted']} inserted, {rows['updated']} updated, {rows['unchanged']} unchanged"),
        ("", f"{rows['stale']} stale, {rows['rejected']} rejected, {rows['alarms']} alarms dropped"),
        ("delivered→committed", _milliseconds(progress.delivered_to_committed)),
        ("stored→committed", _milliseconds(progress.stored_to_committed)),
    ]


def _milliseconds(latency: Latency | None) -> str:
    return f"p50 {latency.p50 * 1000:.0f} ms, p99 {latency.p99 * 1000:.0f} ms" if latency else "-"


def as_json(summary: Summary) -> str:
    checks = [asdict(check) | {"ok": check.ok} for check in summary.checks]
    return json.dumps({"ok": summary.ok} | asdict(summary) | {"checks": checks}, ensure_ascii=False)


def print_summary(console: Console, summary: Summary) -> None:
    """For a person; without control codes where the console has none."""
    progress, seconds = summary.progress, summary.seconds
    figures = Table.grid(padding=(0, 2))
    figures.add_row("files", f"{progress.applied} applied, {progress.archived} archived, {progress.dead} dead letters")
    for name, of_feed in summary.feeds.items():
        figures.add_row(f"tickets.{name}", f"{of_feed.applied} files, {of_feed.rows['inserted']} tickets")
    for name, text in _figures(progress)[2:]:
        figures.add_row(name, text)
    poller = f"; the poller was first with {progress.seen_by_poller}" if progress.seen_by_poller else ""
    figures.add_row("arrivals announced by", f"{summary.announced_by}{poller}")
    figures.add_row("duplicate deliveries", str(progress.duplicates))
    figures.add_row("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    figures.add_row("seed", str(summary.seed))
    checks = Table.grid(padding=(0, 2))
    for check in summary.checks:
        verdict = Text("ok", style="green") if check.ok else Text("NOT EQUAL", style="bold red")
        counted = f"{check.compared} compared" + ("" if check.ok else f", {check.different} differ")
        checks.add_row(check.name, verdict, counted)
    for part in ("", figures, "", "what is there, against what the feed implies:", checks):
        console.print(part, highlight=False)
    for check in summary.checks:
        for difference in check.differences:
            console.print(f"{check.name}: {difference}", soft_wrap=True, markup=False, highlight=False)
    console.print()
    for name, text in summary.look.items():
        console.print(f"{name:9} {text}", soft_wrap=True, markup=False, highlight=False)
    for text in (f"{'logs':9} {summary.logs}", summary.afterwards):
        console.print(text, soft_wrap=True, markup=False, highlight=False)

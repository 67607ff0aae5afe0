"""What a run writes into docs/performance.md, between its markers, and the pictures beside it."""

from collections.abc import Iterable
from pathlib import Path

from tests.bench import plot
from tests.bench.figures import Found

BEGIN, END = "<!-- bench: begin, written by make bench -->\n", "<!-- bench: end -->\n"
HEAD = ("what", "consumer", "floor or other way", "ratio", "of the rounds")


def table(found: Found) -> str:
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [(figure.what, figure.ours, figure.floor, figure.ratio, figure.spread) for figure in found.figures]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def stages(found: Found) -> str:
    """Each bar in words, for whoever sees no picture."""
    rows = [("medians by stage", "ms"), ("---", "---")]
    rows += [(bar.name, ", ".join(f"{name} {took:.1f}" for name, took in bar.stages.items())) for bar in found.bars]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) if found.bars else ""


def write(page: Path, found: Found, machine: Iterable[tuple[str, str]], method: str) -> None:
    """Raises: ValueError, when the page has no markers."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for the table")
    pictures = [(name, title, drawn) for name, title, drawn in _pictures(found) if drawn]
    for name, _, drawn in pictures:
        page.with_name(f"{page.stem}-{name}.svg").write_text(drawn)
    told = "".join(f"- {what}: {how}\n" for what, how in machine)
    shown = "".join(f"\n![{title}]({page.stem}-{name}.svg)\n" for name, title, _ in pictures)
    page.write_text(f"{before}{BEGIN}\n{told}\n{method}\n\n{table(found)}\n{stages(found)}{shown}\n{END}{after}")


def _pictures(found: Found) -> Iterable[tuple[str, str, str]]:
    yield "latency", "Latency by stage, medians", plot.bars(found.bars) if found.bars else ""
    yield "growth", "What one more file takes", plot.line(found.growth) if found.growth else ""

"""How commands that apply files by hand tell what became of each."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, assert_never

import typer

from consumer.commands.printing import words_of_changed, words_of_notes, words_of_rejected
from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate, Failure
from consumer.upkeep.drain import Drained, Tried
from consumer.work.telling import ROW_OUTCOMES
from publisher import metrics
from publisher.arrivals.keys import NotAChangeFile
from publisher.program import EXIT_FAILED
from publisher.terminal import printable

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without this, only show what would be done.")]


def words(outcome: Drained) -> str:
    """One line."""
    match outcome:
        case Applied(decision=decision, counts=counts):
            shown = {name: count for name, count in asdict(counts).items() if count and name != "read"}
            if never := shown.pop("never", 0):
                shown["dates that mean never"] = never
            return f"{decision}, {counts.read} rows: " + (
                ", ".join(f"{n} {name}" for name, n in shown.items()) or "none"
            )
        case AlreadyApplied():
            return "was applied before"
        case Duplicate(reason=reason):
            return f"left alone: {reason}"
        case NotAChangeFile(reason=reason):
            return f"left alone: {reason}"
        case Failure(reason=reason, detail=detail):
            return f"FAILS, {reason}: {detail}"
        case _:
            assert_never(outcome)


@dataclass(frozen=True, slots=True)
class Worked:
    """What a command has done of files: for good, or only tried; all of them, or until a signal came."""

    results: list[tuple[str, Drained]]
    is_applied: bool
    is_stopped: bool = False
    older: int = 0
    """So many files were left alone, since they are older than what was to be applied."""

    @property
    def failed(self) -> int:
        return sum(isinstance(outcome, Failure) for _, outcome in self.results)

    @property
    def dangerous(self) -> int:
        """So many files that were only tried, by which tickets would lose something."""
        return sum(isinstance(outcome, Tried) and bool(outcome.dangers) for _, outcome in self.results)


def tell_each(worked: Worked) -> None:
    for key, outcome in worked.results:
        typer.echo(printable(f"{key}: {words(outcome)}"))
        if isinstance(outcome, Applied):
            lines = [*words_of_notes(outcome.notes)]
            if isinstance(outcome, Tried):
                examples = outcome.examples
                lines += words_of_rejected(examples.rejected)
                lines += words_of_changed(examples.changed, outcome.counts.updated)
                lines += [f"DANGER: {one}" for one in outcome.dangers]
            for line in lines:
                typer.echo(printable(f"    {line}"))


def tell_metrics(worked: Worked, textfile: Path | None) -> None:
    """As metrics, in a file that cron's node_exporter reads."""
    if textfile is None:
        return
    files: Counter[str] = Counter(dict.fromkeys(("new", "late", "changed", "before", "left alone", "failed"), 0))
    files.update(_counted_as(outcome) for _, outcome in worked.results)
    rows = _rows(worked)
    for outcome, count in files.items():
        metrics.DRAINED.labels(outcome).set(count)
    for outcome in ROW_OUTCOMES:
        metrics.DRAINED_ROWS.labels(outcome).set(rows[outcome])
    metrics.DRAINED_AT.set_to_current_time()
    metrics.write(textfile, metrics.DRAIN)


def _counted_as(outcome: Drained) -> str:
    match outcome:
        case Applied(decision=decision):
            return decision
        case AlreadyApplied():
            return "before"
        case Failure():
            return "failed"
        case Duplicate() | NotAChangeFile():
            return "left alone"
        case _:
            assert_never(outcome)


def _rows(worked: Worked) -> Counter[str]:
    rows: Counter[str] = Counter()
    for _, outcome in worked.results:
        if isinstance(outcome, Applied):
            rows.update(asdict(outcome.counts))
    return rows


def conclude(worked: Worked, *, as_json: bool, quiet: bool = False) -> None:
    """Sum up, and end with the exit status that means it; of what was only tried, as `preview` does."""
    is_well = not (worked.failed or worked.dangerous or worked.is_stopped)
    if not (quiet and is_well):
        (_tell_as_json if as_json else _tell_sum)(worked)
    if not is_well:
        raise typer.Exit(EXIT_FAILED)


def _tell_as_json(worked: Worked) -> None:
    files = [_plain(key, outcome) for key, outcome in worked.results]
    told = {
        "applied": worked.is_applied, "failed": worked.failed, "dangerous": worked.dangerous,
        "stopped": worked.is_stopped, "older": worked.older, "files": files,
    }  # fmt: skip
    typer.echo(json.dumps(told))


def _tell_sum(worked: Worked) -> None:
    rows = _rows(worked)
    shown = ", ".join(f"{rows[name]} {name}" for name in ("inserted", "updated", "unchanged", "stale", "rejected"))
    dangerous = f", {worked.dangerous} dangerous" if worked.dangerous else ""
    typer.echo(f"{len(worked.results)} files, {worked.failed} failed{dangerous}; rows: {shown}")
    if worked.older:
        typer.echo(f"{worked.older} older files are left alone")
    if worked.is_stopped:
        goes_on = ": running it again goes on" if worked.is_applied else ""
        typer.echo(f"stopped by a signal; there may be more files{goes_on}")
    if not worked.is_applied:
        typer.echo("nothing was changed; --apply does it")


def _plain(key: str, outcome: Drained) -> dict[str, object]:
    plain: dict[str, object] = {"key": key, "outcome": words(outcome)}
    if isinstance(outcome, Applied):
        plain |= {"decision": outcome.decision, **asdict(outcome.counts), "notes": dict(outcome.notes)}
    if isinstance(outcome, Tried):
        plain["dangers"] = list(outcome.dangers)
        plain["rejected_rows"] = [kind.model_dump(mode="json") for kind in outcome.examples.rejected]
        plain["changed_tickets"] = [ticket.model_dump(mode="json") for ticket in outcome.examples.changed]
    if isinstance(outcome, Failure):
        plain |= {"reason": outcome.reason, "detail": outcome.detail}
    return plain

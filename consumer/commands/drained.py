"""How commands that apply files by hand tell what became of each."""

import json
from collections import Counter
from dataclasses import asdict
from typing import Annotated, assert_never

import typer

from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate, Failure
from consumer.upkeep.drain import Drained
from publisher.arrivals.keys import NotAChangeFile
from publisher.program import EXIT_FAILED
from publisher.terminal import printable

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without this, only show what would be done.")]


def words(outcome: Drained) -> str:
    """One line."""
    match outcome:
        case Applied(decision=decision, counts=counts):
            shown = {name: count for name, count in asdict(counts).items() if count and name != "read"}
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


def conclude(
    results: list[tuple[str, Drained]], *, apply: bool, as_json: bool, stopped: bool = False, are_told: bool = True
) -> None:
    failed = sum(isinstance(outcome, Failure) for _, outcome in results)
    if as_json:
        files = [_plain(key, outcome) for key, outcome in results]
        typer.echo(json.dumps({"applied": apply, "failed": failed, "stopped": stopped, "files": files}))
    else:
        rows: Counter[str] = Counter()
        for key, outcome in results:
            if not are_told:
                typer.echo(printable(f"{key}: {words(outcome)}"))
            if isinstance(outcome, Applied):
                rows.update(asdict(outcome.counts))
        shown = ", ".join(f"{rows[name]} {name}" for name in ("inserted", "updated", "unchanged", "stale", "rejected"))
        typer.echo(f"{len(results)} files, {failed} failed; rows: {shown}")
        if stopped:
            typer.echo("stopped by a signal; there may be more files" + (": running it again goes on" if apply else ""))
        if not apply:
            typer.echo("nothing was changed; --apply does it")
    if failed or stopped:
        raise typer.Exit(EXIT_FAILED)


def _plain(key: str, outcome: Drained) -> dict[str, object]:
    plain: dict[str, object] = {"key": key, "outcome": words(outcome)}
    if isinstance(outcome, Applied):
        plain |= {"decision": outcome.decision} | asdict(outcome.counts)
    if isinstance(outcome, Failure):
        plain |= {"reason": outcome.reason, "detail": outcome.detail}
    return plain

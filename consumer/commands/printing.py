"""Values as JSON for a script, and as lines for a person."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import typer

from consumer.upkeep.effects import ChangedTicket, RejectedKind
from consumer.upkeep.views import View
from publisher import program
from publisher.terminal import moment, printable

_NOTES = {
    "missing": "columns missing",
    "twice": "columns twice, alike in every row",
    "undeclared": "columns not declared, in raw alone",
    "new": "columns new in the feed",
}
_SHOWN_NAMES = 20
_SHOWN_KINDS = 3


def print_json(view: View) -> None:
    """On one line."""
    typer.echo(json.dumps(view.model_dump(mode="json")))


def print_fields(view: View, leaving_out: set[str], to_the_millisecond: Collection[str] = ()) -> None:
    """Each that has a value and is no zero count, one below the other."""
    program.say_pairs(
        [
            (name, printable(shown(value, milliseconds=name in to_the_millisecond)))
            for name, value in view
            if value not in (None, "", 0) and name not in leaving_out
        ],
        "    ",
    )


def words_of_notes(notes: Mapping[str, Any]) -> Iterator[str]:
    """What is to be known of a file's columns, and of a refused one's rows, a line each."""
    for column, written in notes.get("renamed", {}).items():
        yield f"column {column} is called {written!r}"
    for told, phrase in _NOTES.items():
        if names := notes.get(told):
            yield f"{phrase}: {_some(names)}"
    kinds = sorted(notes.get("rejects", {}).items(), key=lambda kind: -kind[1])
    for kind, count in kinds[:_SHOWN_KINDS]:
        yield f"{count} rejected: {kind}"
    if len(kinds) > _SHOWN_KINDS:
        yield f"and {len(kinds) - _SHOWN_KINDS} kinds more"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def shown(value: object, *, milliseconds: bool = False) -> str:
    """Times in EAT and UTC."""
    return moment(value, milliseconds=milliseconds) if isinstance(value, datetime) else str(value)


def words_of_rejected(kinds: Iterable[RejectedKind]) -> Iterator[str]:
    """Rows that a file would have rejected, each kind with its first ones."""
    for kind in kinds:
        yield f"rejected, {kind.rows:,} x {kind.reason}"
        yield from (f"    line {row.line:,} {row.reason}: {row.raw}" for row in kind.first)


def words_of_changed(tickets: Sequence[ChangedTicket], updated: int) -> Iterator[str]:
    """The first tickets that a file would change, of so many."""
    for ticket in tickets:
        yield f"changed: {ticket.ticket_id}, by line {ticket.line:,}"
        yield from (f"    {one.column}: {_value(one.before)} -> {_value(one.after)}" for one in ticket.changes)
    if updated > len(tickets) > 0:
        yield f"and {updated - len(tickets):,} more changed tickets"


def _value(value: str | None) -> str:
    return "nothing" if value is None else repr(value)

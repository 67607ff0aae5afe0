"""The commands `dead-letters list`, `show` and `replay`; `discard` needs the database and is the consumer's."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from threading import Event
from typing import Annotated, Any

import typer
from pika.adapters.blocking_connection import BlockingChannel

from publisher.arrivals import messages
from publisher.broker import channels, dead_letters
from publisher.broker.dead_letters import DeadLetter, Group, LettersInHand, Selection
from publisher.broker.replays import Fate, Replayed, Replays
from publisher.broker.topology import Queue
from publisher.errors import Misconfigured
from publisher.program import EXIT_FAILED, EXIT_UNDECIDED, AsJson, Known, say, stop_on_signals
from publisher.settings import BrokerSettings, load
from publisher.terminal import by_folder, duration, moment, printable

_WAIT_SECONDS = 60.0
_LOOK_SECONDS = 0.3
_BESIDE = " " * 10
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def age(text: str) -> timedelta:
    """Read an age as people write it: 90s, 15m, 2h, 3d."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no age; like 90s, 15m, 2h or 3d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


OfQueue = Annotated[Queue, typer.Option("--queue", help="Whose dead letters.")]
OfId = Annotated[str | None, typer.Option("--id", help="Only the one with this id in `dead-letters list --each`.")]
OfKey = Annotated[str | None, typer.Option("--key", help="Only those of this key of the bucket.")]
OfGroup = Annotated[str | None, typer.Option("--group", help="Only those with this fingerprint of the reason.")]
OlderThan = Annotated[
    timedelta | None,
    typer.Option("--older-than", parser=age, metavar="AGE", help="Only those dead for longer: 90s, 2h, 3d."),
]
NewerThan = Annotated[
    timedelta | None,
    typer.Option("--newer-than", parser=age, metavar="AGE", help="Only those dead for less: 15m, 1d."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="The oldest N of them at most.")]
Every = Annotated[bool, typer.Option("--all", help="All of the queue's dead letters.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show which it would be.")]

letters = typer.Typer(help="Look at dead letters, send them back, or let go of them for good.", no_args_is_help=True)


@contextmanager
def holding(
    queue: Queue, purpose: str, heartbeat: int | None = None
) -> Iterator[tuple[BlockingChannel, LettersInHand]]:
    """The queue's dead letters on a channel of their own; the topology is there.

    Raises: HeldByAnother, DependencyDown, Misconfigured.
    """
    with (
        channels.declared_channel(load(BrokerSettings), purpose, heartbeat) as channel,
        dead_letters.browsing(channel, queue) as held,
    ):
        yield channel, held


def describe(letter: DeadLetter) -> dict[str, Any]:
    """What a script is shown of a letter."""
    return {
        "id": letter.id,
        "queue": letter.queue.value,
        "key": letter.key,
        "reason": letter.reason,
        "error": letter.error,
        "group": letter.fingerprint,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "dead_at": _iso(letter.dead_at),
    }


def required(chosen: Selection, *, every: bool) -> Selection:
    """The choice that the options make, of which one has to be given.

    Raises: Misconfigured.
    """
    # 0 s is an age; an empty text is what a script's variable has that nobody set.
    has_age = chosen.older_than is not None or chosen.newer_than is not None
    if not (every or chosen.id or chosen.key or chosen.fingerprint or has_age or chosen.limit):
        raise Misconfigured("say which: --id, --key, --group, --older-than, --newer-than, --limit or --all")
    return chosen


@letters.command("list")
def list_letters(
    *,
    queue: OfQueue = Queue.FILES,
    key: OfKey = None,
    group: OfGroup = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = None,
    each: Annotated[bool, typer.Option("--each", help="Every letter, not only the groups.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters in groups of one cause; with --each one by one, oldest first. Nothing leaves the queue.

    A group is a fingerprint of the reason: failures that differ only in numbers and names are one group.
    """
    chosen = Selection(None, key, group, older_than, newer_than, limit)
    with holding(queue, "dead letters", channels.LOOKING_HEARTBEAT) as (_, held):
        # Of each only what is shown is kept, whatever the size of its body and headers; in groups none is.
        seen = chosen.among(replace(letter, body=b"", headers={}) for letter in held)
        ranked = [(letter.rank, describe(letter)) for letter in seen] if each else []
        groups = [] if each else dead_letters.grouped(seen)
    found = [shown for _, shown in sorted(ranked, key=itemgetter(0))]
    if as_json:
        shown = [asdict(one) | {"oldest": _iso(one.oldest), "newest": _iso(one.newest)} for one in groups]
        typer.echo(json.dumps(found if each else shown))
    elif not found and not groups:
        typer.echo(f"no dead letters in {queue.dead_letters}{'' if chosen == Selection() else ' that fit'}")
    elif each:
        _print_each(found)
    else:
        _print_groups(groups)
        say("one by one: --each; whole: dead-letters show ID; back to work: dead-letters replay --group GROUP")


def _print_each(found: list[dict[str, Any]]) -> None:
    """A folder once, and its names below it, those that died first before the others."""
    for folder, named in by_folder((letter["key"], letter) for letter in found).items():
        typer.echo(printable(folder or "(no key)"))
        for name, letter in named:
            if name:
                typer.echo(f"  {printable(name)}")
            say(
                f"    {letter['id']}  dead since {_shown(letter['dead_at'])}, {letter['attempts']} attempts, "
                f"{replayed(letter['replays'])}, group {printable(letter['group'])}",
                "    ",
            )
            say(f"    {printable(letter['reason'])}", "    ")


def _print_groups(groups: list[Group]) -> None:
    for one in groups:
        say(f"{one.fingerprint}  {one.letters} letters: {printable(one.reason)}", "    ")
        say(f"    the oldest {_ago(one.oldest)}, the newest {_ago(one.newest)}", "    ")
        say(f"    {printable(one.key or '(no key)')}: {printable(one.error)}", "    ")
    typer.echo()


@letters.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Its id in `dead-letters list --each`.")],
    queue: OfQueue = Queue.FILES,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter whole: reason, history, headers, body."""
    with holding(queue, "dead letters", channels.LOOKING_HEARTBEAT) as (_, held):
        letter = next(Selection(id=letter_id).of(held))
    # The history has lines of its own.
    headers = {name: str(value) for name, value in letter.headers.items() if name != messages.HISTORY}
    shown = describe(letter) | {
        "trace_id": letter.trace.id,
        "history": letter.history,
        "headers": headers,
        "body": _text(letter.body),
    }
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        match value:
            case list():
                for line in value:
                    say(f"history   {printable(line)}", _BESIDE)
            case dict():
                for key, text in value.items():
                    say(f"header    {printable(f'{key}: {text}')}", _BESIDE)
            case _ if name == "body":
                typer.echo(f"{name:9} {printable(value, lines=True)}")
            case _:
                said = _shown(value) if name == "dead_at" else str(value)
                say(f"{name:9} {printable(said)}", _BESIDE)


@letters.command("replay")
def replay_letters(
    context: typer.Context,
    *,
    queue: OfQueue = Queue.FILES,
    letter_id: OfId = None,
    key: OfKey = None,
    group: OfGroup = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = None,
    every_letter: Every = False,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, metavar="PER_SECOND", help="So many a second at most.")
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Files may lack columns that the exporter always writes: those become empty in the tickets they name.",
        ),
    ] = False,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, metavar="SECONDS", help="For what becomes of them; 0 does not wait."),
    ] = _WAIT_SECONDS,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their work queue, to be tried once more, and tell what became of them.

    Each is published and confirmed before it leaves the dead letters, so an interruption loses none. What dies again
    meanwhile stays for the next time. SIGTERM and SIGINT end it after the letter in hand. What was done is told
    also when an error ends it. An --id or --key that no letter has is exit status 1.

    With DATABASE_URL it waits until each file is decided: exit status 1 when one failed again, 3 when one is not
    decided in time.
    """
    chosen = required(Selection(letter_id, key, group, older_than, newer_than, limit), every=every_letter)
    if allow_missing and queue is not Queue.FILES:
        raise Misconfigured(f"--allow-missing is for change files, and {queue.value} has none")
    if dry_run:
        with (
            holding(queue, "replay", channels.LOOKING_HEARTBEAT) as (_, held),
            telling("would replay", as_json=as_json) as outcome,
        ):
            for letter in chosen.of(held):
                outcome.add(letter)
        return
    stop = stop_on_signals()
    known: Known = context.obj
    with (
        known.replays() if wait and queue is Queue.FILES else nullcontext() as replays,
        telling("replayed", as_json=as_json) as outcome,
    ):
        begun: set[str] = set()

        def begin(letter: DeadLetter) -> None:
            if replays is not None and replays.begin(letter):
                begun.add(letter.id)

        with channels.declared_channel(load(BrokerSettings), "replay") as channel:
            dead_letters.replay(
                channel,
                queue,
                chosen,
                outcome.add,
                begin=begin,
                allows_missing=allow_missing,
                per_second=rate,
                stop=stop,
            )
            _, consumers = channels.queue_depth(channel, queue.broker_name)
        if replays is None or not begun:
            return
        if not consumers:
            typer.echo("nobody takes them up, since no consumer runs: fleettickets consume", err=True)
        status = _await(replays, begun, outcome, time.monotonic() + (wait if consumers else 0), stop)
    if status:
        raise typer.Exit(status)


def _await(replays: Replays, begun: set[str], outcome: "Shown", until: float, stop: Event) -> int:
    """Tell what becomes of letters, each as soon as it is decided; gives the exit status.

    Raises: FleetticketsError.
    """
    open_ones, failed = set(begun), False
    while True:
        found = replays.outcomes()
        is_over = time.monotonic() >= until or stop.is_set()
        for letter in sorted(open_ones):
            one = found[letter]
            if one.fate is not Fate.UNDECIDED or is_over:
                outcome.end(letter, one)
            if one.fate is not Fate.UNDECIDED:
                open_ones.discard(letter)
                failed = failed or one.fate is Fate.FAILED
        if not open_ones or is_over:
            return EXIT_FAILED if failed else EXIT_UNDECIDED if open_ones else 0
        stop.wait(_LOOK_SECONDS)


class Shown:
    """Tells of letters as they are dealt with, or of all at the end for a script."""

    def __init__(self, done: str, *, as_json: bool) -> None:
        self._done = done
        self._as_json = as_json
        self._count = 0
        self._letters: list[dict[str, Any]] = []

    def add(self, letter: DeadLetter) -> None:
        self._count += 1
        if self._as_json:
            self._letters.append(describe(letter))
        else:
            typer.echo(f"{self._done} {letter.id} {printable(letter.key or '(no key)')}")

    def end(self, letter_id: str, outcome: Replayed) -> None:
        """Tell what became of one of them."""
        if self._as_json:
            (letter,) = (one for one in self._letters if one["id"] == letter_id)
            letter |= {"outcome": outcome.fate.value, "detail": outcome.detail}
        else:
            say(f"{outcome.fate.value} {letter_id}: {printable(outcome.detail)}", "    ")

    def conclude(self) -> None:
        if self._as_json:
            typer.echo(json.dumps({self._done.replace(" ", "_"): self._letters}))
        else:
            typer.echo(f"{self._done}: {self._count}")


@contextmanager
def telling(done: str, *, as_json: bool) -> Iterator[Shown]:
    """Say at the end what was done, also when an error is the end."""
    shown = Shown(done, as_json=as_json)
    try:
        yield shown
    finally:
        shown.conclude()


def _ago(when: datetime | None) -> str:
    if when is None:
        return "unknown"
    return f"{duration((datetime.now(UTC) - when).total_seconds())} ago, {moment(when)}"


def replayed(times: int) -> str:
    """In words."""
    return f"replayed {times} times" if times > 1 else "replayed once" if times else "never replayed"


def _shown(told: str | None) -> str:
    return moment(datetime.fromisoformat(told), milliseconds=True) if told else "unknown"


def _iso(when: datetime | None) -> str | None:
    return when.isoformat(timespec="milliseconds") if when else None


def _text(body: bytes) -> str:
    return body.decode(errors="backslashreplace")
